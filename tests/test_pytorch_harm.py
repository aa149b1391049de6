"""A watch does no harm to the training it watches."""

from __future__ import annotations

import json
import random
import warnings

import numpy as np
import pytest
import torch

import grokwatch
from grokwatch.integrations.pytorch import Watch
from grokwatch.records import read_run
from tests.loops import feed, linear_regression, one_step
from tests.nets import Spy, Training


def train_with(watched: bool, tmp_path):
    random.seed(5)
    np.random.seed(5)
    training = Training(dropout=0.2)
    watch = None
    if watched:
        watch = grokwatch.watch(
            training.model,
            training.optimizer,
            budget=500,
            log_dir=tmp_path / "run",
            norms_every=1,
        )
    for step in range(60):
        loss, logits = training.step()
        if watch is not None:
            watch.train(loss=loss, logits=logits, targets=training.y)
            if step % 7 == 0:
                watch.validate(**training.validation())
                json.dumps(watch.state_dict())
        elif step % 7 == 0:
            training.validation()
    if watch is not None:
        watch.close()
    return training


def test_training_is_the_same_bit_for_bit(tmp_path):
    plain = train_with(False, tmp_path)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    watched = train_with(True, tmp_path)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    assert np.random.get_state()[1].tolist() == state[2]
    for a, b in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(a, b) and torch.equal(a.grad, b.grad)
    for a, b in zip(plain.optimizer.state.values(), watched.optimizer.state.values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_hooks_are_gone_afterwards_even_after_an_exception():
    model, optimizer, x, y = linear_regression()
    with pytest.raises(KeyError), grokwatch.watch(model, optimizer, budget=100) as watch:
        assert optimizer._optimizer_step_pre_hooks and optimizer._optimizer_step_post_hooks
        watch.train(loss=one_step(model, optimizer, x, y))
        raise KeyError("the user's own")
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    assert watch.verdict.step == 1  # what was held back is judged
    watch.close()
    watch.train(loss=1.0)
    assert watch.validate(loss=1.0) is watch.verdict
    assert not watch._drain._open


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda w: w.train(loss=torch.ones(3)), "train_loss"),
        (lambda w: w.train(loss=torch.ones((), dtype=torch.complex64)), "train_loss"),
        (lambda w: w.train(loss=np.ones(3)), "train_loss"),
        (lambda w: w.train(loss="high"), "train_loss"),
        (lambda w: w.train(loss="0.5"), "train_loss"),
        (lambda w: w.train(loss=1j), "train_loss"),
        (lambda w: w.train(loss=np.complex64(1j)), "train_loss"),
        (lambda w: w.train(loss=1.0, nonsense=2.0), "nonsense"),
        (lambda w: w.train(loss=1.0, grad_norm=-2.0), "grad_norm"),
        (lambda w: w.train(logits=torch.ones(4, 3), targets=torch.ones(4, 1)), "train_accuracy"),
        (lambda w: w.validate(accuracy=97.0), "val_accuracy"),
        (lambda w: w.validate(accuracy=torch.tensor(97.0)), "val_accuracy"),
        (lambda w: w.validate(loss=[1.0, 2.0]), "val_loss"),
        (lambda w: w.observe(val_margin=object()), "val_margin"),
        (lambda w: w.observe(chance="low"), "chance"),
    ],
)
def test_a_wrong_measurement_is_told_once_and_the_others_go_on(call, part):
    model, optimizer, x, y = linear_regression()
    with grokwatch.watch(model, optimizer, budget=1000) as watch:
        spy = Spy(watch)
        for _ in range(3):
            watch.train(loss=one_step(model, optimizer, x, y))
        watch.flush()
        loss = one_step(model, optimizer, x, y)
        with pytest.warns(RuntimeWarning, match=f"measurement {part} .* switched off") as told:
            call(watch)
            watch.flush()
        assert len(told) == 1
        call(watch)  # not told again
        for _ in range(100):
            loss = one_step(model, optimizer, x, y)
            others = {part: 1.0} if part in ("nonsense", "grad_norm") else {}
            watch.train(loss=loss, accuracy=0.25, **others)
        assert watch.validate(loss=2.0, accuracy=0.5, margin=1.0).step == 104
    last = spy.merged()[104]
    sound = {"train_accuracy": 0.25, "val_loss": 2.0, "val_accuracy": 0.5, "val_margin": 1.0}
    want = {"train_loss": np.float32(loss.item()), **sound}
    want.pop(part, None)
    assert {name: last[name] for name in last if name in sound or name == "train_loss"} == want
    assert part not in last


@pytest.mark.parametrize(
    "logits",
    [(torch.ones(4, 3), torch.ones(4, 2)), (torch.ones(4, 3), torch.tensor([9] * 4)), ("a", "b")],
)
def test_wrong_logits_cost_what_is_computed_of_them(logits):
    model, optimizer, *_ = linear_regression()
    with grokwatch.watch(model, optimizer, budget=100) as watch:
        spy = Spy(watch)
        with pytest.warns(RuntimeWarning, match="switched off") as told:
            watch.validate(loss=0.5, logits=logits[0], targets=logits[1])
        assert sorted(str(w.message).split()[2] for w in told) == ["val_accuracy", "val_margin"]
        watch.validate(loss=0.25, accuracy=1.0, step=1)
    assert spy.rows == [(0, {"val_loss": 0.5}), (1, {"val_loss": 0.25})]


@pytest.mark.parametrize(
    "call", [lambda w: w.train(loss=1.0, step="three"), lambda w: w.validate(loss=1.0, step=0)]
)
def test_a_wrong_step_is_told_once_and_costs_its_row(call):
    model, optimizer, x, y = linear_regression()
    with grokwatch.watch(model, optimizer, budget=100) as watch:
        for _ in range(3):
            watch.train(loss=one_step(model, optimizer, x, y))
        watch.flush()
        with pytest.warns(RuntimeWarning, match="a row is left out") as told:
            call(watch)
            watch.flush()
        assert len(told) == 1
        call(watch)  # not told again
        for _ in range(200):
            watch.train(loss=one_step(model, optimizer, x, y))
        assert watch.validate(loss=1.0).step == 203
        assert watch.verdict.signals["val_loss"] == 1.0


def test_of_two_validations_of_a_step_the_first_counts(tmp_path):
    model, *_ = linear_regression()
    settings = {"budget": 100, "log_dir": tmp_path / "run", "tensorboard": False}
    with pytest.warns(RuntimeWarning, match="val_loss of step 5 came twice: first 0.5") as told:
        with grokwatch.watch(model, **settings) as watch:
            spy = Spy(watch)
            feed(watch, 5)
            watch.validate(loss=0.5, accuracy=0.25)
            watch.validate(loss=0.625, accuracy=0.25, margin=1.0)
            watch.validate(loss=0.5)
            feed(watch, 1, start=5)
            watch.validate(loss=float("nan"))
            watch.validate(loss=float("nan"))
            watch.validate(loss=0.25)
    assert len(told) == 1
    rows = spy.merged()
    assert (rows[5]["val_loss"], rows[5]["val_margin"]) == (0.5, 1.0)
    assert np.isnan(rows[6]["val_loss"])
    assert grokwatch.replay(tmp_path / "run").final == watch.verdict


@pytest.mark.filterwarnings("error")
def test_warnings_made_errors_do_no_harm_either(caplog):
    model, optimizer, *_ = linear_regression()
    with grokwatch.watch(model, optimizer, budget=100) as watch:
        watch.validate(accuracy=97.0)
    assert "val_accuracy failed and is switched off" in caplog.text
    assert "percent" in caplog.text


class Noisy:
    """A signal whose arithmetic warns, as numpy and scipy do."""

    name, inputs = "noisy", ("noise",)

    def update(self, step, name, value):
        np.float64(value) / np.float64(0.0)
        warnings.warn("a fit that did not converge", UserWarning, stacklevel=1)

    def values(self):
        return {"noisy": 1.0}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.filterwarnings("error")
def test_warnings_inside_the_monitor_are_not_raised(caplog):
    model, optimizer, *_ = linear_regression()
    with np.errstate(all="raise"):
        with grokwatch.watch(model, optimizer, budget=100, signals=[Noisy()]) as watch:
            for step in (1, 2, 3):
                watch.observe(noise=1.0, step=step)
    assert watch.verdict.signals["noisy"] == 1.0 and watch.verdict.step == 3
    assert caplog.text.count("did not converge") == 1
    assert caplog.text.count("divide by zero") == 1


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"budget": 0}, ValueError, "budget must be at least 1"),
        ({"budget": 10.5}, TypeError, "budget must be a whole number"),
        ({"budget": 9, "chance": 2.0}, ValueError, "chance must lie in 0..1"),
        ({"budget": 9, "stop_on": ("foo",)}, ValueError, "stop_on knows"),
        ({"budget": 9, "norms_every": -1}, ValueError, "norms_every cannot be negative"),
        ({"budget": 9, "nonsense": 1}, TypeError, "nonsense"),
        ({"budget": 9, "accuracy_unit": "permille"}, ValueError, "accuracy_unit"),
        ({"budget": 9, "on_stop": "pray"}, ValueError, "on_stop must be"),
        ({"budget": 9, "on_stop": "checkpoint"}, ValueError, "needs a log_dir"),
        ({"budget": 9, "on_verdict": 3}, TypeError, "on_verdict must be callable"),
        ({"budget": 9, "notes": {"a": object()}}, TypeError, "notes must be plain"),
        ({"budget": 9, "optimizer": [torch.ones(1)]}, TypeError, "optimizer must be"),
        ({"budget": 9, "model": 3}, TypeError, "model must be"),
    ],
)
def test_wrong_settings_raise_at_once(wrong, error, message):
    model, optimizer, *_ = linear_regression()
    with pytest.raises(error, match=message):
        Watch(**{"model": model, "optimizer": optimizer, **wrong})
    assert not optimizer._optimizer_step_pre_hooks


def test_an_alert_that_raises_is_told_once():
    model, optimizer, x, y = linear_regression()

    def alert(verdict):
        raise OSError("no network")

    with pytest.warns(RuntimeWarning, match="on_verdict failed.*no network") as told:
        with grokwatch.watch(model, optimizer, budget=100, on_verdict=alert) as watch:
            for _ in range(100):
                watch.train(loss=one_step(model, optimizer, x, y))
                watch.validate(loss=float("nan"))
    assert len(told) == 1
    assert watch.verdict.step == 100


def test_an_alert_may_save_a_checkpoint(tmp_path):
    training, saved = Training(), []
    watch = grokwatch.watch(
        training.model,
        training.optimizer,
        budget=500,
        log_dir=tmp_path / "run",
        on_verdict=lambda verdict: saved.append(json.dumps(watch.state_dict())),
        tensorboard=False,
    )
    spy = Spy(watch)
    with watch:
        training.run(watch, 200, validate_every=50)
    assert len(saved) >= 2
    steps = [step for step, _ in spy.rows]
    assert steps == sorted(steps)
    assert read_run(tmp_path / "run").last_step == 200


def test_settings_are_taken_from_the_optimizer():
    model, *_ = linear_regression()
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.5), weight_decay=0.25)
    with grokwatch.watch(model, optimizer, budget=9) as watch:
        assert watch._outlet.monitor.settings.learning_rate == 0.5
        assert watch._outlet.monitor.settings.weight_decay == 0.25
    with grokwatch.watch(model, optimizer, budget=9, learning_rate=0.125) as watch:
        assert watch._outlet.monitor.settings.learning_rate == 0.125


def test_percent(tmp_path):
    training = Training()
    with grokwatch.watch(
        training.model,
        training.optimizer,
        budget=500,
        log_dir=tmp_path / "run",
        accuracy_unit="percent",
        tensorboard=False,
    ) as watch:
        spy = Spy(watch)
        for step in range(1, 121):
            loss, logits = training.step()
            accuracy = 100.0 * (logits.argmax(1) == training.y).float().mean()
            watch.train(loss=loss, accuracy=accuracy)
            if step % 10 == 0:
                watch.validate(**training.validation())  # fractions, whatever the unit
    row = spy.merged()[120]
    assert row["train_accuracy"] == 1.0
    assert row["chance"] == pytest.approx(1 / 23)
    assert 0.0 < row["val_accuracy"] < 1.0
    assert grokwatch.replay(tmp_path / "run").final == watch.verdict
