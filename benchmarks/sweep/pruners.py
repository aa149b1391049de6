"""The pruners that engines bring along, on the same recorded sweeps: Optuna's own classes.

They see the validation accuracy (to be maximised), reported after every 2 % of the budget, of as
many trials at a time as the sweep has workers. A trial that generalises ends soon after, as under
grokwatch; what a pruner stops stays stopped.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

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

from benchmarks.sweep.recorded import Recorded

REPORTS = 50
#: In reports: 5 is a tenth of the budget. The first three are Optuna's defaults, but for what
#: Hyperband must be told, the number of reports.
PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "ASHA": lambda: SuccessiveHalvingPruner(),
    "Hyperband": lambda: HyperbandPruner(min_resource=1, max_resource=REPORTS),
    "median": lambda: MedianPruner(),
    "ASHA, from a tenth": lambda: SuccessiveHalvingPruner(min_resource=5, reduction_factor=2),
    "median, from half": lambda: MedianPruner(n_startup_trials=10, n_warmup_steps=REPORTS // 2),
    "none": lambda: NopPruner(),
}


def pruned(
    trials: list[Recorded], make: Callable[[], BasePruner], seed: int, workers: int = 8
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Run the sweep in the order of ``seed``.

    Returns:
        The step at which each trial was pruned (inf = never), and which began after thirty had
        ended, both of shape (trials,).
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=f"sweep-{seed}",
        direction="maximize",
        pruner=make(),
        sampler=optuna.samplers.RandomSampler(seed=seed),
    )
    order = np.random.default_rng(seed).permutation(len(trials)).tolist()
    stop, counts = np.full(len(trials), np.inf), np.zeros(len(trials), dtype=bool)
    asked: dict[int, optuna.Trial] = {}
    events: list[tuple[float, int, int]] = []  # time, trial, report
    waiting, ended = iter(order), 0

    def begin(now: float) -> None:
        k = next(waiting, None)
        if k is not None:
            counts[k] = ended >= 30
            asked[k] = study.ask()
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
        trial.report(value, report)
        if report == REPORTS or step >= recorded.end:
            study.tell(trial, value)
        elif trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            stop[k] = step
        else:
            heapq.heappush(events, (now + budget / REPORTS, k, report + 1))
            continue
        ended += 1
        begin(now)
    return stop, counts
