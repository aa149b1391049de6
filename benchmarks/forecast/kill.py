"""The kill threshold: set on whole runs, by each generalising run's worst moment."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import beta

from benchmarks.forecast.samples import Floats, Table
from grokwatch.forecast.learned import may_stop

CONFIDENCE = 0.9
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)
AT_THE_BOUNDARY = 2.5
_CONFIRMATIONS = 2  # verdicts in a row, as the policy wants them


def worst(rows: Table, probability: Floats) -> dict[int, float]:
    """For each replay the threshold at which it would have been stopped; 1 = it never could.

    That is its lowest probability that held for two verdicts in a row.
    """
    found = dict.fromkeys(np.unique(rows.run).tolist(), 1.0)
    chosen = np.flatnonzero(may_stop(rows.x.astype(np.float64), rows.far))
    follows = chosen[1:][(rows.run[chosen[1:]] == rows.run[chosen[:-1]])
                         & (np.diff(chosen) == 1)]  # fmt: skip
    assert _CONFIRMATIONS == 2
    held = np.maximum(probability[follows], probability[follows - 1])
    for run, score in zip(rows.run[follows].tolist(), held.tolist(), strict=True):
        found[run] = min(found[run], score)
    return found


def upper_bound(kills: int, runs: int) -> float:
    """Upper confidence bound of a rate (Clopper and Pearson), one-sided."""
    return 1.0 if kills >= runs else float(beta.ppf(CONFIDENCE, kills + 1, runs - kills))


def kill_thresholds(rows: Table, probability: Floats) -> dict[str, Any]:
    """For every rate the highest threshold whose kill rate is certified (Learn then Test).

    Thresholds are tested in ascending order on all generalising runs until a bound exceeds its
    rate (fixed-sequence testing, so the confidence holds for the chosen one). Two bounds must
    hold: the rate itself on runs drawn at random, and :data:`AT_THE_BOUNDARY` times it on the
    cells, which were sought out because their seeds disagree.
    """
    scores = worst(rows, probability)
    first = np.unique(rows.run, return_index=True)[1]
    late = {int(rows.run[i]): i for i in first[rows.generalises[first]]}
    strata: dict[bool, tuple[Floats, int]] = {}
    for cell in (False, True):
        inside = [run for run, i in late.items() if (rows.kind[i] == "cells") == cell]
        # Replays of one run are not independent: the bound counts each run once.
        independent = len({int(rows.base[late[run]]) for run in inside})
        strata[cell] = (np.sort([scores[run] for run in inside]), independent)
    thresholds: dict[str, float] = {}
    for rate in RATES:
        for threshold in np.round(np.geomspace(0.0005, 0.5, 140), 6):
            bounds = []
            for ordered, independent in strata.values():
                share = float(np.searchsorted(ordered, threshold)) / max(len(ordered), 1)
                bounds.append(upper_bound(int(np.ceil(share * independent)), independent))
            if bounds[0] > rate or (strata[True][1] and bounds[1] > AT_THE_BOUNDARY * rate):
                break
            thresholds[str(rate)] = float(threshold)
    statement = (
        f"thresholds on the worst two verdicts in a row before t4, held out by group: at "
        f"{CONFIDENCE:.0%} confidence the kill rate is at most as named on runs drawn at random "
        f"({strata[False][1]} generalising ones) and at most {AT_THE_BOUNDARY} times that on "
        f"runs at the phase boundary ({strata[True][1]}); rates: {sorted(thresholds, key=float)}"
    )
    return {"thresholds": thresholds, "statement": statement}
