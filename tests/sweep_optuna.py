"""A worker of an Optuna study: python -m tests.sweep_optuna FILE TRIALS PAUSE."""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import optuna

from grokwatch.integrations.optuna import GrokWatchPruner, report, sqlite_storage
from tests.sweep_curves import BUDGET, CHANCE, reported

STUDY = "sweep"
KINDS = ("grokker", "never", "immediate", "slingshot")
EVERY = 8  # of the recorded validations
GRACE = 10  # seconds without a sign of life after which a trial counts as dead


def pruner(**changes: Any) -> GrokWatchPruner:
    settings: dict[str, Any] = {"control_fraction": 0.5, "refit_every": 5}
    return GrokWatchPruner(budget=BUDGET, chance=CHANCE, **{**settings, **changes})


def storage(path: str) -> optuna.storages.RDBStorage:
    """Optuna's database; trials whose process has died are noticed, and tried again."""
    return sqlite_storage(
        path,
        heartbeat_interval=1,
        grace_period=GRACE,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
    )


def objective(trial: optuna.Trial, pause: float = 0.0) -> float:
    kind = trial.user_attrs.get("kind", KINDS[trial.number % len(KINDS)])
    trial.set_user_attr("kind", kind)  # one that is tried again keeps it
    trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    best = 0.0
    for step, row in reported({"kind": kind, "every": EVERY}):
        report(trial, step, **row)
        best = max(best, row["val_accuracy"])
        if trial.should_prune():
            raise optuna.TrialPruned
        time.sleep(pause)
    return best


def main(path: str, count: int, pause: float) -> None:
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    study = optuna.load_study(
        study_name=STUDY,
        storage=storage(path),
        pruner=pruner(),
        sampler=optuna.samplers.RandomSampler(),
    )
    state = optuna.trial.TrialState
    while True:
        optuna.storages.fail_stale_trials(study)
        states = [t.state for t in study.get_trials(deepcopy=False) if t.state is not state.FAIL]
        if state.WAITING in states or len(states) < count:
            study.optimize(lambda trial: objective(trial, pause), n_trials=1)
        elif state.RUNNING in states:  # it may yet die
            time.sleep(0.2)
        else:
            return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
