"""Prune Optuna's trials on grokwatch's verdict, and learn from those that end.

    study = optuna.create_study(storage=..., pruner=GrokWatchPruner(budget=20_000, chance=1 / 97))

    def objective(trial):
        ...
        report(trial, step, train_loss=..., train_accuracy=..., val_loss=..., val_accuracy=...)
        if trial.should_prune():
            raise optuna.TrialPruned

Rows, forecasts and decisions live in the study's storage. Any number of processes may work on one
study (on SQLite with :func:`sqlite_storage`), and any of them may die: another goes on from the
storage, with the same verdicts.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from grokwatch.forecast.learned import Forecast
from grokwatch.ingest import MEASUREMENTS
from grokwatch.integrations._optuna_base import BasePruner
from grokwatch.integrations._optuna_rows import report
from grokwatch.integrations._optuna_sqlite import sqlite_storage
from grokwatch.integrations._optuna_study import StudyWatch
from grokwatch.integrations._sweep_options import options
from grokwatch.integrations._sweep_trials import Faults
from grokwatch.sweeps import SweepReport
from grokwatch.verdict import STOPS, Recommendation

__all__ = ["GrokWatchPruner", "report", "sqlite_storage"]


class GrokWatchPruner(BasePruner):  # type: ignore[misc]
    """Ends trials that will not generalise within the budget, have generalised, or diverged.

    The verdict that ended a trial is in its user attribute ``grokwatch:decision``; in that of a
    trial of the control arm, which is never pruned, the one that would have.

    Args:
        budget: optimiser steps a trial may take.
        value: the measurement that a trial's intermediate values are, if it does not use
            :func:`report`.
        hyper: ``learning_rate``, ``weight_decay``, ``train_fraction`` -> name of a trial's
            parameter; others are looked for, as ``lr``.
        stop_on: recommendations that end a trial.
        learn: refit the forecast on the study's own ended trials.
        control_fraction: share of trials that are never pruned, to estimate what pruning costs.
        refit_every: ended trials from one refit to the next.
        seed: of the control arm.
        forecast: what the sweep begins with; None = the one that comes along.
        **settings: of :class:`grokwatch.Monitor`, the same for all trials: chance, max_kill_rate,
            memorised_at, generalised_at, accuracy_unit, ...

    All processes of a study must be given the same arguments.

    Raises:
        TypeError, ValueError: an argument that makes no sense. Later on nothing raises: what fails
            is told once and left out, and no trial is pruned for it.

    >>> import optuna
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> def objective(trial):
    ...     lr = trial.suggest_float("lr", 1e-4, 1e-2)
    ...     for step in range(100):
    ...         report(trial, step, train_loss=float("nan"), val_accuracy=0.1)
    ...         if trial.should_prune():
    ...             raise optuna.TrialPruned
    ...     return 0.1
    >>> study = optuna.create_study(pruner=GrokWatchPruner(budget=100, chance=0.1))
    >>> study.optimize(objective, n_trials=1)
    >>> study.trials[0].state.name, study.trials[0].user_attrs["grokwatch:decision"]["phase"]
    ('PRUNED', 'diverged')
    """

    def __init__(
        self,
        *,
        budget: int,
        value: str = "val_accuracy",
        hyper: Mapping[str, str] | None = None,
        stop_on: Sequence[Recommendation] = STOPS,
        learn: bool = True,
        control_fraction: float = 0.1,
        refit_every: int = 10,
        seed: int = 0,
        forecast: Forecast | None = None,
        **settings: Any,
    ) -> None:
        if value not in MEASUREMENTS:
            raise ValueError(f"value must be one of {list(MEASUREMENTS)} but got {value!r}.")
        chosen = options(
            {"budget": budget, **settings},
            stop_on=stop_on,
            hyper=hyper,
            learn=learn,
            control_fraction=control_fraction,
            refit_every=refit_every,
            seed=seed,
            forecast=forecast,
        )
        self._start(chosen.as_dict(), value)

    def _start(self, chosen: dict[str, Any], value: str) -> None:
        self._chosen, self._value = chosen, value
        self._options, self._faults = options(**chosen), Faults()
        self._studies: WeakKeyDictionary[Any, StudyWatch] = WeakKeyDictionary()
        self._failed: set[int] = set()
        self._lock = threading.RLock()  # of the threads of optimize(n_jobs=...)

    def prune(self, study: Any, trial: Any) -> bool:
        """Whether the trial is to be pruned, given what it has reported."""
        with self._lock:
            if trial._trial_id in self._failed:
                return False
            with self._faults.guard("the monitor of a trial"):
                return self._watch(study).judge(study, trial).should_stop
            self._failed.add(trial._trial_id)
            return False

    def _watch(self, study: Any) -> StudyWatch:
        if study not in self._studies:
            self._studies[study] = StudyWatch(self._options, self._value, self._faults)
        return self._studies[study]

    def report(self, study: Any) -> SweepReport | None:
        """What has come of a study's ended trials, whoever ran them; None if it does not learn."""
        with self._lock:
            watch = self._watch(study)
            watch.learn(study)
            return None if watch.sweep is None else watch.sweep.report()

    def __getstate__(self) -> dict[str, Any]:
        """The arguments: all else is in the storage."""
        return {"chosen": self._chosen, "value": self._value}

    def __setstate__(self, saved: Mapping[str, Any]) -> None:
        self._start(saved["chosen"], saved["value"])
