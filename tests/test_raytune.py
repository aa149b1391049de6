"""Ray Tune itself, two workers on this machine, with real recorded curves as trials."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from ray import tune

from grokwatch import Monitor, Verdict
from grokwatch.integrations._raytune_scheduler import STATE
from grokwatch.integrations._sweep_rows import TrialRows
from grokwatch.integrations._sweep_trials import DECISIONS
from grokwatch.integrations.raytune import GrokWatchScheduler, GrokWatchStopper
from tests import sweep_ray
from tests.sweep_curves import BUDGET, CHANCE, without_fits
from tests.sweep_curves import rows as curve

HANGS_AFTER = 300  # seconds; alone on the machine a driver takes 20


def watcher(**changes: Any) -> GrokWatchStopper:
    settings: dict[str, Any] = {"control_fraction": 0.0, **changes}
    return GrokWatchStopper(budget=BUDGET, chance=CHANCE, **settings)


def feed(stopper: GrokWatchStopper, name: str, found: Any, config: Any = None) -> list[bool]:
    """Hand a stopper results as Tune does; what it said to each."""
    said = []
    for step, row in found:
        said.append(stopper(name, {"step": step, "config": config or {}, **row}))
    return said


def replayed(kind: str, every: int, **settings: Any) -> Verdict | None:
    """The first verdict to stop of a plain monitor."""
    monitor = Monitor(budget=BUDGET, chance=CHANCE, **settings)
    for step, row in curve(kind, every):
        verdict = monitor.update(step, **row)
        if verdict.recommendation != "continue":
            return without_fits(verdict)
    return None


def decisions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / DECISIONS).read_text().splitlines()]


# -- a stopper as Tune calls it -----------------------------------------------------------------


@pytest.mark.parametrize("kind", sweep_ray.KINDS)
def test_stops_where_a_replay_would_for_the_same_reason(tmp_path, kind):
    stopper, config = watcher(log_dir=tmp_path), {"optimizer": {"lr": 3e-3, "wd": 1.0}}
    verdict = replayed(kind, 4, learning_rate=3e-3, weight_decay=1.0)
    assert verdict is not None
    for step, row in curve(kind, 4):
        result = {"step": step, "config": config, **row}
        stop = stopper("a", result)
        assert stop == (step == verdict.step)
        if stop:
            break
    assert result["grokwatch"]["reason"] == verdict.reason
    assert result["grokwatch"]["recommendation"] == verdict.recommendation
    first, last = decisions(tmp_path)
    assert first["type"] == "stop" and Verdict.from_dict(first["verdict"]) == verdict
    assert first["hyper"] == {"learning_rate": 3e-3, "weight_decay": 1.0}
    assert last["type"] == "end" and last["step"] == verdict.step and last["sweep"]["runs"] == 1
    assert not stopper.stop_all()


def test_learns_from_the_trials_that_end():
    stopper = watcher(control_fraction=0.5, refit_every=5)
    versions = []
    for number in range(20):
        kind, name = sweep_ray.KINDS[number % 4], f"trial_{number}"
        for step, row in curve(kind, 8):
            result = {"step": step, "config": {"lr": 1e-3 * (1 + number % 5)}, **row}
            if stopper(name, result):
                break
        else:
            assert not stopper(name, {**result, "done": True})
        versions.append(result["grokwatch"]["forecast"])
    assert versions == sorted(versions) and versions[-1] >= 1
    summary = stopper.report()
    assert summary.runs == 20 and summary.version >= versions[-1] and summary.control >= 5
    assert not stopper.trials.live


def test_a_trial_of_the_control_arm_is_not_stopped_but_noted(tmp_path):
    stopper = watcher(control_fraction=1.0, log_dir=tmp_path)
    assert not any(feed(stopper, "a", curve("never", 4)))
    (line,) = decisions(tmp_path)
    assert line["type"] == "would_stop"
    assert Verdict.from_dict(line["verdict"]) == replayed("never", 4)


def test_metrics_go_by_any_name():
    nested, mapped = watcher(), watcher(metrics={"val_accuracy": "top"}, step="updates")
    one = mapped_one = False
    verdict = replayed("grokker", 4)
    for step, row in curve("grokker", 4):
        val = {"loss": row["val_loss"], "acc": row["val_accuracy"]}
        train = {"loss": row["train_loss"], "acc": row["train_accuracy"]}
        one = nested("a", {"global_step": step, "val": val, "train": train, "config": {}})
        plain = {"updates": step, "top": val["acc"], "val_loss": val["loss"]}
        more = {"train_loss": train["loss"], "train_acc": train["acc"], "step": 7}
        mapped_one = mapped("a", {**plain, **more, "config": {}})
        assert one == mapped_one == (step == verdict.step)
        if one:
            break
    assert one


def test_without_a_step_iterations_count_and_this_is_said(caplog):
    stopper = watcher(learn=False)
    with caplog.at_level(logging.WARNING, logger="grokwatch"):
        for iteration in range(1, 6):
            result = {"training_iteration": iteration, "loss": float("nan"), "config": {}}
            if stopper("a", result):
                break
    assert iteration < 5 and result["grokwatch"]["phase"] == "diverged"
    assert caplog.text.count("taking 'training_iteration'") == 1


def test_percentages():
    stopper, verdict = watcher(accuracy_unit="percent"), replayed("grokker", 4)
    percent = [
        (step, {k: 100 * v if "accuracy" in k else v for k, v in row.items()})
        for step, row in curve("grokker", 4)
    ]
    said = feed(stopper, "a", percent)
    assert percent[said.index(True)][0] == verdict.step


def test_the_result_that_tune_repeats_at_the_end_counts_once():
    stopper = watcher(control_fraction=1.0)
    feed(stopper, "a", curve("never", 8))
    step, row = curve("never", 8)[-1]
    for _ in range(2):
        assert not stopper("a", {"step": step, "config": {}, "done": True, **row})
    assert stopper.report().runs == 1 and not stopper.trials.live


def test_a_trial_ends_with_its_budget():
    stopper = GrokWatchStopper(budget=1000, chance=CHANCE, control_fraction=1.0)
    feed(stopper, "a", curve("never", 2))  # goes on for long after
    assert stopper.report().runs == 1 and not stopper.trials.live


# -- what is wrong ------------------------------------------------------------------------------


def test_results_without_metrics_are_told_once():
    stopper = watcher()
    with pytest.warns(RuntimeWarning, match="no loss or accuracy .* 'reward'") as caught:
        for step in range(5):
            assert not stopper("a", {"step": step, "reward": 1.0, "config": {"lr": 1.0}})
    assert len(caught) == 1


def test_a_named_metric_that_never_comes_is_told_once():
    stopper = watcher(metrics={"val_accuracy": "eval/f1"})
    with pytest.warns(RuntimeWarning, match="metrics names 'eval/f1', which no trial") as caught:
        feed(stopper, "a", [(step, {"loss": 1.0}) for step in range(30)])
    assert len(caught) == 1


def test_a_step_that_is_missing_is_told_once():
    stopper = watcher(step="updates")
    with pytest.warns(RuntimeWarning, match="step, 'updates', is missing") as caught:
        feed(stopper, "a", [(step, {"loss": 1.0}) for step in range(5)])
    assert len(caught) == 1


def test_a_step_that_is_none_is_told_once():
    stopper = watcher()
    with pytest.warns(RuntimeWarning, match="step, 'step', is wrong: .*'ten'") as caught:
        feed(stopper, "a", [("ten", {"loss": 1.0}), (1.5, {"loss": 1.0}), (2.0, {"loss": 1.0})])
    assert len(caught) == 1 and stopper.trials.live == ["a"]  # 2.0 is a step


def test_a_wrong_measurement_costs_only_itself():
    stopper = watcher(learn=False)
    rows = [(step, {"loss": float("nan"), "val_acc": 97.0}) for step in range(10)]
    with pytest.warns(RuntimeWarning, match="val_accuracy is a fraction") as caught:
        assert any(feed(stopper, "a", rows))
    assert len(caught) == 1


def test_nan_accuracies_are_not_measured():
    rows = [(step, {"loss": 1.0, "val_acc": float("nan")}) for step in range(10)]
    assert not any(feed(watcher(), "a", rows))


def test_a_monitor_that_fails_stops_nothing():
    stopper = watcher(learn=False)
    rows = [(step, {"loss": float("nan")}) for step in range(9)]
    with pytest.warns(RuntimeWarning, match="monitor of a trial failed") as caught:
        assert not any(feed(stopper, "a", rows, config=["no mapping"]))
        assert not any(feed(stopper, "b", rows, config=["no mapping"]))
    assert len(caught) == 1
    assert any(feed(stopper, "c", rows))


def test_a_log_that_cannot_be_written_costs_only_itself(tmp_path):
    (tmp_path / "file").touch()
    stopper = watcher(log_dir=tmp_path / "file")
    with pytest.warns(RuntimeWarning, match="log of decisions failed") as caught:
        assert any(feed(stopper, "a", curve("immediate", 8)))
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"metrics": {"f1": "f1"}}, ValueError, r"metrics knows .*\['f1'\]"),
        ({"policy": None, "signals": ()}, TypeError, r"a sweep does not take \['signals'\]"),
        ({"hyper": {"momentum": "m"}}, ValueError, r"hyper knows .*\['momentum'\]"),
        ({"forecast": "mine.json"}, TypeError, "forecast must be a grokwatch.Forecast"),
        ({"budget": 0}, ValueError, "budget must be at least 1"),
        ({"refit_every": 0}, ValueError, "refit_every must be at least 1"),
    ],
)
def test_wrong_arguments_are_told_at_once(arguments, error, words):
    with pytest.raises(error, match=words):
        GrokWatchStopper(**{"budget": 100, **arguments})


def test_without_ray_the_extra_is_named():
    program = "import sys; sys.modules['ray'] = None\nimport grokwatch.integrations.raytune"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "ModuleNotFoundError" in last and "pip install 'grokwatch[ray]'" in last


# -- state --------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 9, 20, 30])
def test_a_stopper_that_is_saved_goes_on_with_the_same_verdicts(at):
    found = curve("never", 2)[:60]
    whole = watcher(control_fraction=0.5, refit_every=4)
    for number in range(12):  # what it has learnt matters too
        kind = sweep_ray.KINDS[number % 4]
        for step, row in curve(kind, 8):
            if whole(f"before_{number}", {"step": step, "config": {}, **row}):
                break
        else:
            whole(f"before_{number}", {"step": step, "config": {}, "done": True, **row})
    feed(whole, "a", found[:at])
    state = json.loads(json.dumps(whole.__getstate__()))  # plain JSON
    again = GrokWatchStopper.__new__(GrokWatchStopper)
    again.__setstate__(state)
    for step, row in found[at:]:
        one, two = ({"step": step, "config": {}, **row} for _ in range(2))
        assert whole("a", one) == again("a", two)
        assert one["grokwatch"] == two["grokwatch"]
    assert whole.report() == again.report()


def test_a_trial_that_goes_back_is_judged_by_the_rows_that_count(caplog):
    found, stopper = curve("never", 4)[:30], watcher()
    lost = [(step, {**row, "val_accuracy": 1.0}) for step, row in found[8:12]]
    with caplog.at_level(logging.WARNING, logger="grokwatch"):
        said = feed(stopper, "a", found[:8] + lost + found[8:])
    assert found[said.index(True) - 4][0] == replayed("never", 4).step
    assert "went back from step" in caplog.text


@pytest.mark.parametrize("broken", [{"state": {"version": 1}}, {"arguments": [{}]}])
def test_a_broken_state_stops_nothing_and_keeps_the_experiment(broken):
    saved = {**watcher().__getstate__(), **broken}
    stopper = GrokWatchStopper.__new__(GrokWatchStopper)
    with pytest.warns(RuntimeWarning, match=r"restoring the (stopper|sweep's state) failed"):
        stopper.__setstate__(saved)
    assert not stopper("a", {"step": 1, "loss": 1.0, "config": {}})
    assert pickle.loads(pickle.dumps(stopper)).stop_all() is False


value = st.floats(width=32, allow_infinity=False)
row = st.tuples(st.integers(0, 12), st.fixed_dictionaries({}, optional={"a": value, "b": value}))


@given(st.lists(row, max_size=30))
def test_rows_that_count_are_those_of_the_plainest_rule(reports):
    """What came at or after the step that a trial goes back to is gone."""
    rows, kept = TrialRows(False, lambda name, error: None), []
    for step, measured in reports:
        rows.take(step, measured)
        same = kept and kept[-1][0] == step
        clash = same and any(
            repr(kept[-1][1][name]) != repr(number) and kept[-1][1][name] != number
            for name, number in measured.items()
            if name in kept[-1][1]
        )
        if clash or (kept and kept[-1][0] > step):
            kept = [(at, old) for at, old in kept if at < step]
            same = False
        if same:
            kept[-1] = (step, {**measured, **kept[-1][1]})
        else:
            kept.append((step, dict(measured)))
    again = TrialRows(False, lambda name, error: None)
    again.load_state_dict(json.loads(json.dumps(rows.state_dict())))
    expected = [(step, sorted(measured.items())) for step, measured in kept if measured]
    for found in (rows, again):
        run = found.run("a", {})
        listed = [(step, sorted(measured.items())) for step, measured in run.rows()]
        assert repr(listed).replace("-0.0", "0.0") == repr(expected).replace("-0.0", "0.0")


# -- Ray ----------------------------------------------------------------------------------------


def alive() -> dict[int, int]:
    """Every process that runs -> the one that started it."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found


def started_by(pid: int) -> set[int]:
    """The processes that one has started, and those that these have."""
    parents, found, new = alive(), set[int](), {pid}
    while new:
        found |= new
        new = {child for child, parent in parents.items() if parent in new} - found
    return found - {pid}


@pytest.fixture(scope="module")
def cluster():
    before = started_by(os.getpid())  # other tests' pools of workers
    sweep_ray.begin()
    yield
    started = started_by(os.getpid()) - before
    assert len(started) >= 4  # scheduler, store, workers
    ray.shutdown()
    with warnings.catch_warnings():  # Ray leaves the handles of its processes to the collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    deadline = time.monotonic() + 60
    while left := started & alive().keys():
        assert time.monotonic() < deadline, f"Ray has left {left}"
        time.sleep(0.2)


class Forecasts(tune.Callback):
    """Keeps every forecast that the sweep comes to."""

    def __init__(self, stopper: GrokWatchStopper) -> None:
        self.stopper, self.by_version = stopper, {0: None}

    def on_trial_result(self, iteration, trials, trial, result, **info):
        sweep = self.stopper.trials.sweep
        self.by_version[sweep.version] = sweep.forecast


def test_a_sweep_of_two_workers(cluster, tmp_path):
    stopper = sweep_ray.stopper(tmp_path)
    seen = Forecasts(stopper)
    found = sweep_ray.tuner(tmp_path, stopper, sweep_ray.space(8, every=8), callbacks=[seen]).fit()
    assert len(found) == 8 and not found.errors
    lines = {line["trial"]: line for line in decisions(tmp_path) if line["type"] != "end"}
    for result in found:
        config, told = result.config["trial"], result.metrics["grokwatch"]
        verdict = replayed(
            config["kind"],
            8,
            learning_rate=config["lr"],
            forecast=seen.by_version[told["forecast"]],
        )
        assert Verdict.from_dict(lines[result.metrics["trial_id"]]["verdict"]) == verdict
        last = curve(config["kind"], 8)[-1][0]
        assert result.metrics["step"] == (last if told["control"] else verdict.step)
        if not told["control"]:
            assert told["reason"] == verdict.reason
            log = Path(result.path, "result.json").read_text().splitlines()
            assert json.loads(log[-1])["grokwatch"] == told
    summary = stopper.report()
    assert summary.runs == 8 and not stopper.trials.live
    assert summary.control == sum(r.metrics["grokwatch"]["control"] for r in found)


def test_a_scheduler_that_stops_and_comes_back(cluster, tmp_path):
    """Beside another scheduler and ``stop=``, with a trial that fails and is resumed."""
    stopper = sweep_ray.stopper(tmp_path, control_fraction=0.0)
    asha = tune.schedulers.ASHAScheduler(
        time_attr="training_iteration", metric="val_loss", mode="min", grace_period=9, max_t=12
    )
    space = sweep_ray.space(4, every=8, fails_once=str(tmp_path / "failed"))
    scheduler = GrokWatchScheduler(stopper, asha)
    found = sweep_ray.tuner(
        tmp_path, {"training_iteration": 11}, space, tune_config={"scheduler": scheduler}
    ).fit()
    assert len(found.errors) == 1 and (tmp_path / sweep_ray.NAME / STATE).exists()
    assert stopper.report().runs == 3 and not stopper.trials.live
    restored = tune.Tuner.restore(
        str(tmp_path / sweep_ray.NAME),
        tune.with_resources(sweep_ray.trainable, {"cpu": 1}),
        resume_errored=True,
    ).fit()
    assert not restored.errors
    lines = decisions(tmp_path)
    assert [line["sweep"]["runs"] for line in lines if line["type"] == "end"] == [1, 2, 3, 4]
    stops = {line["trial"]: line["verdict"] for line in lines if line["type"] == "stop"}
    for result in restored:
        config, name = result.config["trial"], result.metrics["trial_id"]
        verdict = replayed(config["kind"], 8, learning_rate=config["lr"])
        if name in stops:
            assert Verdict.from_dict(stops[name]) == verdict
            assert result.metrics["step"] == verdict.step
        else:  # ended by the others before
            assert verdict.step > result.metrics["step"]
    assert stops


def driver(what: str, folder: Path) -> subprocess.Popen[str]:
    soon = {"TUNE_GLOBAL_CHECKPOINT_S": "1"}  # seconds between two saves of the experiment
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sweep_ray", what, str(folder)],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", **soon},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    """End a driver and what it has started, if anything of it is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_driver_that_is_killed_goes_on_without_losing_ended_trials(tmp_path):
    def ended() -> list[str]:
        found = decisions(tmp_path) if (tmp_path / DECISIONS).exists() else []
        return [line["trial"] for line in found if line["type"] == "end"]

    def saved() -> set[str]:
        """The trials that Tune knows to have ended."""
        try:
            states = sorted((tmp_path / sweep_ray.NAME).glob("experiment_state-*.json"))
            trials = [json.loads(t) for t, _ in json.loads(states[-1].read_text())["trial_data"]]
        except (IndexError, ValueError):  # not written yet, or just being written
            return set()
        return {trial["trial_id"] for trial in trials if trial["status"] == "TERMINATED"}

    killed = driver("run", tmp_path)
    try:
        deadline = time.monotonic() + HANGS_AFTER
        while len(ended()) < 3 or len(saved()) < 2:
            assert killed.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        end(killed)
    before, known = ended(), saved()
    logs = {path: path.read_text() for path in (tmp_path / sweep_ray.NAME).glob("*/result.json")}
    again = driver("restore", tmp_path)
    try:
        output, _ = again.communicate(timeout=HANGS_AFTER)
        assert again.returncode == 0 and "grokwatch:" not in output, output
    finally:
        end(again)

    metrics = json.loads((tmp_path / "restore.json").read_text())
    assert len(metrics) == 8 and known <= metrics.keys()
    for path, text in logs.items():
        if any(name in path.parent.name for name in known):
            assert path.read_text() == text  # not run again
    ends = [line for line in decisions(tmp_path) if line["type"] == "end"]
    assert {line["trial"] for line in ends} == metrics.keys()
    assert not known & {line["trial"] for line in ends[len(before) :]}
    assert ends[-1]["sweep"]["runs"] == 8  # with those from before the crash
    for name, told in metrics.items():
        config = told["config"]["trial"]
        verdict = replayed(config["kind"], 8, learning_rate=config["lr"])
        last = curve(config["kind"], 8)[-1][0]
        assert told["grokwatch"]["forecast"] == 0  # too few trials to learn from
        assert told["step"] == (last if told["grokwatch"]["control"] else verdict.step), name
