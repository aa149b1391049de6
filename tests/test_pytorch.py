"""Watching real training loops."""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
import textwrap
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import grokwatch
from grokwatch.integrations.pytorch import Watch, evaluate
from grokwatch.records import read_run
from tests.nets import Spy, Training

SYNCS = ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "__index__")


class CountSyncs(TorchFunctionMode):
    """Counts the tensor methods that wait for a device."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in SYNCS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class CountScalars(TorchDispatchMode):
    """Counts reads of a tensor's value, whoever asked for them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def linear_regression(lr: float = 0.05):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    x, y = torch.randn(32, 4), torch.randint(3, (32,))
    return model, torch.optim.SGD(model.parameters(), lr=lr), x, y


def cross_entropy(model, x, y):
    return torch.nn.functional.cross_entropy(model(x), y)


def one_step(model, optimizer, x, y):
    loss = cross_entropy(model, x, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


# -- no waiting for the device -------------------------------------------------------------------


def test_no_host_sync_per_step(monkeypatch):
    monkeypatch.setattr("grokwatch.integrations._drain._SECONDS", 1e9)
    monkeypatch.setattr("grokwatch.integrations._drain._AT_ONCE", False)  # a CPU as if far off
    monkeypatch.setattr("grokwatch.integrations._norms.SMALL", -1)
    model, optimizer, x, y = linear_regression()
    steps, validations = 500, 5
    with grokwatch.watch(model, optimizer, budget=1000) as watch:
        with CountSyncs() as methods, CountScalars() as scalars:
            for step in range(1, steps + 1):
                logits = model(x)
                loss = torch.nn.functional.cross_entropy(logits, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.train(loss=loss, logits=logits, targets=y, step=None)
                if step % 100 == 0:
                    watch.validate(logits=logits, targets=y)
                assert not watch.should_stop
    drains = steps / 50 + validations
    assert scalars.count == 0
    assert sum(methods.counts.values()) == methods.counts["tolist"]
    assert 0 < methods.counts["tolist"] <= drains


def test_on_a_cpu_every_number_is_read_once():
    model, optimizer, x, y = linear_regression()
    with grokwatch.watch(model, optimizer, budget=1000, norms_every=0) as watch:
        with CountSyncs() as methods, CountScalars() as scalars:
            for _ in range(200):
                watch.train(loss=one_step(model, optimizer, x, y), accuracy=0.5)
    assert methods.counts == {"item": 200} and scalars.count == 200


@pytest.mark.parametrize("at_once", [False, True])
def test_a_loss_in_a_buffer_that_is_reused_is_kept(at_once, monkeypatch):
    monkeypatch.setattr("grokwatch.integrations._drain._AT_ONCE", at_once)
    model, *_ = linear_regression()
    buffer, array = torch.zeros(()), np.zeros(())
    with grokwatch.watch(model, None, budget=100) as watch:
        spy = Spy(watch)
        for step in range(1, 4):
            watch.train(loss=buffer.fill_(float(step)), grad_norm=array)
            array += 1.0
    assert [row["train_loss"] for _, row in spy.rows] == [1.0, 2.0, 3.0]
    assert [row["grad_norm"] for _, row in spy.rows] == [0.0, 1.0, 2.0]


def test_the_graph_is_let_go(monkeypatch):
    monkeypatch.setattr("grokwatch.integrations._drain._AT_ONCE", False)
    monkeypatch.setattr("grokwatch.integrations._norms.SMALL", -1)
    model, optimizer, x, y = linear_regression()
    watch = grokwatch.watch(model, optimizer, budget=100)
    loss = cross_entropy(model, x, y)
    watch.train(loss=loss)
    kept, *_ = watch._drain._open.values()
    assert not kept.requires_grad and kept.grad_fn is None
    watch.close()


# -- the clock -----------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_accumulated_batches_are_averaged_into_one_row(when):
    model, optimizer, x, y = linear_regression()
    want: dict[int, list[float]] = {}
    with grokwatch.watch(model, optimizer, budget=100, norms_every=1) as watch:
        spy = Spy(watch)
        for step in range(10):
            for part in range(4):
                loss = cross_entropy(model, x[part::4], y[part::4])
                (loss / 4).backward()
                if when == "before":
                    watch.train(loss=loss)
                    want.setdefault(step, []).append(loss.item())
                if part == 3:
                    optimizer.step()
                    optimizer.zero_grad()
                if when == "after":
                    watch.train(loss=loss)
                    want.setdefault(step + (part == 3), []).append(loss.item())
    rows = spy.merged()
    got = {step: row["train_loss"] for step, row in rows.items() if "train_loss" in row}
    assert got == {k: pytest.approx(sum(v) / len(v), rel=1e-6) for k, v in want.items()}
    assert [k for k, row in rows.items() if "weight_norm" in row] == list(range(1, 11))


@pytest.mark.parametrize("first", [0, 1, 1000])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("norms_every", [1, 3])
def test_a_step_of_the_users_own(first, when, norms_every):
    model, optimizer, x, y = linear_regression()
    with grokwatch.watch(model, optimizer, budget=2000, norms_every=norms_every) as watch:
        spy = Spy(watch)
        for step in range(first, first + 20):
            loss = cross_entropy(model, x, y)
            optimizer.zero_grad()
            loss.backward()
            if when == "before":
                watch.train(loss=loss, step=step)
            optimizer.step()
            if when == "after":
                watch.train(loss=loss, step=step)
            if step % 5 == 0:
                watch.validate(loss=loss, step=step)
    rows = spy.merged()
    assert [k for k, row in rows.items() if "train_loss" in row] == list(range(first, first + 20))
    assert any("weight_norm" in row for row in rows.values())


def test_without_an_optimizer_every_call_is_a_step():
    model, *_ = linear_regression()
    with grokwatch.watch(model, budget=100) as watch:
        spy = Spy(watch)
        for step in range(1, 6):
            watch.train(loss=1.0 / step, accuracy=torch.tensor([0.25]))
        watch.train(loss=0.1, step=10)
        watch.validate(loss=0.5)
        watch.train(loss=0.05)
    assert [step for step, row in spy.rows if "train_loss" in row] == [1, 2, 3, 4, 5, 10, 11]
    assert [step for step, row in spy.rows if "val_loss" in row] == [10]


def test_of_several_optimizers_the_first_is_the_clock():
    model, first, x, y = linear_regression()
    second = torch.optim.Adam(model.parameters())
    with grokwatch.watch(model, [first, second], budget=100, norms_every=1) as watch:
        spy = Spy(watch)
        for _ in range(5):
            loss = one_step(model, first, x, y)
            second.step()
            second.step()
            watch.train(loss=loss)
    assert [step for step, _ in spy.rows] == [1, 2, 3, 4, 5]
    assert not first._optimizer_step_post_hooks and not second._optimizer_step_post_hooks


def test_lbfgs_closures_count_one_step_each():
    model, _, x, y = linear_regression()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model, x, y)
        loss.backward()
        return loss

    with grokwatch.watch(model, optimizer, budget=100, norms_every=1) as watch:
        spy = Spy(watch)
        for _ in range(6):
            watch.train(loss=optimizer.step(closure))
    rows = spy.merged()
    assert list(rows) == [1, 2, 3, 4, 5, 6]
    assert rows[6]["train_loss"] < rows[1]["train_loss"]
    assert all(row["learning_rate"] == 1.0 for row in rows.values())


@pytest.mark.parametrize("scaled", [False, True])
def test_mixed_precision(scaled):
    model, optimizer, x, y = linear_regression()
    scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=1024.0)
    with grokwatch.watch(model, optimizer, budget=100, norms_every=1) as watch:
        spy = Spy(watch)
        for _ in range(5):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(x)
                loss = torch.nn.functional.cross_entropy(logits, y)
                watch.train(loss=loss, logits=logits, targets=y)
                watch.validate(logits=logits, targets=y)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            true = torch.cat([p.grad.flatten() for p in model.parameters()]).double().norm().item()
            scaler.update()
    assert logits.dtype == torch.bfloat16
    rows = spy.merged()
    assert rows[5]["grad_norm"] == pytest.approx(true, rel=1e-6)
    assert rows[4]["val_loss"] == pytest.approx(rows[4]["train_loss"], rel=1e-2)


def test_compiled_model():
    model, optimizer, x, y = linear_regression()
    compiled = torch.compile(model, backend="eager")
    with grokwatch.watch(compiled, optimizer, budget=100, norms_every=1) as watch:
        for _ in range(4):
            watch.train(loss=one_step(compiled, optimizer, x, y))
        watch.flush()
        norm = torch.cat([p.detach().flatten() for p in model.parameters()]).norm()
        assert watch.verdict.signals["weight_norm"] == pytest.approx(norm.item(), rel=1e-6)


@pytest.mark.slow
def test_compiled_by_inductor():
    model, optimizer, x, y = linear_regression()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        compiled = torch.compile(model)
        with grokwatch.watch(compiled, optimizer, budget=100) as watch:
            for _ in range(4):
                watch.train(loss=one_step(compiled, optimizer, x, y))
    assert watch.verdict.step == 4


# -- no harm -------------------------------------------------------------------------------------


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


# -- where it is written -------------------------------------------------------------------------


def feed(watch, steps, start=0):
    for step in range(start + 1, start + steps + 1):
        watch.train(loss=1.0 / step, step=step)


def test_two_watches_of_one_folder_are_kept_apart(tmp_path):
    model, *_ = linear_regression()
    first = grokwatch.watch(model, budget=100, log_dir=tmp_path / "run", tensorboard=False)
    second = grokwatch.watch(model, budget=100, log_dir=tmp_path / "run", tensorboard=False)
    feed(first, 60)
    feed(second, 70)
    saved = json.loads(json.dumps(second.state_dict()))
    first.close()
    second.close()
    assert (first.log_dir, second.log_dir) == (tmp_path / "run", tmp_path / "run-2")
    again = grokwatch.watch(model, budget=100, log_dir=tmp_path / "run", tensorboard=False)
    again.load_state_dict(saved)
    feed(again, 20, start=70)
    again.close()
    assert read_run(tmp_path / "run").last_step == 60
    assert read_run(tmp_path / "run-2").last_step == 90
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run-2"]


def test_an_unusable_folder_is_told_once(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    model, *_ = linear_regression()
    with pytest.warns(RuntimeWarning, match="log_dir failed") as told:
        with grokwatch.watch(model, budget=100, log_dir=tmp_path / "file" / "run") as watch:
            feed(watch, 60)
    assert len(told) == 1
    assert watch._outlet.monitor.last_step == 60


def test_a_folder_removed_under_way_is_told(tmp_path):
    model, *_ = linear_regression()
    with pytest.warns(RuntimeWarning, match="record failed.*was removed") as told:
        with grokwatch.watch(
            model, budget=9000, log_dir=tmp_path / "run", tensorboard=False
        ) as watch:
            feed(watch, 60)
            (tmp_path / "run" / "grokwatch.jsonl").unlink()
            feed(watch, 2000, start=60)
    assert len(told) == 1
    assert watch._outlet.monitor.last_step == 2060


def run_program(program: str, cwd) -> subprocess.CompletedProcess[str]:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_full_disk(tmp_path):
    done = run_program(
        """
        import resource, signal, sys, warnings
        import torch, grokwatch
        import torch.utils.tensorboard
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # no file may grow further
        with grokwatch.watch(model, optimizer, budget=9000, log_dir="run") as watch:
            for step in range(1500):
                loss = model(torch.ones(1, 2)).square().mean() + 1
                optimizer.zero_grad(); loss.backward(); optimizer.step()
                watch.train(loss=loss)
                if step % 20 == 0:
                    watch.validate(loss=loss)
        print("finished", watch._outlet.monitor.last_step)
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "finished 1500\n"
    assert done.stderr.count("record failed and is switched off") == 1
    assert done.stderr.count("tensorboard failed and is switched off") == 1
    assert read_run(tmp_path / "run").last_step > 100  # what was written stays readable


def test_a_watch_that_nobody_closes_still_writes_its_tail(tmp_path):
    done = run_program(
        """
        import torch, grokwatch
        def main(name):
            watch = grokwatch.watch(torch.nn.Linear(2, 2), budget=100, log_dir=name)
            for step in range(1, 70):
                watch.train(loss=1.0 / step)
            return watch
        main("local")
        kept = main("global")
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("local", "global"):
        assert read_run(tmp_path / name).last_step == 69


def test_a_watch_goes_with_its_optimizer():
    model, optimizer, *_ = linear_regression()
    watch = grokwatch.watch(model, optimizer, budget=100)
    ends = watch._finish
    del watch, model, optimizer
    gc.collect()
    assert not ends.alive


def test_only_rank_zero_judges_and_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    model, *_ = linear_regression()
    with grokwatch.watch(model, budget=100, log_dir=tmp_path / "run") as watch:
        feed(watch, 60)
    assert not (tmp_path / "run").exists() and watch._outlet.monitor.last_step is None


# -- loss, accuracy and margin of logits ---------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("index", [torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("shape", [(40,), (5, 8)])
def test_evaluate_against_numpy(dtype, index, shape):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(*shape, 7, generator=generator).to(dtype)
    targets = torch.randint(7, shape, generator=generator).to(index)
    loss, accuracy, margin = (value.item() for value in evaluate(logits, targets))
    z, t = logits.double().numpy().reshape(-1, 7), targets.long().numpy().ravel()
    rows = np.arange(len(t))
    others = z.copy()
    others[rows, t] = -np.inf
    assert loss == pytest.approx(np.mean(np.log(np.exp(z).sum(1)) - z[rows, t]), rel=1e-5)
    assert accuracy == pytest.approx(np.mean(z.argmax(1) == t))
    assert margin == pytest.approx(np.mean(z[rows, t] - others.max(1)), rel=1e-5)


def test_negative_targets_are_left_out():
    logits, targets = torch.randn(6, 4), torch.tensor([0, 1, -100, 3, -1, 2])
    kept = targets >= 0
    assert [v.item() for v in evaluate(logits, targets)] == pytest.approx(
        [v.item() for v in evaluate(logits[kept], targets[kept])]
    )
    model, *_ = linear_regression()
    with grokwatch.watch(model, budget=9) as watch:
        spy = Spy(watch)
        watch.train(loss=1.0, logits=logits, targets=targets)
    assert spy.rows[0][1]["train_accuracy"] == pytest.approx(
        evaluate(logits[kept], targets[kept])[1].item()
    )
    assert all(torch.isnan(v) for v in evaluate(logits, torch.full((6,), -1)))


def test_validation_of_nothing_is_not_measured():
    model, *_ = linear_regression()
    with grokwatch.watch(model, budget=9) as watch:
        watch.train(loss=1.0)
        watch.validate(logits=torch.zeros(0, 3), targets=torch.zeros(0, dtype=torch.long))
    assert "val_accuracy" not in watch.verdict.signals
