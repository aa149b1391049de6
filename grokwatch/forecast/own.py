"""Learning from one's own finished runs: a shipped forecast, re-weighted and recalibrated.

logit P = a z + b + c h: z is what the shipped forecast says of the curves, h are hyper-parameters
in standard deviations over the user's runs. a, b and c get Gaussian priors around "nothing changes"
(how wide was chosen once, on the corpus: benchmarks/forecast/own.py), every run weighs one, however
many rows it has. Thirty runs can recalibrate, they cannot certify a kill rate (114 generalising
ones without a kill could), so the stop thresholds stay as they are: inherited.
"""

from __future__ import annotations

import copy
import datetime
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from grokwatch.forecast._own_record import (
    Ended,
    OwnRun,
    Seen,
    as_runs,
    ranges,
    replay_all,
    seen_by,
)
from grokwatch.forecast.learned import Forecast
from grokwatch.forecast.prior import OwnPrior, hyper_parameters, standardised
from grokwatch.records import Run

FloatArray = npt.NDArray[np.float64]

#: Fewest finished runs, and fewest of either outcome: with fewer the fit does more harm than good.
LEAST_RUNS, LEAST_OF_EACH = 10, 2
#: Standard deviations of the priors about a = 1, b = 0, c = 0.
PRIOR_A, PRIOR_B, PRIOR_C = 0.3, 0.5, 0.25
_LEAST_SLOPE = 0.05
#: Runs of one's own that weigh as much as the shipped forecast, for times.
_RUNS_FOR_TIMES = 40.0
_MEMORISED_LATE = 2.0  # times the slowest own t2 before "never learns the training set" is believed
_COMPARABLE_LEAST = 5  # fewer runs are no company
_KEPT = ("calibration", "widen", "classes", "horizon", "support_low", "support_high", "comparable",
         "card")  # fmt: skip


@dataclass(frozen=True)
class Odds:
    """logit P = slope x z + intercept + weight . h."""

    slope: float
    intercept: float
    weight: FloatArray


def fit_odds(z: FloatArray, h: FloatArray, answer: FloatArray, weight: FloatArray) -> Odds:
    """The most probable a, b and c.

    Args:
        z: log-odds of the shipped forecast, shape (n,).
        h: standardised hyper-parameters, shape (n, k).
        answer: 1 = generalised within the reach, else 0, shape (n,).
        weight: shape (n,); it adds up to the number of independent runs.

    >>> odds = fit_odds(np.zeros(0), np.zeros((0, 1)), np.zeros(0), np.zeros(0))
    >>> odds.slope, odds.intercept, odds.weight
    (1.0, 0.0, array([0.]))
    """
    terms = h.shape[1]
    columns = np.column_stack([z, np.ones(len(z)), h])
    middle = np.array([1.0, 0.0, *[0.0] * terms])
    precision = np.array([PRIOR_A, PRIOR_B, *[PRIOR_C] * terms]) ** -2

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        odds, off = columns @ parameters, parameters - middle
        value = weight @ (np.logaddexp(0.0, odds) - answer * odds) + 0.5 * precision @ off**2
        gradient = columns.T @ (weight * (1.0 / (1.0 + np.exp(-odds)) - answer)) + precision * off
        return float(value), gradient

    bounds = [(_LEAST_SLOPE, None)] + [(None, None)] * (terms + 1)
    found = minimize(loss, middle, jac=True, method="L-BFGS-B", bounds=bounds).x
    return Odds(float(found[0]), float(found[1]), found[2:])


def fit_times(
    quantiles: FloatArray, target: FloatArray, weight: FloatArray
) -> tuple[float, list[float]]:
    """A shift of log10(t4 / now) and factors >= 1 on the half-widths, both shrunk.

    Args:
        quantiles: 10, 50 and 90 % of log10(t4 / now), shape (n, 3).
        target: the truth, shape (n,).
        weight: adds up to the number of runs, shape (n,).
    """
    runs = float(weight.sum())
    trust = runs / (runs + _RUNS_FOR_TIMES)
    if not runs:
        return 0.0, [1.0, 1.0]
    low, median, high = quantiles.T
    shift = trust * _quantile(target - median, weight, 0.5)
    late = target - median - shift
    below = -late / np.maximum(median - low, 1e-3)
    above = late / np.maximum(high - median, 1e-3)
    # Never narrower: few runs rarely show how far off a time can be (measured, see the benchmark).
    factors = [max(_quantile(side, weight, 0.9), 1.0) ** trust for side in (below, above)]
    return shift, factors


def _quantile(values: FloatArray, weight: FloatArray, level: float) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, level * total[-1])])


def shipped_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters without what was learnt from own runs."""
    plain = dict(parameters)
    own = plain.pop("own", None)
    return plain if own is None else {**plain, **copy.deepcopy(own["base"])}


def fit_own(
    runs: Iterable[Run | str | Path],
    base: Forecast,
    weights: Sequence[float] | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The parameters of ``base``, adapted to finished runs; see :meth:`Forecast.fit`."""
    given = as_runs(runs)
    if weights is not None and (len(weights) != len(given) or not min(weights, default=1.0) >= 0.0):
        raise ValueError(f"weights must be {len(given)} numbers >= 0, one a run, not {weights!r}.")
    replayed = replay_all(given, settings)
    usable = [run for run in replayed if isinstance(run, OwnRun)]
    useless = [run for run in replayed if isinstance(run, str)]
    check_enough(usable, useless)
    if useless:
        warnings.warn(
            f"{len(useless)} of {len(given)} runs are left out: {'; '.join(useless[:3])}"
            f"{', ...' if len(useless) > 3 else ''}.",
            UserWarning,
            stacklevel=3,
        )
    shares = [1.0] * len(given) if weights is None else weights
    kept = [s for s, run in zip(shares, replayed, strict=True) if isinstance(run, OwnRun)]
    return adapted(shipped_parameters(base.parameters), usable, np.array(kept, dtype=np.float64))


def check_enough(runs: Sequence[Ended], useless: Sequence[str]) -> None:
    """Raise a ValueError that says what is missing."""
    count = Counter(run.outcome for run in runs)
    good, bad = count["generalised"], count["never"] + count["diverged"]
    have = f"{good} that generalised, {bad} that did not, {count['cut short']} cut short" + (
        f", {len(useless)} of no use ({useless[0]})" if useless else ""
    )
    if good + bad < LEAST_RUNS:
        raise ValueError(
            f"too few finished runs to learn from: {have}; {LEAST_RUNS} finished ones are needed "
            f"(30 are better). Let more runs reach their budget."
        )
    if min(good, bad) < LEAST_OF_EACH:
        raise ValueError(
            f"only one outcome to learn from: {have}; at least {LEAST_OF_EACH} of each are needed. "
            f"Add runs that {'did not generalise' if good > bad else 'generalised'}, or raise "
            f"budget."
        )


def adapted(parameters: dict[str, Any], runs: list[OwnRun], shares: FloatArray) -> dict[str, Any]:
    """The parameters, adapted to replayed runs that weigh ``shares`` each, shape (runs,)."""
    base = Forecast(parameters)
    box = ranges(run.x for run in runs if run.outcome != "cut short")
    return adapted_to(parameters, [seen_by(base, run) for run in runs], shares, box)


def adapted_to(
    parameters: dict[str, Any],
    runs: list[Seen],
    shares: FloatArray,
    box: tuple[FloatArray, FloatArray],
) -> dict[str, Any]:
    """As :func:`adapted`, from what the shipped forecast said of each run.

    ``box`` has the lowest and highest of each feature over the finished runs.
    """
    chosen = [(run, share) for run, share in zip(runs, shares, strict=True) if len(run.steps)]
    told = np.array([hyper_parameters(run.settings) for run in runs])
    some = np.isfinite(told).any(axis=0)
    mean, scale = np.zeros(told.shape[1]), np.zeros(told.shape[1])
    mean[some], scale[some] = np.nanmean(told[:, some], axis=0), np.nanstd(told[:, some], axis=0)
    scale[scale < 1e-6] = 0.0
    prior = OwnPrior(
        len(runs), tuple(mean.tolist()), tuple(scale.tolist()), (0.0,) * len(mean)
    )  # fmt: skip

    now = np.concatenate([run.steps for run, _ in chosen]) + 1.0
    sizes = [len(run.steps) for run, _ in chosen]

    def each(values: Iterable[Any]) -> FloatArray:
        return np.repeat(np.array(list(values), dtype=np.float64), sizes)

    inside = each(run.known_to for run, _ in chosen) + 1.0 > now
    weight = each(share / len(run.steps) for run, share in chosen)
    late = each(run.outcome == "generalised" for run, _ in chosen)
    z = np.concatenate([run.log_odds for run, _ in chosen])
    quantiles = np.concatenate([run.quantiles for run, _ in chosen])
    h = np.repeat(
        standardised(
            np.array([hyper_parameters(run.settings) for run, _ in chosen]), prior.mean, prior.scale
        ),
        sizes,
        axis=0,
    )
    odds = fit_odds(z[inside], h[inside], late[inside], weight[inside])
    yes = inside & (late > 0.0)
    t4 = each(np.nan if run.t4 is None else run.t4 for run, _ in chosen)
    shift, widen = fit_times(quantiles[yes], np.log10((t4[yes] + 1.0) / now[yes]), weight[yes])

    prior = replace(
        prior,
        weight=tuple(odds.weight.round(6).tolist()),
        mean=tuple(mean.round(6).tolist()),
        scale=tuple(scale.round(6).tolist()),
        slope=round(odds.slope, 6),
        intercept=round(odds.intercept, 6),
        shift=round(shift, 6),
        memorised_by=memorised_by(runs),
    )
    slope, intercept = parameters["calibration"]
    fitted = 1.0 / (1.0 + np.exp(-(odds.slope * z + odds.intercept + h @ odds.weight)))
    index = np.repeat(np.arange(len(chosen)), sizes)
    full = np.array([run.outcome != "cut short" for run, _ in chosen])[index] & inside
    return {
        **parameters,
        **support(parameters, runs, *box),
        "card": card(parameters["card"] if "card" in parameters else {}, runs),
        "calibration": [
            round(odds.slope * slope, 6),
            round(odds.slope * intercept + odds.intercept, 6),
        ],
        "widen": [round(w * f, 4) for w, f in zip(parameters["widen"], widen, strict=True)],
        "comparable": comparable(parameters["comparable"], fitted[full], index[full], late[full]),
        "own": {
            **prior.as_dict(),
            "base": {key: parameters[key] for key in _KEPT if key in parameters},
        },
    }


def memorised_by(runs: Sequence[Ended]) -> int | None:
    """When a run that has not learnt its training set is late, by the slowest that generalised."""
    good = [run.t2 for run in runs if run.outcome == "generalised"]
    slowest = [t2 for t2 in good if t2 is not None]
    # One that generalised without ever memorising shows that waiting for t2 says nothing here.
    return round(_MEMORISED_LATE * max(slowest)) if slowest and len(slowest) == len(good) else None


def support(
    parameters: Mapping[str, Any], runs: Sequence[Ended], low: FloatArray, high: FloatArray
) -> dict[str, Any]:
    """Classes, horizon and box of features, widened to hold the user's own runs."""
    finished = [run for run in runs if run.outcome != "cut short"]
    classes = [1.0 / run.chance for run in finished if run.chance]
    fewest, most = parameters["classes"]
    low = np.fmin(low - 0.1 * (high - low), parameters["support_low"])
    high = np.fmax(high + 0.1 * (high - low), parameters["support_high"])
    return {
        "classes": [min([fewest, *map(round, classes)]), max([most, *map(round, classes)])],
        "horizon": max([parameters["horizon"], *(run.budget for run in finished)]),
        "support_low": low.round(4).tolist(),
        "support_high": high.round(4).tolist(),
    }


def comparable(
    edges: list[list[float]], p: FloatArray, run: npt.NDArray[np.int64], late: FloatArray
) -> list[list[float]]:
    """Of the own runs that ever looked about as promising, how many generalised."""
    found = []
    for low, high, *_ in edges:
        inside = (p >= low) & (p < high)
        runs = dict(zip(run[inside].tolist(), late[inside].tolist(), strict=True))
        enough = len(runs) >= _COMPARABLE_LEAST
        found.append([low, high, *((sum(runs.values()), len(runs)) if enough else (0.0, 0.0))])
    return found


def card(shipped: Mapping[str, Any], runs: Sequence[Ended]) -> dict[str, Any]:
    """The model card, extended."""
    count = Counter(run.outcome for run in runs)
    return {
        **shipped,
        "own_runs": len(runs),
        "own_outcomes": {key: count[key] for key in ("generalised", "never", "diverged",
                                                      "cut short")},
        "own_made": datetime.date.today().isoformat(),
        "own_thresholds": "inherited threshold: the kill thresholds are those of the shipped "
        "forecast and apply to its probability, stretched by at most half where the adapted one is "
        "below too; so few runs cannot certify a kill rate of their own. Classes, "
        "horizon and box of features are widened to hold these runs, where nothing was certified; "
        "nor are stops of runs that are late to learn their training set (own: memorised_by).",
    }  # fmt: skip
