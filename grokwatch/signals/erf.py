"""Time and sharpness of a jump in accuracy: fits of the error function (Miller et al. 2024).

The curve is A(t) = a * erf(s * (t - t*)) + b with a = (high - low) / 2 and b = (low + high) / 2.
The paper's Assumption 2 prints other values of a and b, which do not span [low, high].
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from grokwatch.signals.erf_fit import EXACT, ErfFit, TwoErfFit, describe, r_squared
from grokwatch.signals.erf_guess import FloatArray
from grokwatch.signals.erf_solver import solve

__all__ = [
    "ErfFit",
    "TwoErfFit",
    "absolute_sharpness",
    "fit_either",
    "fit_erf",
    "fit_two_erf",
    "relative_gap",
    "relative_sharpness",
]

MIN_POINTS = 5
_MARGIN = 10.0  # BIC difference that counts as very strong evidence for the second jump
_STRUCTURE = 0.2  # a second jump leaves at least this autocorrelation in the residual of one
_MIN_SHARE = 0.1  # of the whole rise, for each of two jumps


def fit_erf(
    t: npt.ArrayLike,
    accuracy: npt.ArrayLike,
    low: float | None = None,
    high: float | None = None,
    *,
    weights: npt.ArrayLike | None = None,
) -> ErfFit:
    """Fit one jump, A(t) = a * erf(s * (t - t*)) + b (Miller et al. 2024, Eq. 4).

    Args:
        t: steps or epochs, shape (n,), ascending, n >= 5.
        accuracy: fractions, shape (n,).
        low: the level before the jump where it is known (chance); fitted within 0..1 if None.
        high: the level after the jump where it is known; fitted within 0..1 if None.
        weights: positive, shape (n,); how many measurements each point is the mean of.

    Raises:
        ValueError: for shapes that differ, too few points, numbers that are not finite,
            percentages, falling times, or ``low`` not below ``high``.

    >>> from scipy.special import erf
    >>> t = np.linspace(0, 10_000, 200)
    >>> fit = fit_erf(t, 0.25 * erf(0.001 * (t - 6000)) + 0.75)
    >>> round(fit.time, 3), round(fit.sharpness, 9), round(fit.low, 6), fit.s_shaped
    (6000.0, 0.001, 0.5, True)
    """
    x, y, w = _checked(t, accuracy, weights)
    given = [math.nan if level is None else float(level) for level in (low, high)]
    if any(level is not None and not math.isfinite(level) for level in (low, high)):
        raise ValueError(f"low and high must be finite or None but are {low} and {high}.")
    if given[0] >= given[1]:
        raise ValueError(f"low must be below high but they are {low} and {high}.")
    if y.min() == y.max():
        return _flat(x, y)
    return describe(x, y, w, solve(x, y, w, np.array(given)), 0)


def _flat(x: FloatArray, y: FloatArray) -> ErfFit:
    level, inf = float(y[0]), math.inf
    ends = float(x[0]), float(x[-1])
    return ErfFit(math.nan, 0.0, inf, inf, level, level, 0.0, 0.0, 0.0, 0.0, 0, *ends, len(x))


def fit_two_erf(
    t: npt.ArrayLike, accuracy: npt.ArrayLike, *, weights: npt.ArrayLike | None = None
) -> TwoErfFit | None:
    """Fit a rise in two steps (Arn 2023, Fig. 4.7); None unless the data clearly show one.

    Clearly: BIC prefers two jumps by more than 10, both rise and are S-shaped, each is at
    least a tenth of the whole, and the plateau between them is longer than their mean width
    and has at least 3 points.

    Args:
        t: steps or epochs, shape (n,), ascending, n >= 5.
        accuracy: fractions, shape (n,).
        weights: positive, shape (n,); how many measurements each point is the mean of.

    Raises:
        ValueError: as :func:`fit_erf`.

    >>> from scipy.special import erf
    >>> t = np.linspace(0, 10_000, 200)
    >>> curve = 0.45 + 0.15 * erf(0.004 * (t - 2000)) + 0.25 * erf(0.004 * (t - 7000))
    >>> found = fit_two_erf(t, curve)
    >>> found and (round(found.first.time), round(found.second.time), round(found.first.high, 6))
    (2000, 7000, 0.35)
    """
    return fit_either(t, accuracy, weights=weights)[1]


def fit_either(
    t: npt.ArrayLike, accuracy: npt.ArrayLike, *, weights: npt.ArrayLike | None = None
) -> tuple[ErfFit, TwoErfFit | None]:
    """What :func:`fit_erf` and :func:`fit_two_erf` say; arguments and errors are theirs."""
    x, y, w = _checked(t, accuracy, weights)
    if y.min() == y.max():
        return _flat(x, y), None
    one = solve(x, y, w, np.full(2, math.nan))
    described = describe(x, y, w, one, 0)
    if len(x) <= 8 or described.residual_autocorrelation < _STRUCTURE:
        return described, None
    return described, _two(x, y, w, one.cost)


def _two(x: FloatArray, y: FloatArray, w: FloatArray, cost_of_one: float) -> TwoErfFit | None:
    n = len(x)
    two = solve(x, y, w, np.full(3, math.nan))
    floor = (EXACT * float(np.ptp(y))) ** 2 * float(w.sum())
    gain = n * math.log((cost_of_one + floor) / (two.cost + floor)) - 3 * math.log(n)
    starts, ends = two.centres - two.widths, two.centres + two.widths
    rises = np.diff(two.levels)
    if gain <= _MARGIN or rises.min() < _MIN_SHARE * float(two.levels[2] - two.levels[0]):
        return None
    plateau = starts[1] - ends[0]
    if plateau < 0.5 * two.widths.sum() or np.sum((x > ends[0]) & (x < starts[1])) < 3:
        return None
    left = x <= 0.5 * (ends[0] + starts[1])
    if min(np.sum(left), np.sum(~left)) < MIN_POINTS:
        return None
    first, second = (describe(x, y, w, two, k, part) for k, part in enumerate((left, ~left)))
    if not (first.s_shaped and second.s_shaped):
        return None
    return TwoErfFit(first, second, r_squared(two.cost, y, w), gain)


def relative_gap(train: ErfFit, val: ErfFit) -> float:
    """Relative grokking gap m = t*_gen / t*_tr - 1 (Miller et al. 2024, Eq. 2).

    Raises:
        ValueError: if the training jump lies at or before time 0, or at no time at all.
    """
    if not train.time > 0.0:
        raise ValueError(
            f"the relative gap needs a training jump after time 0 but it is at {train.time}; "
            f"count steps from the start of training."
        )
    return val.time / train.time - 1.0


def relative_sharpness(train: ErfFit, val: ErfFit) -> float:
    """Relative sharpness R_rel = s_gen / s_tr (Miller et al. 2024, Eq. 3).

    Raises:
        ValueError: if the training curve has no jump.
    """
    if not train.sharpness > 0.0:
        raise ValueError(
            "the relative sharpness needs a training jump but the training accuracy never varies."
        )
    return val.sharpness / train.sharpness


def absolute_sharpness(val: ErfFit) -> float:
    """The steepest slope of the accuracy, R_abs = 2 a s / sqrt(pi) (Miller et al. 2024, Eq. 6).

    Of the validation curve in the paper; ``a`` is half of the amplitude; unit 1 / unit of time.
    """
    return val.amplitude * val.sharpness / math.sqrt(math.pi)


def _checked(
    t: npt.ArrayLike, accuracy: npt.ArrayLike, weights: npt.ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Times, accuracies and weights as float64, or an error that says what is wrong."""
    x, y = np.asarray(t, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    w = np.ones(x.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 1 or not x.shape == y.shape == w.shape:
        raise ValueError(
            f"t, accuracy and weights must be one-dimensional and of one length but their shapes "
            f"are {x.shape}, {y.shape} and {w.shape}."
        )
    if len(x) < MIN_POINTS:
        raise ValueError(f"an erf fit needs at least {MIN_POINTS} points but got {len(x)}.")
    for name, values in (("t", x), ("accuracy", y), ("weights", w)):
        if not (finite := np.isfinite(values)).all():
            at = int(np.argmin(finite))
            raise ValueError(f"{name}[{at}] is {values[at]}; leave such points out.")
    if np.diff(x).min() < 0.0 or x[0] == x[-1]:
        raise ValueError("t must ascend; sort the points by time.")
    if np.abs(y).max() > 1.5:
        worst = float(y[np.argmax(np.abs(y))])
        raise ValueError(
            f"accuracy must be a fraction 0..1 but {worst:g} arrived; divide percentages by 100."
        )
    if w.min() <= 0.0:
        raise ValueError(f"weights must be positive but the smallest is {w.min():g}.")
    return x, y, w
