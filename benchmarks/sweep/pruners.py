"""The pruners that engines bring along, on the same recorded sweeps: Optuna's and Ray's classes.

They see the validation accuracy (to be maximised), reported after every 2 % of the budget, of as
many trials at a time as the sweep has workers. A trial that generalises ends soon after, as under
grokwatch; what a pruner stops stays stopped.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from benchmarks.sweep.recorded import Recorded

REPORTS = 50


class Engine(Protocol):
    """What asks for trials, hears of them, and prunes."""

    def ask(self) -> Any:
        """A new trial."""

    def report(self, trial: Any, report: int, value: float) -> None:
        """Take the value of a trial's n-th report."""

    def goes_on(self, trial: Any, report: int, value: float) -> bool:
        """Whether a trial that is not over may go on after that report."""

    def tell(self, trial: Any, report: int, value: float, pruned: bool) -> None:
        """A trial is over."""


class Optuna:
    """A study with one of Optuna's pruners."""

    def __init__(self, pruner: BasePruner, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            study_name=f"sweep-{seed}",
            direction="maximize",
            pruner=pruner,
            sampler=optuna.samplers.RandomSampler(seed=seed),
        )

    def ask(self) -> optuna.Trial:
        """A new trial."""
        return self._study.ask()

    def report(self, trial: optuna.Trial, report: int, value: float) -> None:
        """Take a value."""
        trial.report(value, report)

    def goes_on(self, trial: optuna.Trial, report: int, value: float) -> bool:
        """Whether the trial may go on."""
        return not trial.should_prune()

    def tell(self, trial: optuna.Trial, report: int, value: float, pruned: bool) -> None:
        """A trial is over."""
        if pruned:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, value)


class Ray:
    """One of Ray Tune's schedulers; these two ask their controller nothing."""

    def __init__(self, scheduler: TrialScheduler) -> None:
        self._scheduler, self._controller = scheduler, None
        scheduler.set_search_properties("val_accuracy", "max")

    def ask(self) -> Trial:
        """A new trial."""
        trial = Trial("recorded", stub=True)
        self._scheduler.on_trial_add(self._controller, trial)
        return trial

    def report(self, trial: Trial, report: int, value: float) -> None:
        """Ray's schedulers take it and answer at once, see :meth:`goes_on` and :meth:`tell`."""

    def goes_on(self, trial: Trial, report: int, value: float) -> bool:
        """Whether the trial may go on."""
        said = self._scheduler.on_trial_result(self._controller, trial, _result(report, value))
        return bool(said != TrialScheduler.STOP)

    def tell(self, trial: Trial, report: int, value: float, pruned: bool) -> None:
        """A trial is over; one that the scheduler itself stopped it does not hear of again."""
        if not pruned:
            self._scheduler.on_trial_complete(self._controller, trial, _result(report, value))


def _result(report: int, value: float) -> dict[str, Any]:
    return {"training_iteration": report, "val_accuracy": value}


_ITERATION = {"time_attr": "training_iteration"}
_NO_PAUSE = {"min_time_slice": math.inf}  # a worker each: nobody waits for the place of another

#: In reports: 5 is a tenth of the budget. Of Optuna's the first three are its defaults, but for
#: what Hyperband must be told, the number of reports; of Ray's the first is, but for that number,
#: and the second but for its grace period, which is in seconds by default.
PRUNERS: dict[str, Callable[[int], Engine]] = {
    "Optuna: ASHA": lambda seed: Optuna(SuccessiveHalvingPruner(), seed),
    "Optuna: Hyperband": lambda seed: Optuna(
        HyperbandPruner(min_resource=1, max_resource=REPORTS), seed
    ),
    "Optuna: median": lambda seed: Optuna(MedianPruner(), seed),
    "Optuna: ASHA, from a tenth": lambda seed: Optuna(
        SuccessiveHalvingPruner(min_resource=5, reduction_factor=2), seed
    ),
    "Optuna: median, from half": lambda seed: Optuna(
        MedianPruner(n_startup_trials=10, n_warmup_steps=REPORTS // 2), seed
    ),
    "Optuna: none": lambda seed: Optuna(NopPruner(), seed),
    "Ray: ASHA": lambda seed: Ray(AsyncHyperBandScheduler(max_t=REPORTS + 1, **_ITERATION)),
    "Ray: median": lambda seed: Ray(MedianStoppingRule(grace_period=5, **_ITERATION, **_NO_PAUSE)),
    "Ray: ASHA, from a tenth": lambda seed: Ray(
        AsyncHyperBandScheduler(max_t=REPORTS + 1, grace_period=5, reduction_factor=2, **_ITERATION)
    ),
    "Ray: median, from half": lambda seed: Ray(
        MedianStoppingRule(
            grace_period=REPORTS // 2, min_samples_required=10, **_ITERATION, **_NO_PAUSE
        )
    ),
}


def pruned(
    trials: list[Recorded], make: Callable[[int], Engine], seed: int, workers: int = 8
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Run the sweep in the order of ``seed``.

    Returns:
        The step at which each trial was pruned (inf = never), and which began after thirty had
        ended, both of shape (trials,).
    """
    engine = make(seed)
    order = np.random.default_rng(seed).permutation(len(trials)).tolist()
    stop, counts = np.full(len(trials), np.inf), np.zeros(len(trials), dtype=bool)
    asked: dict[int, Any] = {}
    events: list[tuple[float, int, int]] = []  # time, trial, report
    waiting, ended = iter(order), 0

    def begin(now: float) -> None:
        k = next(waiting, None)
        if k is not None:
            counts[k] = ended >= 30
            asked[k] = engine.ask()
            heapq.heappush(events, (now + trials[k].own.budget / REPORTS, k, 1))

    for _ in range(workers):
        begin(0.0)
    while events:
        now, k, report = heapq.heappop(events)
        recorded, trial = trials[k], asked[k]
        budget = recorded.own.budget
        step = report * budget / REPORTS
        steps, accuracies = recorded.run.columns["val_accuracy"]
        value = float(accuracies[np.searchsorted(steps, step, side="right") - 1])
        engine.report(trial, report, value)
        if report == REPORTS or step >= recorded.end:
            engine.tell(trial, report, value, pruned=False)
        elif not engine.goes_on(trial, report, value):
            engine.tell(trial, report, value, pruned=True)
            stop[k] = step
        else:
            heapq.heappush(events, (now + budget / REPORTS, k, report + 1))
            continue
        ended += 1
        begin(now)
    return stop, counts
