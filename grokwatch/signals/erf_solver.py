"""Weighted least squares for sums of erf-shaped jumps: the numerics behind ``signals.erf``.

A curve of K jumps has levels L_0..L_K, centres c_k and widths w_k, with Phi = (1 + erf) / 2::

    y(t) = L_0 + sum_k (L_k - L_(k-1)) * Phi((t - c_k) / w_k)

The best of the first guesses are polished by Levenberg-Marquardt with the analytic Jacobian.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grokwatch.signals.erf_guess import ROOT_PI, FloatArray, guess, passed, shares_of
from grokwatch.signals.least_squares import clip, minimise, standard_errors

Mask = npt.NDArray[np.bool_]

_GOOD = 0.02  # unexplained share below which one jump needs no second guess
_LOG_LIMIT = 20.0  # a width e^20 away from its first guess says nothing any more
_ASTRAY = 0.25  # a level so far outside 0..1 is not waited for: where a rise has only begun, the
# search goes on for long along a valley of ever higher ends. Few would come back, to a better fit
# (2 of 1,500 random curves; where the end was refused anyway, giving up early made 36 better).


@dataclass(frozen=True, slots=True)
class Jumps:
    """A fitted curve of K jumps; widths are 1/e half-widths of the slope, errors standard ones."""

    centres: FloatArray
    widths: FloatArray
    levels: FloatArray
    centre_errors: FloatArray
    width_errors: FloatArray  # relative to the width
    residual: FloatArray  # data minus curve, per point
    cost: float  # weighted sum of squared residuals
    free: int  # number of fitted parameters


def _polish(
    t: FloatArray,
    y: FloatArray,
    w: FloatArray,
    start: tuple[FloatArray, FloatArray, FloatArray],
    free: Mask,
) -> Jumps:
    """The nearest least-squares curve, sought in units of the first guess."""
    origin, unit, levels, k = start[0][0], start[1][0], start[2].copy(), len(start[0])
    x, root = (t - origin) / unit, np.sqrt(w)
    every = bool(free.all())

    def model(p: FloatArray) -> tuple[FloatArray, FloatArray]:
        # Logarithms of the widths: no width can reach zero or turn negative.
        rates = np.exp(-clip(p[k : 2 * k], -_LOG_LIMIT, _LOG_LIMIT))[:, None]
        u = clip((x - p[:k, None]) * rates, -30.0, 30.0)  # erf is flat long before
        levels[free] = p[2 * k :]
        shares = shares_of(passed(u))
        slope = np.exp(-u * u) * ((levels[:-1] - levels[1:]) / ROOT_PI)[:, None]
        rows = np.empty((len(p), len(x)))
        np.multiply(slope, rates, out=rows[:k])
        np.multiply(slope, u, out=rows[k : 2 * k])
        rows[2 * k :] = shares if every else shares[free]
        rows *= root
        return root * (levels @ shares - y), rows

    first = np.concatenate([(start[0] - origin) / unit, np.log(start[1] / unit), levels[free]])
    p, misfit, slopes = minimise(model, first, lost=lambda p: _astray(p[2 * k :]))
    levels[free] = p[2 * k :]
    cost = float(misfit @ misfit)
    errors = standard_errors(slopes, cost)
    return Jumps(
        centres=origin + unit * p[:k],
        widths=unit * np.exp(np.clip(p[k : 2 * k], -_LOG_LIMIT, _LOG_LIMIT)),
        levels=levels,
        centre_errors=unit * errors[:k],
        width_errors=errors[k : 2 * k],
        residual=-misfit / root,
        cost=cost,
        free=len(p),
    )


def _astray(levels: FloatArray) -> bool:
    return bool(levels.size) and bool(levels.min() < -_ASTRAY or levels.max() > 1.0 + _ASTRAY)


def solve(t: FloatArray, y: FloatArray, w: FloatArray, given: FloatArray) -> Jumps:
    """The best curve of ``len(given) - 1`` jumps through points of weight ``w``.

    Args:
        t: times, shape (n,), ascending, not all equal.
        y: accuracies, shape (n,), not all equal.
        w: positive weights, shape (n,).
        given: shape (K + 1,); NaN for a level to be fitted. An accuracy is a fraction, so a
            fitted level that leaves 0..1 is held at the end it passed.
    """
    best: Jumps | None = None
    for centres, widths, levels in zip(*guess(t, y, w, given, len(given) - 1), strict=True):
        free = np.isnan(given)
        fit = _polish(t, y, w, (centres, widths, levels), free)
        while (out := free & ((fit.levels < 0.0) | (fit.levels > 1.0))).any():
            free &= ~out
            held = np.where(out, np.clip(fit.levels, 0.0, 1.0), levels)
            fit = _polish(t, y, w, (centres, widths, held), free)
            levels = held
        if best is None or fit.cost < best.cost:
            best = fit
        if len(given) == 2 and best.cost < _GOOD * float(w @ (y - np.average(y, weights=w)) ** 2):
            break
    if best is None:  # there is always a candidate
        raise RuntimeError("no starting point for the erf fit.")
    return best
