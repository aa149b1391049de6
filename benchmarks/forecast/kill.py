"""The kill threshold: set on whole runs, by each generalising run's worst moment."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import beta

from benchmarks.forecast.samples import Floats, Table
from grokwatch.forecast.features import NAMES

CONFIDENCE = 0.9
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
_CONFIRMATIONS = 2  # verdicts in a row, as the policy wants them


def stoppable(rows: Table) -> Any:
    """Rows at which the forecast may call a run unpromising: the phase is memorisation."""
    since_t2 = rows.x[:, NAMES.index("since_t2")]
    since_t3 = rows.x[:, NAMES.index("since_t3")]
    return ~np.isnan(since_t2) & np.isnan(since_t3)


def worst(rows: Table, probability: Floats) -> dict[int, float]:
    """For each replayed run the threshold at which it would have been stopped.

    That is its lowest probability that held for two verdicts in a row.
    """
    chosen = np.flatnonzero(stoppable(rows))
    found: dict[int, float] = {}
    for run in np.unique(rows.run):
        found[int(run)] = 1.0
    previous_run, row = -1, []
    for i in chosen:
        run = int(rows.run[i])
        row = [*row, float(probability[i])][-_CONFIRMATIONS:] if run == previous_run else [
            float(probability[i])]  # fmt: skip
        previous_run = run
        if len(row) == _CONFIRMATIONS:
            found[run] = min(found[run], max(row))
    return found


def upper_bound(kills: int, runs: int) -> float:
    """Upper confidence bound of a rate (Clopper and Pearson), one-sided."""
    return 1.0 if kills >= runs else float(beta.ppf(CONFIDENCE, kills + 1, runs - kills))


def kill_thresholds(rows: Table, probability: Floats) -> dict[str, Any]:
    """For every rate the highest threshold whose kill rate is certified (Learn then Test).

    Thresholds are tested in ascending order, each on all generalising runs, until the bound
    exceeds the rate (fixed-sequence testing, so the confidence holds for the chosen one).
    """
    scores = worst(rows, probability)
    label = dict(zip(rows.run.tolist(), rows.generalises.tolist(), strict=True))
    grokkers = np.sort([score for run, score in scores.items() if label[run]])
    n = len(grokkers)
    # Replays of one run are not independent: bounds count each run once.
    independent = len({int(r) for r in rows.run[rows.variant == 0] if label[int(r)]})
    thresholds: dict[str, float] = {}
    for rate in RATES:
        best = None
        for threshold in np.round(np.geomspace(0.001, 0.5, 120), 6):
            share = float(np.searchsorted(grokkers, threshold)) / n
            if upper_bound(int(np.ceil(share * independent)), independent) > rate:
                break
            best = float(threshold)
        if best is not None:
            thresholds[str(rate)] = best
    statement = (
        f"threshold on the worst two verdicts in a row before t4 of {independent} generalising "
        f"runs, held out by group; certified rates at {CONFIDENCE:.0%} confidence: "
        f"{sorted(thresholds, key=float)}"
    )
    return {"thresholds": thresholds, "statement": statement}
