"""First guesses for fits of erf-shaped jumps.

They are read off a monotone (isotonic) fit, which needs no smoothing length and does not mind
noise. Each is scored with its best levels, which is a linear problem.
"""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

ROOT_PI = math.sqrt(math.pi)
_FRACTIONS = np.array([0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9])
_SCORED_POINTS = 512  # guesses are scored on about this many points; the fit itself uses all
_KEPT = 2  # guesses worth polishing


def _monotone(y: FloatArray, weights: FloatArray) -> FloatArray:
    """The best monotone curve through ``y`` (shape (n,)), rising or falling."""
    from scipy.optimize import isotonic_regression

    curves = [np.asarray(isotonic_regression(s * y, weights=weights).x) * s for s in (1.0, -1.0)]
    costs = [float(weights @ (y - curve) ** 2) for curve in curves]
    return curves[0] if costs[0] <= costs[1] else curves[1]


def passed(u: FloatArray) -> FloatArray:
    """Phi(u): the share of a jump that is over."""
    from scipy.special import erf

    share: FloatArray = erf(u)
    share *= 0.5
    share += 0.5
    return share


def shares_of(share: FloatArray) -> FloatArray:
    """How much of each level shows: (..., K, n) shares passed -> (..., K + 1, n)."""
    *batch, k, n = share.shape
    shares = np.empty((*batch, k + 1, n))
    shares[..., 0, :] = 1.0
    shares[..., 1:, :] = share
    shares[..., :-1, :] -= share
    return shares


def _candidates(t: FloatArray, curve: FloatArray, k: int) -> tuple[FloatArray, FloatArray]:
    """Centres and widths to try, each (m, K), from where ``curve`` passes parts of its height."""
    height = (curve - curve[0]) / (curve[-1] - curve[0])

    def crossing(fractions: FloatArray) -> tuple[FloatArray, FloatArray]:
        after = np.clip(np.searchsorted(height, fractions), 1, len(t) - 1)
        return 0.5 * (t[after - 1] + t[after]), 0.5 * (t[after] - t[after - 1])

    centres, floor = crossing(_FRACTIONS)
    # At the middle the slope is height / (sqrt(pi) * width); 0.19 of the height are looked at.
    local = (crossing(_FRACTIONS + 0.1)[0] - crossing(_FRACTIONS - 0.09)[0]) / (0.19 * ROOT_PI)
    whole = np.full_like(local, centres[-1] - centres[0])
    floor = np.maximum(floor, 1e-9 * (t[-1] - t[0]))  # points of one time leave no gap
    widths = [np.maximum(w, floor) for w in (0.4 * local, 1.2 * local, whole)[: 4 - k]]
    pool = sorted((c, w) for column in widths for c, w in zip(centres, column, strict=True))
    tried = [s for s in combinations(pool, k) if all(a[0] < b[0] for a, b in pairwise(s))]
    candidates = np.array(tried or [tuple(pool[:k])], dtype=np.float64)
    return candidates[..., 0], candidates[..., 1]


def guess(
    t: FloatArray, y: FloatArray, w: FloatArray, given: FloatArray, k: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The best candidates, best first: centres (m, K), widths (m, K), levels (m, K + 1)."""
    curve = _monotone(y, w)
    centres, widths = _candidates(t, curve, k)
    if len(t) > _SCORED_POINTS:  # half of them even in time, half even in height: on the rise
        height, half = np.abs(curve - curve[0]), _SCORED_POINTS // 2
        even = np.linspace(0, len(t) - 1, half).astype(np.intp)
        rise = np.searchsorted(height, np.linspace(0.0, height[-1], half))
        keep = np.unique(np.concatenate([even, rise]))
        t, y, w = t[keep], y[keep], w[keep]
    shares = shares_of(passed((t - centres[..., None]) / widths[..., None]))
    levels = np.tile(given, (len(centres), 1))
    free = np.isnan(given)
    if free.any():
        rest = y - np.where(free, 0.0, given) @ shares
        seen = shares[:, free] * w
        normal = seen @ shares[:, free].swapaxes(1, 2) + 1e-9 * w.sum() * np.eye(free.sum())
        levels[:, free] = np.linalg.solve(normal, seen @ rest[..., None])[..., 0]
    levels = np.where(free, np.clip(levels, 0.0, 1.0), levels)
    costs = ((y - (levels[:, None] @ shares)[:, 0]) ** 2) @ w
    order = np.argsort(costs, kind="stable")[:_KEPT]
    return centres[order], widths[order], levels[order]
