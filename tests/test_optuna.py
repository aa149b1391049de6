"""Optuna itself, in one process and in several, with real recorded curves as trials."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from grokwatch import Monitor, Verdict
from grokwatch.integrations._optuna_rows import rows
from grokwatch.integrations._optuna_study import DECISION, FORECAST
from grokwatch.integrations._sweep_trial import unpack_forecast
from grokwatch.integrations.optuna import GrokWatchPruner, report, sqlite_storage
from tests import sweep_optuna
from tests.sweep_curves import BUDGET, CHANCE, reported, without_fits
from tests.sweep_curves import rows as curve

ENDED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
HANGS_AFTER = 240  # seconds; alone on the machine a worker takes 10


@pytest.fixture(autouse=True)
def quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def watcher(**changes: Any) -> GrokWatchPruner:
    return sweep_optuna.pruner(**{"control_fraction": 0.0, **changes})


def told(trial: Any) -> Verdict:
    return Verdict.from_dict(trial.user_attrs[DECISION])


def replayed(study: optuna.Study, trial: Any) -> Verdict | None:
    """The first verdict to stop, of a plain monitor that sees the stored rows in one piece."""
    known = trial.user_attrs[FORECAST]
    delta = known["key"] and json.loads(study.user_attrs[known["key"]])
    monitor = Monitor(
        budget=BUDGET,
        chance=CHANCE,
        learning_rate=trial.params["lr"],
        forecast=unpack_forecast(delta, None),
    )
    kept: list[tuple[int, dict[str, float]]] = []
    for step, row in rows(trial.user_attrs):
        while kept and kept[-1][0] >= step:  # the trial went back
            kept.pop()
        kept.append((step, row))
    for step, row in kept:
        verdict = monitor.update(step, **row)
        if verdict.recommendation != "continue":
            return without_fits(verdict)
    return None


def fill(study: optuna.Study, count: int, kinds: Any = sweep_optuna.KINDS) -> None:
    for number in range(count):
        lr = 1e-3 * (1 + number % 5)
        study.enqueue_trial({"lr": lr}, user_attrs={"kind": kinds[number % len(kinds)]})


def check_all(study: optuna.Study) -> None:
    """Every trial that ended, ended for the reason a replay gives."""
    for trial in study.get_trials(states=ENDED):
        verdict = replayed(study, trial)
        if DECISION in trial.user_attrs:
            assert told(trial) == verdict
            assert trial.user_attrs[DECISION]["reason"]
        else:
            assert verdict is None
        stopped = verdict is not None and not trial.user_attrs[DECISION]["control"]
        assert (trial.state is optuna.trial.TrialState.PRUNED) == stopped


# -- one process --------------------------------------------------------------------------------


def test_a_study_in_memory_learns_and_prunes_for_the_reason_of_a_replay():
    study = optuna.create_study(pruner=watcher(control_fraction=0.5))
    fill(study, 16)
    study.optimize(sweep_optuna.objective, n_trials=16)
    check_all(study)
    versions = [trial.user_attrs[FORECAST]["version"] for trial in study.trials]
    assert versions == sorted(versions) and versions[-1] >= 1
    control = [t for t in study.trials if t.user_attrs[DECISION]["control"]]
    assert control and all(trial.state.name == "COMPLETE" for trial in control)
    summary = study.pruner.report(study)
    assert summary.runs == 16 and summary.control == len(control)
    stopped = [t for t in study.trials if t.state.name == "PRUNED"]
    assert summary.stopped == sum(told(t).recommendation == "stop_unpromising" for t in stopped)
    assert summary.steps_saved > 0


def test_any_process_finds_the_same_report():
    study = optuna.create_study(pruner=watcher(control_fraction=0.5))
    fill(study, 12)
    study.optimize(sweep_optuna.objective, n_trials=12)
    again = pickle.loads(pickle.dumps(study.pruner))
    assert again.report(study) == study.pruner.report(study)


def test_threads():
    study = optuna.create_study(pruner=watcher())
    fill(study, 6, kinds=("immediate", "never"))
    study.optimize(sweep_optuna.objective, n_trials=6, n_jobs=2)
    check_all(study)
    assert study.pruner.report(study).runs == 6


def test_trials_that_report_one_value_only():
    def objective(trial):
        trial.suggest_float("lr", 1e-3, 1e-2)
        for step, row in reported({"kind": "grokker"}):
            trial.report(row["val_accuracy"], step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return row["val_accuracy"]

    study = optuna.create_study(pruner=watcher())
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    monitor = Monitor(budget=BUDGET, chance=CHANCE, learning_rate=trial.params["lr"])
    for step, row in reported({"kind": "grokker"}):
        verdict = monitor.update(step, val_accuracy=row["val_accuracy"])
        if verdict.recommendation != "continue":
            break
    assert trial.state.name == "PRUNED" and told(trial) == without_fits(verdict)
    assert study.pruner.report(study).generalised == 1


def test_percentages():
    study = optuna.create_study(pruner=watcher(accuracy_unit="percent"))
    trial = study.ask({"lr": optuna.distributions.FloatDistribution(1e-3, 1e-3)})
    for step, row in curve("grokker", 6):
        percent = {k: 100 * v if "accuracy" in k else v for k, v in row.items()}
        report(trial, step, **percent)
        if trial.should_prune():
            break
    assert told(study.trials[0]).recommendation == "stop_generalised"
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert study.pruner.report(study).generalised == 1


def test_stop_on_and_learn():
    pruner = watcher(stop_on="stop_generalised", learn=False)
    study = optuna.create_study(pruner=pruner)
    fill(study, 2, kinds=("never", "immediate"))
    study.optimize(sweep_optuna.objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]
    assert pruner.report(study) is None


# -- what is wrong ------------------------------------------------------------------------------


def test_nan_losses_are_news_and_nan_accuracies_are_not():
    study = optuna.create_study(pruner=watcher())
    trial = study.ask()
    for step in range(0, 100, 10):
        report(trial, step, train_loss=float("nan"), val_loss=float("inf"), val_accuracy=0.1)
        if trial.should_prune():
            break
    assert step < 50 and told(study.trials[0]).phase == "diverged"
    trial = study.ask()
    for step in range(0, 100, 10):
        report(trial, step, train_loss=1.0, val_accuracy=float("nan"))
        assert not trial.should_prune()


def test_a_wrong_measurement_is_told_once_and_costs_only_itself():
    study = optuna.create_study(pruner=watcher())
    trial = study.ask()
    report(trial, 10, train_loss=1.0, val_accuracy=97.0)
    with pytest.warns(RuntimeWarning, match="val_accuracy is a fraction") as caught:
        assert not trial.should_prune()
    for step in range(20, 200, 10):
        report(trial, step, train_loss=float("nan"), val_accuracy=97.0)
        trial.should_prune()
    assert len(caught) == 1
    assert told(study.trials[0]).phase == "diverged"


def test_what_is_no_number_is_left_out():
    trial = optuna.create_study(pruner=watcher()).ask()
    with pytest.warns(RuntimeWarning, match="measurement grad_norm failed") as caught:
        report(trial, 10, train_loss=1.0, grad_norm="large")
        report(trial, 20, train_loss=1.0, grad_norm="large")
    assert len(caught) == 1
    assert [row for _, row in rows(trial.user_attrs)] == [{"train_loss": 1.0}] * 2


def test_broken_rows_stop_nothing_and_leave_the_other_trials_alone():
    study = optuna.create_study(pruner=watcher())
    broken, sound = study.ask(), study.ask()
    broken.set_user_attr("grokwatch:0", "not JSON")
    with pytest.warns(RuntimeWarning, match="monitor of a trial failed") as caught:
        assert not broken.should_prune()
        for step in (10, 20, 30, 40):
            for trial in (broken, sound):
                report(trial, step, train_loss=float("nan"))
            assert not broken.should_prune()
            stop = sound.should_prune()
    assert stop and len(caught) == 1


def test_a_parameter_that_is_not_there_is_told_once():
    pruner = watcher(hyper={"learning_rate": "eta"})
    study = optuna.create_study(pruner=pruner)
    fill(study, 2, kinds=("immediate",))
    with pytest.warns(RuntimeWarning, match="names 'eta', which is no number .* 'lr'") as caught:
        study.optimize(sweep_optuna.objective, n_trials=2)
    assert len(caught) == 1 and study.trials[0].state.name == "PRUNED"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"value": "f1"}, ValueError, "value must be one of"),
        ({"signals": ()}, TypeError, r"a sweep does not take \['signals'\]"),
        ({"hyper": {"momentum": "m"}}, ValueError, r"hyper knows .*\['momentum'\]"),
        ({"forecast": "mine.json"}, TypeError, "forecast must be a grokwatch.Forecast"),
        ({"chance": 2.0}, ValueError, "chance must lie in 0..1"),
        ({"control_fraction": 2.0}, ValueError, "control_fraction must lie in 0..1"),
        ({"stop_on": "stop_now"}, ValueError, "stop_on knows"),
    ],
)
def test_wrong_arguments_are_told_at_once(arguments, error, words):
    with pytest.raises(error, match=words):
        GrokWatchPruner(**{"budget": 100, **arguments})


def test_unknown_measurements_are_told_at_once():
    trial = optuna.create_study().ask()
    with pytest.raises(TypeError, match="f1"):
        report(trial, 10, f1=0.5)
    with pytest.raises(ValueError, match="value must be one of"):
        report(trial, 10, val_loss=0.5, value="f1")


def test_without_optuna_the_extra_is_named():
    program = (
        "import sys; sys.modules['optuna'] = None\n"
        "import grokwatch.integrations.optuna"
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "ModuleNotFoundError" in last and "pip install 'grokwatch[optuna]'" in last


# -- restarts -----------------------------------------------------------------------------------


def step_by_step(study: optuna.Study, trial: optuna.Trial, found: list[Any]) -> list[bool]:
    decided = []
    for step, row in found:
        report(trial, step, **row)
        decided.append(trial.should_prune())
    return decided


def test_a_trial_goes_on_in_another_process_with_the_same_verdicts(tmp_path):
    kept = curve("never", 4)[:30]
    whole = optuna.create_study(pruner=watcher())
    expected = step_by_step(whole, whole.ask(), kept)
    assert expected.index(True) > 15
    study = optuna.create_study(
        study_name="s", storage=sqlite_storage(tmp_path / "a.db"), pruner=watcher()
    )
    trial = study.ask()
    assert step_by_step(study, trial, kept[:12]) == expected[:12]
    later = optuna.load_study(
        study_name="s", storage=sqlite_storage(tmp_path / "a.db"), pruner=watcher()
    )
    again = optuna.Trial(later, trial._trial_id)
    assert step_by_step(later, again, kept[12:]) == expected[12:]
    mine, theirs = later.trials[0].user_attrs[DECISION], whole.trials[0].user_attrs[DECISION]
    assert mine == theirs


def test_a_trial_that_goes_on_from_a_checkpoint_repeats_steps(caplog):
    kept = curve("never", 4)[:30]
    whole, study = (optuna.create_study(pruner=watcher()) for _ in range(2))
    expected = step_by_step(whole, whole.ask(), kept)
    trial = study.ask()
    # What was reported after the checkpoint came to nothing, and is reported again, otherwise.
    lost = [(step, {**row, "val_accuracy": 1.0}) for step, row in kept[8:12]]
    step_by_step(study, trial, kept[:8] + lost)
    with caplog.at_level(logging.WARNING, logger="grokwatch"):
        assert step_by_step(study, trial, kept[8:]) == expected[8:]
    assert "went back" in caplog.text
    assert told(study.trials[0]) == told(whole.trials[0])


def test_a_decision_that_was_not_heeded_is_no_stop():
    study = optuna.create_study(pruner=watcher())
    trial = study.ask()
    step_by_step(study, trial, curve("never", 6))
    study.tell(trial, 0.1)
    assert DECISION in study.trials[0].user_attrs
    assert study.pruner.report(study).stopped == 0


def test_in_sqlite_a_transaction_has_the_file_to_itself(tmp_path):
    first, second = (sqlite_storage(tmp_path / "a.db", timeout=t) for t in (60.0, 0.1))
    with first.engine.begin():
        with pytest.raises(sqlalchemy.exc.OperationalError, match="database is locked"):
            with second.engine.begin():
                pass
    with second.engine.begin():
        pass


# -- several processes --------------------------------------------------------------------------


def worker(path: Path, count: int, pause: float) -> subprocess.Popen[str]:
    root = Path(__file__).parent.parent
    arguments = [sys.executable, "-m", "tests.sweep_optuna", str(path), str(count), str(pause)]
    return subprocess.Popen(
        arguments,
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait(processes: list[subprocess.Popen[str]]) -> None:
    try:
        for process in processes:
            output, _ = process.communicate(timeout=HANGS_AFTER)
            assert process.returncode == 0, output
            assert "grokwatch:" not in output, output  # nothing had to be told
    finally:
        for process in processes:
            process.kill()


def test_two_processes_and_one_that_is_killed(tmp_path):
    path, count = tmp_path / "study.db", 24
    study = optuna.create_study(
        study_name=sweep_optuna.STUDY, storage=sqlite_storage(path), pruner=sweep_optuna.pruner()
    )
    killed = worker(path, count, 0.1)
    deadline = time.monotonic() + HANGS_AFTER
    while True:  # until some have ended, and one is under way
        ended = {trial.number: trial for trial in study.get_trials(states=ENDED)}
        running = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
        if len(ended) >= 2 and running and "grokwatch:4" in running[0].user_attrs:
            break
        assert killed.poll() is None and time.monotonic() < deadline, killed.communicate()[0]
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (victim,) = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    wait([worker(path, count, 0.0), worker(path, count, 0.0)])

    trials = study.get_trials()
    for number, before in ended.items():  # nothing that had ended was lost or changed
        assert trials[number] == before
    assert trials[victim.number].state is optuna.trial.TrialState.FAIL
    (retry,) = [t for t in trials if t.system_attrs.get("failed_trial") == victim.number]
    assert retry.params == victim.params and retry.state in ENDED
    assert retry.user_attrs[FORECAST] == victim.user_attrs[FORECAST]
    reported_steps = [step for step, _ in rows(retry.user_attrs)]
    assert reported_steps.count(reported_steps[0]) == 2  # the dead one's rows, then its own
    done = [trial for trial in trials if trial.state in ENDED]
    assert count <= len(done) <= count + 1  # two may begin the last one
    assert study.pruner.report(study).runs == len(done)
    assert max(trial.user_attrs[FORECAST]["version"] for trial in done) >= 1
    check_all(study)
