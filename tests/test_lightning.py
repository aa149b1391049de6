"""Real trainers of both packages, followed by the callback."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from packaging.version import Version
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import grokwatch
from grokwatch.integrations._callback import next_check
from grokwatch.records import read_run
from grokwatch.replay import replay
from tests.lightning_nets import (
    NETS,
    PACKAGES,
    QUIET,
    GrokWatchCallback,
    Net,
    accuracy,
    loaders,
    pl,
    spy_on,
    trainer,
)
from tests.nets import Spy, Training
from tests.test_pytorch import CountScalars, CountSyncs

pytestmark = [pytest.mark.filterwarnings(text) for text in QUIET]
ROOT = Path(__file__).parent.parent
both = pytest.mark.parametrize("package", PACKAGES)


def follow(folder, callback, net=None, count=20, parts=1, package="lightning", **more):
    """Train; the spies on the callback's monitors, and trainer and module."""
    spies = spy_on(callback)
    net = NETS[package](returns=True) if net is None else net
    fit = trainer(folder, [callback], package, **more)
    fit.fit(net, *loaders(count, parts))
    return spies, fit, net


def rows_with(spy, name):
    return {step: row[name] for step, row in spy.merged().items() if name in row}


def validated_alike(record, spy):
    """Whether a resumed trainer validated at the steps of an unbroken one; it trained the same.

    Lightning 2.2, resumed within an epoch, validates a batch later.
    """
    run = read_run(record)
    steps, losses = run.columns["train_loss"]
    assert dict(zip(steps.tolist(), losses.tolist(), strict=True)) == rows_with(spy, "train_loss")
    alike = run.columns["val_loss"][0].tolist() == list(rows_with(spy, "val_loss"))
    assert alike or Version(pl.__version__) < Version("2.3")
    return alike


# -- without arguments -----------------------------------------------------------------------------


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


# -- stopping --------------------------------------------------------------------------------------


def test_a_stop_can_be_undone(tmp_path, caplog):
    early = {"budget": 1000, "generalised_at": 0.1}
    callback = GrokWatchCallback(stop=True, **early)
    spies, fit, _ = follow(tmp_path, callback, max_steps=800)
    assert callback.verdict.recommendation == "stop_generalised"
    stopped, formed = fit.global_step, callback.verdict.step
    assert formed <= stopped <= next_check(formed) and "stopping at step" in caplog.text
    (path,) = callback.log_dir.glob(f"grokwatch-stop-step={stopped}.ckpt")
    state = torch.load(path, weights_only=True)["callbacks"][callback.state_key]
    json.dumps(state, allow_nan=False)

    again = GrokWatchCallback(**early)
    resumed = spy_on(again)
    fit = trainer(tmp_path, [again], max_steps=700)
    fit.fit(Net(returns=True), *loaders(20), ckpt_path=path)
    assert stopped < fit.global_step == 700 and again.log_dir == callback.log_dir

    whole, _, _ = follow(tmp_path / "whole", GrokWatchCallback(**early), max_steps=700)
    verdicts = {**spies[0].verdicts, **resumed[0].verdicts}
    assert {v.step: v for v in replay(again.log_dir).verdicts} == verdicts
    if validated_alike(again.log_dir, whole[0]):
        assert verdicts == whole[0].verdicts


def test_without_a_checkpoint_there_is_no_stop(tmp_path, monkeypatch):
    net = Net()
    net.poison_at = 30
    callback = GrokWatchCallback(stop=True)
    (tmp_path / "file").write_text("")
    fit = trainer(tmp_path, [callback], max_steps=60)
    callback._log_dir = None
    fit._default_root_dir = str(tmp_path / "file")  # no folder: nothing can be written there
    with pytest.warns(RuntimeWarning, match="on_stop failed|log_dir failed"):
        fit.fit(net, *loaders(20))
    assert fit.global_step == 60


def test_what_is_done_before_a_stop_may_be_a_function(tmp_path):
    net, told = Net(), []
    net.poison_at = 30
    callback = GrokWatchCallback(stop=True, on_stop=told.append)
    _, fit, _ = follow(tmp_path, callback, net, max_steps=500)
    assert [verdict.step for verdict in told] == [fit.global_step]
    assert not list(tmp_path.rglob("*.ckpt"))


# -- state -----------------------------------------------------------------------------------------


def test_a_second_fit_goes_on(tmp_path):
    callback = GrokWatchCallback(budget=500)
    spies, fit, net = follow(tmp_path, callback, max_steps=100)
    fit.fit_loop.epoch_loop.max_steps = 200
    fit.fit(net, *loaders())
    assert len(spies) == 2 and fit.global_step == 200
    steps = list(spies[0].merged()) + list(spies[1].merged())
    assert steps == list(range(1, 201))
    assert {v.step: v for v in replay(callback.log_dir).verdicts} == {
        **spies[0].verdicts,
        **spies[1].verdicts,
    }


def test_a_checkpoint_without_our_state(tmp_path):
    fit = trainer(tmp_path, [], max_steps=30)
    fit.fit(Net(), *loaders(10))
    fit.save_checkpoint(tmp_path / "bare.ckpt")
    callback = GrokWatchCallback(on_error="raise")
    spies = spy_on(callback)
    fit = trainer(tmp_path, [callback], max_steps=60)
    fit.fit(Net(), *loaders(10), ckpt_path=tmp_path / "bare.ckpt")
    assert list(rows_with(spies[0], "train_loss")) == list(range(31, 61))


def test_a_broken_state_is_told_and_begins_anew(tmp_path):
    callback = GrokWatchCallback()
    with pytest.warns(RuntimeWarning, match="saved state failed .* lacks 'monitor'"):
        callback.load_state_dict({"of": "another version"})
    follow(tmp_path, callback, max_steps=20)
    assert callback.verdict.step == 20


def test_it_can_be_sent_to_another_process():
    callback = pickle.loads(pickle.dumps(GrokWatchCallback(stop=True, budget=7)))
    assert callback.verdict.phase == "unknown" and callback.state_dict() == {}


def test_another_trainer_begins_anew(tmp_path):
    callback = GrokWatchCallback()
    follow(tmp_path / "a", callback, max_steps=60)
    assert callback.verdict.step > 20
    follow(tmp_path / "b", callback, max_steps=20)
    assert callback.verdict.step == 20 and callback._follower.settings["budget"] == 20
    assert callback.log_dir == tmp_path / "b" / "grokwatch"


def test_several_instances(tmp_path):
    callbacks = [GrokWatchCallback(), GrokWatchCallback(name="loss only", val_loss="val_loss")]
    logger = pl.loggers.CSVLogger(tmp_path)
    fit = trainer(tmp_path, callbacks, max_steps=40, logger=logger)
    fit.fit(Net(), *loaders())
    assert callbacks[1].log_dir == callbacks[0].log_dir / "loss only"
    keys = set((callbacks[0].log_dir / "metrics.csv").read_text().splitlines()[0].split(","))
    assert {"grokwatch/phase", "loss only/phase"} <= keys
    with pytest.raises(RuntimeError, match="state_key"):
        trainer(tmp_path, [GrokWatchCallback(), GrokWatchCallback()])


# -- loggers and bars ------------------------------------------------------------------------------


def test_every_logger_gets_the_verdicts_on_the_axis_of_its_other_curves(tmp_path):
    loggers = [pl.loggers.TensorBoardLogger(tmp_path), pl.loggers.CSVLogger(tmp_path, "csv")]
    callback = GrokWatchCallback()
    (spy,), *_ = follow(tmp_path, callback, max_steps=60, logger=loggers)
    folder = callback.log_dir
    assert str(folder) == loggers[0].log_dir and (folder / "grokwatch.jsonl").is_file()
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    assert len(events.Tensors("custom_scalars__config__")) == 1
    mine = [event.step for event in events.Scalars("grokwatch/val_loss")]
    assert mine == [event.step for event in events.Scalars("val_loss")] == [19, 39, 59]
    phases = [event.step + 1 for event in events.Scalars("grokwatch/forecast/phase")]
    assert sorted(set(phases)) == list(spy.verdicts)
    lines = (folder.parents[1] / "csv/version_0/metrics.csv").read_text().splitlines()
    columns = lines[0].split(",")
    step, phase = columns.index("step"), columns.index("grokwatch/phase")
    rows = [line.split(",") for line in lines[1:]]
    assert sorted({int(row[step]) + 1 for row in rows if row[phase]}) == list(spy.verdicts)


def test_the_trainers_own_bar_shows_the_verdict(tmp_path, capsys):
    shown = []

    class Bar(pl.callbacks.TQDMProgressBar):
        def get_metrics(self, *args):
            found = super().get_metrics(*args)
            shown.append(found.get("grokwatch", ""))
            return found

    fit = trainer(tmp_path, [GrokWatchCallback(), Bar()], max_steps=100, enable_progress_bar=True)
    fit.fit(Net(logs=("step", "bar")), *loaders())
    assert {"confusion", "memorisation"} <= {text.split(" ")[0] for text in shown}
    assert "grokwatch=memorisation" in capsys.readouterr().out.replace("'", "")


def test_a_trial_run_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callback = GrokWatchCallback(stop=True)
    follow(tmp_path, callback, fast_dev_run=3)
    assert callback.verdict.step == 3 and not list(tmp_path.rglob("*.jsonl"))


# -- crashes and several processes -----------------------------------------------------------------


def run(folder, *arguments, timeout=300):
    """The verdicts of a run in a process of its own, and how it ended."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.lightning_nets", str(folder), *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'examples'}"},
    )
    path = folder / "verdicts.json"
    return done, json.loads(path.read_text()) if path.exists() else None


def test_killed_and_resumed(tmp_path):
    done, verdicts = run(tmp_path / "a", "--kill-after", "190")
    assert done.returncode == -9 and verdicts is None, done.stderr
    done, after = run(tmp_path / "a", "--resume", str(tmp_path / "a" / "step=140.ckpt"))
    assert done.returncode == 0, done.stderr
    spies, *_ = follow(
        tmp_path / "b", GrokWatchCallback(budget=300), Net(returns=True), 50, max_steps=300
    )
    whole = [verdict.as_dict() for verdict in spies[0].verdicts.values()]
    record = tmp_path / "a" / "lightning_logs" / "version_1"  # the earlier rows have come along
    replayed = [v.as_dict() for v in replay(record).verdicts]
    assert [v for v in after if v["step"] > 140] == [v for v in replayed if v["step"] > 140]
    if validated_alike(record, spies[0]):
        assert replayed == whole


def ranks(folder):
    return [json.loads((folder / f"rank{i}.json").read_text())["step"] for i in (0, 1)]


def test_two_processes_stop_together(tmp_path):
    done, verdicts = run(tmp_path, "--devices", "2", "--poison-at", "133")
    assert done.returncode == 0, done.stderr
    assert verdicts[-1]["phase"] == "diverged"
    first, second = ranks(tmp_path)
    assert first == second and 133 < first <= 140
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == 1
    assert len(list(tmp_path.rglob("grokwatch.jsonl"))) == 1
    (path,) = tmp_path.rglob("grokwatch-stop*.ckpt")
    assert "GrokWatchCallback[grokwatch]" in torch.load(path, weights_only=True)["callbacks"]


def test_two_processes_of_which_one_runs_out_of_data(tmp_path):
    done, _ = run(tmp_path, "--devices", "2", "--steps", "60", "--uneven")
    assert done.returncode == 0, done.stderr
    assert ranks(tmp_path) == [60, 60]
