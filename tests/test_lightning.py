"""Real trainers of both packages, followed by the callback."""

from __future__ import annotations

import logging
import sys

import pytest
import torch

import grokwatch
from grokwatch.integrations._callback import next_check
from grokwatch.records import read_run
from grokwatch.replay import replay
from tests.lightning_nets import (
    NETS,
    PACKAGES,
    GrokWatchCallback,
    Net,
    accuracy,
    loaders,
    pl,
    trainer,
)
from tests.lightning_runs import MARKS, both, follow, rows_with
from tests.loops import CountScalars, CountSyncs
from tests.nets import Spy, Training

# -- without arguments -----------------------------------------------------------------------------

pytestmark = MARKS


@both
def test_without_arguments(tmp_path, caplog, package):
    caplog.set_level(logging.INFO, logger="grokwatch")
    callback = GrokWatchCallback()
    net = NETS[package](logs=("step",), loss="valid/loss", accuracy="valid_accuracy")
    (spy,), fit, _ = follow(tmp_path, callback, net, package=package, max_steps=100)
    assert list(rows_with(spy, "train_loss")) == list(range(1, 101))
    assert list(rows_with(spy, "train_accuracy")) == list(range(1, 101))
    assert list(rows_with(spy, "val_loss")) == [20, 40, 60, 80, 100]
    assert list(rows_with(spy, "val_accuracy")) == [20, 40, 60, 80, 100]
    assert callback.verdict.step == 100 and callback.verdict.phase == "memorisation"
    assert fit.global_step == 100
    said = caplog.text
    for text in (
        "budget = 100, taken from the trainer",
        "learning_rate = 0.003, taken",
        "weight_decay = 1.0, taken",
        "train_loss = 'loss', returned by training_step",
        "train_accuracy = 'train_acc', logged",
        "val_loss = 'valid/loss', logged",
        "val_accuracy = 'valid_accuracy', logged",
    ):
        assert text in said
    record = read_run(callback.log_dir)
    assert record.settings["budget"] == 100
    assert record.notes == {
        "trainer": "lightning",
        "module": type(net).__name__,
        "optimizer": "AdamW",
    }


@both
def test_one_callback_need_not_be_in_a_list(tmp_path, package):
    callback = GrokWatchCallback()
    fit = trainer(tmp_path, callback, package, max_steps=5)
    fit.fit(NETS[package](), *loaders(5))
    assert callback.verdict.step == 5
    assert isinstance(callback, PACKAGES[package].Callback)


def test_without_either_package(monkeypatch):
    from grokwatch.integrations._lightning_base import base

    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'grokwatch\[lightning\]'"):
        base()


# -- one verdict stream everywhere -----------------------------------------------------------------


def test_raw_lightning_and_replay_give_the_same_verdicts(tmp_path):
    callback = GrokWatchCallback(budget=5000)
    (spy,), fit, _ = follow(tmp_path, callback, count=10, max_steps=1100)
    assert callback.verdict.recommendation == "stop_generalised"
    assert fit.global_step == 1100  # it only advises

    training = Training()
    with grokwatch.watch(training.model, training.optimizer, budget=5000) as watch:
        raw = Spy(watch)
        while training.steps < 1100:
            loss, logits = training.step()
            watch.train(loss=loss, accuracy=accuracy(logits, training.y))
            if training.steps % 10 == 0:
                found = training.validation()
                loss = torch.nn.functional.cross_entropy(found["logits"], found["targets"])
                watch.validate(loss=loss, accuracy=accuracy(**_as_pair(found)))
    assert raw.merged() == spy.merged()
    assert raw.verdicts == spy.verdicts
    again = replay(callback.log_dir)
    assert {verdict.step: verdict for verdict in again.verdicts} == spy.verdicts


def _as_pair(found):
    return {"logits": found["logits"], "y": found["targets"]}


# -- steps -----------------------------------------------------------------------------------------


def test_validation_every_n_steps(tmp_path):
    more = {"val_check_interval": 7, "check_val_every_n_epoch": None, "max_steps": 50}
    (spy,), *_ = follow(tmp_path, GrokWatchCallback(), **more)
    assert list(rows_with(spy, "val_loss")) == [7, 14, 21, 28, 35, 42, 49]


def test_accumulated_batches_are_averaged_and_not_divided(tmp_path):
    callback = GrokWatchCallback()
    (spy,), fit, net = follow(
        tmp_path, callback, count=10, parts=4, max_epochs=4, accumulate_grad_batches=4
    )
    want: dict[int, list[float]] = {}
    for before, loss in net.losses:  # 4 + 4 + 2 batches an epoch
        want.setdefault(before + 1, []).append(float(loss))
    assert [len(losses) for losses in want.values()] == [4, 4, 2] * 4
    got = rows_with(spy, "train_loss")
    assert got == {step: pytest.approx(sum(v) / len(v), rel=1e-6) for step, v in want.items()}
    assert callback._follower.settings["budget"] == fit.global_step == 12
    assert list(rows_with(spy, "weight_norm")) == [1]


def test_half_precision(tmp_path):
    callback = GrokWatchCallback()
    (spy,), *_ = follow(tmp_path, callback, max_steps=60, precision="bf16-mixed")
    losses = rows_with(spy, "train_loss")
    assert len(losses) == 60 and losses[60] < losses[1]
    assert callback.verdict.phase == "confusion"


def test_no_host_sync_per_step(tmp_path, monkeypatch):
    monkeypatch.setattr("grokwatch.integrations._drain._SECONDS", 1e9)
    monkeypatch.setattr("grokwatch.integrations._drain._AT_ONCE", False)  # a CPU as if far off
    monkeypatch.setattr("grokwatch.integrations._norms.SMALL", -1)

    def count(callbacks):
        fit = trainer(tmp_path, callbacks, max_steps=200)
        with CountSyncs() as methods, CountScalars() as scalars:
            fit.fit(Net(returns=True), *loaders(50))
        return scalars.count, methods.counts

    scalars, methods = count([GrokWatchCallback(stop=True)])
    scalars_without, methods_without = count([])
    step, checks = 0, 0
    while (step := next_check(step)) <= 200:
        checks += 1
    assert scalars == scalars_without
    assert methods["tolist"] - methods_without["tolist"] <= checks + 200 / 50 + 1
    assert methods["item"] == methods_without["item"]


def test_training_accuracy_by_the_epoch(tmp_path):
    (spy,), *_ = follow(tmp_path, GrokWatchCallback(), Net(logs=("epoch",)), 10, max_epochs=3)
    assert list(rows_with(spy, "train_accuracy")) == [10, 20, 30]


def test_keys_logged_when_the_epoch_ends(tmp_path):
    class Late(Net):
        def on_train_epoch_end(self):
            self.log("train_acc", float(self.current_epoch) / 10)

    (spy,), *_ = follow(tmp_path, GrokWatchCallback(), Late(), 10, max_epochs=3)
    got = rows_with(spy, "train_accuracy")
    assert got == {10: 0.0, 20: pytest.approx(0.1), 30: pytest.approx(0.2)}


def test_two_optimizers_of_ones_own(tmp_path):
    class Manual(Net):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            x, y = batch
            loss = torch.nn.functional.cross_entropy(self.net(x), y)
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()
                optimizer.zero_grad()
            self.log("train_loss", loss)

        def configure_optimizers(self):
            first, second = self.net[0].embedding, self.net[0].head
            return [torch.optim.SGD(part.parameters(), 0.1) for part in (first, second)]

    callback = GrokWatchCallback()
    (spy,), fit, _ = follow(tmp_path, callback, Manual(), 10, max_epochs=3)
    assert list(rows_with(spy, "train_loss")) == list(range(2, 61, 2))
    assert list(rows_with(spy, "val_loss")) == [20, 40, 60]
    assert callback._follower.settings["budget"] == fit.global_step == 60


def test_the_sanity_check_is_not_an_observation(tmp_path):
    (spy,), *_ = follow(tmp_path, GrokWatchCallback(), max_steps=20, num_sanity_val_steps=2)
    assert list(rows_with(spy, "val_loss")) == [20]


def test_validation_outside_of_a_fit_is_not_an_observation(tmp_path):
    callback = GrokWatchCallback()
    (spy,), fit, net = follow(tmp_path, callback, max_steps=20)
    rows = len(spy.rows)
    fit.validate(net, loaders()[1], verbose=False)
    assert len(spy.rows) == rows


# -- what is missing or wrong ----------------------------------------------------------------------


def test_a_missing_key_is_told_once_and_harms_nothing(tmp_path):
    callback = GrokWatchCallback()
    with pytest.warns(RuntimeWarning, match=r"neither .* there are: 'my_f1', 'train_acc'\. Name"):
        _, fit, _ = follow(tmp_path, callback, Net(logs=("step",), loss="my_f1"), max_steps=60)
    assert fit.global_step == 60 and callback.verdict.step <= 20


@pytest.mark.parametrize("named", [{}, {"val_accuracy": "val_top1"}])
def test_a_missing_key_raises_if_asked_to(tmp_path, named):
    callback = GrokWatchCallback(on_error="raise", **named)
    net = Net(loss="val_loss" if named else "my_f1")
    with pytest.raises(ValueError, match="logged metrics; there are: '"):
        follow(tmp_path, callback, net, max_steps=60)


def test_keys_that_are_named(tmp_path):
    net = Net(loss="a", accuracy="b")
    callback = GrokWatchCallback(val_loss="a", val_accuracy="b", on_error="raise")
    (spy,), *_ = follow(tmp_path, callback, net, max_steps=20)
    assert list(rows_with(spy, "val_accuracy")) == [20]


def test_weights_that_turn_nan_are_a_diverged_run(tmp_path):
    net = Net()
    net.poison_at = 30
    callback = GrokWatchCallback(stop=True)
    _, fit, _ = follow(tmp_path, callback, net, max_steps=500)
    assert callback.verdict.phase == "diverged"
    assert 30 < fit.global_step <= 40


def test_a_run_without_end_needs_a_budget(tmp_path):
    class Enough(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step >= 5

    with pytest.warns(RuntimeWarning, match="pass budget="):
        fit = trainer(tmp_path, [GrokWatchCallback(), Enough()], max_epochs=-1)
        fit.fit(Net(), *loaders(5))
    assert fit.global_step == 5


def test_wrong_arguments_raise_at_once():
    with pytest.raises(ValueError, match="on_stop must be"):
        GrokWatchCallback(on_stop="nothing")
    with pytest.raises(ValueError, match="stop_on knows"):
        GrokWatchCallback(stop_on=["stop"])
    with pytest.raises(ValueError, match="on_error must be"):
        GrokWatchCallback(on_error="ignore")
    with pytest.raises(ValueError, match="max_kill_rate must lie"):
        GrokWatchCallback(max_kill_rate=2.0)
    with pytest.raises(TypeError, match="unexpected keyword"):
        GrokWatchCallback(patience=3)


def test_classes_are_taken_from_the_hyper_parameters(tmp_path):
    class Told(Net):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters({"num_classes": 23})

    callback = GrokWatchCallback()
    follow(tmp_path, callback, Told(), max_steps=5)
    assert callback._follower.settings["chance"] == 1 / 23
