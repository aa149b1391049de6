"""How early a sweep may stop: as far as its own trials that generalised would not have been lost.

The shipped rules wait until the training set has been learnt and as long again, because they must
not stop ordinary training. A sweep whose own trials generalise late need not wait, if doing so
would have cost it none of these. With ``thresholds="sweep"`` the threshold on the probability may
rise to the next of those certified on the corpus, by the same question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grokwatch._sweep_record import Trial
from grokwatch.forecast.learned import STRETCH
from grokwatch.forecast.prior import OwnPrior

FloatArray = npt.NDArray[np.float64]

#: Trials that generalised, before anything is concluded from what would have become of them.
LEAST_GENERALISED = 3
#: What a level's certified kill rate counts for, in trials that generalised.
_LEVEL_COUNTS = 20.0
#: A control run stands for at most so many times what it should on average.
_MOST = 2.0


def weights_of(trials: Sequence[Trial], control_fraction: float) -> FloatArray:
    """For how many each trial stands: control runs for those that were stopped, shape (trials,)."""
    stopped = sum(t.stopped_at is not None for t in trials)
    like = np.array([t.control and t.would_stop_at is not None for t in trials], dtype=bool)
    count = int(like.sum())
    if not count:
        return np.ones(len(trials))
    # One early control run should not outweigh all others.
    return np.where(like, min((stopped + count) / count, _MOST / control_fraction), 1.0)


def loosened(
    parameters: dict[str, Any],
    trials: Sequence[Trial],
    weights: FloatArray,
    max_kill_rate: float,
    estimate: bool,
) -> dict[str, Any]:
    """The adapted parameters with the loosest rules that would not have cost too much.

    Args:
        parameters: as adapted to the trials.
        trials: all that ended.
        weights: for how many trials each stands, shape (trials,).
        max_kill_rate: share of the trials that would have generalised which stops may cost.
        estimate: whether the threshold may rise too.
    """
    levels = {float(key): float(below) for key, below in parameters["kill_below"].items()}
    known = [rate for rate in levels if rate <= max_kill_rate]
    good = [i for i, trial in enumerate(trials) if trial.generalised]
    if not known or len(good) < LEAST_GENERALISED:
        return parameters
    prior = OwnPrior.from_dict(parameters["own"])
    lowest = np.array([trials[i].lowest for i in good])
    extra = np.array([prior.log_odds(trials[i].seen.settings) for i in good])
    share = weights[good]
    inherited = max(known)
    chosen: float | None = None
    for level in sorted(rate for rate in levels if rate >= inherited):
        below = levels[level]
        stop = first_stop(prior, extra, below) if level == inherited else _logit(below)
        lost = float(share @ (lowest < stop))
        expected = (level * _LEVEL_COUNTS + lost) / (_LEVEL_COUNTS + float(share.sum()))
        if expected > max_kill_rate or (level > inherited and not estimate):
            break
        chosen = level
    if chosen is None:
        return parameters
    own: dict[str, Any] = {**parameters["own"], "waits": False, "estimated": chosen > inherited}
    if chosen == inherited:
        return {**parameters, "own": own}
    own["base"] = {**own["base"], "kill_below": parameters["kill_below"]}
    key = next(k for k in parameters["kill_below"] if float(k) == inherited)
    raised = {**parameters["kill_below"], key: levels[chosen]}
    return {**parameters, "kill_below": raised, "own": own}


def first_stop(prior: OwnPrior, extra: FloatArray, threshold: float) -> FloatArray:
    """Shipped log-odds below which trials are stopped, as ``low_enough`` says; shape of ``extra``.

    >>> prior = OwnPrior(30, (), (), (), intercept=-9.0)
    >>> stop = first_stop(prior, np.array([0.0, 20.0]), 0.02)
    >>> (1 / (1 + np.exp(-stop))).round(3)
    array([0.03, 0.02])
    """
    own = (_logit(threshold) - prior.intercept - extra) / prior.slope
    stretched = _logit(min(STRETCH * threshold, 1.0 - 1e-12))
    found: FloatArray = np.maximum(_logit(threshold), np.minimum(stretched, own))
    return found


def rule(parameters: Mapping[str, Any] | None, max_kill_rate: float) -> str:
    """The rules of a stop in words, for the report."""
    own = None if parameters is None else parameters.get("own")
    if parameters is None or own is None or own.get("waits", True):
        return "as shipped"
    if not own["estimated"]:
        return "without waiting for the training set to be learnt, inherited threshold"
    before = own["base"]["kill_below"]
    now = max(v for k, v in parameters["kill_below"].items() if float(k) <= max_kill_rate)
    level = next(k for k, v in before.items() if v == now)
    return (
        f"without waiting for the training set to be learnt, threshold of {float(level):.0%} on "
        f"the corpus, by what became of this sweep's own trials"
    )


def _logit(p: float) -> float:
    return math.log(p) - math.log1p(-p)
