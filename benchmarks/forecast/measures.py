"""Scores and their uncertainty: pure functions of numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

DRAWS = 400
LEVEL = 0.9
_TAILS = [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]


def wins(score: Floats, label: Bools) -> Floats:
    """1 where a yes scores above a no, 1/2 for a tie, else 0; shape (yes, no)."""
    yes, no = score[label][:, None], score[~label][None, :]
    return (yes > no) + 0.5 * (yes == no)


def resampled(clusters: npt.ArrayLike, draws: int = DRAWS, seed: int = 0) -> Floats:
    """How often each case occurs in each bootstrap draw of whole clusters, shape (draws, n)."""
    _, number = np.unique(np.asarray(clusters), return_inverse=True)
    size = int(number.max()) + 1 if number.size else 0
    rng = np.random.default_rng(seed)
    return rng.multinomial(size, np.full(size, 1.0 / max(size, 1)), size=draws)[:, number].astype(
        float
    )


def ranking(
    score: Floats, label: Bools, clusters: npt.ArrayLike | None = None, pairs: Bools | None = None
) -> tuple[float, float, float] | None:
    """Area under the ROC curve with a 90 % bootstrap interval; None without both outcomes.

    Args:
        score: higher = likelier to be a yes, shape (n,).
        label: the truth, shape (n,).
        clusters: what is drawn together, shape (n,); None = every case alone.
        pairs: count only these pairs, shape (yes, no); None = all.
    """
    if label.all() or not label.any() or (pairs is not None and not pairs.any()):
        return None
    allowed = np.ones((label.sum(), (~label).sum())) if pairs is None else pairs.astype(float)
    won = wins(score, label) * allowed
    drawn = resampled(np.arange(len(label)) if clusters is None else clusters)
    yes, no = drawn[:, label], drawn[:, ~label]
    with np.errstate(invalid="ignore"):
        areas = ((yes @ won) * no).sum(axis=1) / ((yes @ allowed) * no).sum(axis=1)
    low, high = np.nanquantile(areas, _TAILS)
    return float(won.sum() / allowed.sum()), float(low), float(high)


def bootstrap(
    measure: Callable[[Floats], float], clusters: npt.ArrayLike, draws: int = DRAWS
) -> tuple[float, float, float]:
    """A measure of case weights, with its 90 % bootstrap interval."""
    drawn = resampled(clusters, draws)
    low, high = np.nanquantile([measure(weight) for weight in drawn], _TAILS)
    return float(measure(np.ones(drawn.shape[1]))), float(low), float(high)


def median_interval(values: Floats) -> tuple[float, float, float]:
    """Median with its 90 % bootstrap interval."""
    rng = np.random.default_rng(0)
    medians = np.median(values[rng.integers(0, len(values), (DRAWS, len(values)))], axis=1)
    return float(np.median(values)), *(float(q) for q in np.quantile(medians, _TAILS))  # type: ignore


def share_interval(hits: int, total: int, level: float = LEVEL) -> tuple[float, float, float]:
    """A share with its two-sided interval by Clopper and Pearson."""
    tail = 0.5 - level / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, total - hits + 1))
    high = 1.0 if hits == total else float(beta.ppf(1 - tail, hits + 1, total - hits))
    return hits / max(total, 1), low, high


def matched(label: Bools, lr: Floats, wd: Floats, within: float = 0.1) -> Bools:
    """Which (yes, no) pairs have learning rate and decay within so many decades, shape (yes, no).

    No decay at all matches no decay only.
    """
    x = np.log10(lr)
    y = np.log10(np.where(wd > 0.0, wd, 1e-30))
    near: Bools = (abs(x[label][:, None] - x[~label][None, :]) <= within) & (
        abs(y[label][:, None] - y[~label][None, :]) <= within
    )
    return near


def reliability(probability: Floats, label: Bools, bins: int = 10) -> Floats:
    """Equal-mass bins: mean probability, share of yes, number of cases; shape (bins, 3)."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    return np.array([[probability[i].mean(), label[i].mean(), len(i)] for i in parts])


def ece(probability: Floats, label: Bools, bins: int = 10) -> float:
    """Expected calibration error over equal-mass bins."""
    said, true, size = reliability(probability, label, bins).T
    return float((abs(said - true) * size).sum() / size.sum())


def perfect_ece(probability: Floats, bins: int = 10, draws: int = 1000) -> Floats:
    """What a forecaster that is exactly right would show on as many cases, ``draws`` times."""
    rng = np.random.default_rng(0)
    order = np.sort(probability)
    edges = np.array([part[0] for part in np.array_split(np.arange(len(order)), bins) if part.size])
    yes = rng.random((draws, len(order))) < order
    gap = np.add.reduceat(yes - order, edges, axis=1)
    found: Floats = abs(gap).sum(axis=1) / len(order)
    return found


def recalibration(probability: Floats, label: Bools, weight: Floats) -> tuple[float, float]:
    """Slope and intercept of the truth's log-odds on the forecast's; (1, 0) is right.

    By Newton's method, with a penalty too weak to matter but when the outcomes separate.
    """
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    x = np.column_stack([np.log(p / (1 - p)), np.ones(len(p))])
    found = np.array([1.0, 0.0])
    for _ in range(30):
        q = 1.0 / (1.0 + np.exp(-np.clip(x @ found, -30, 30)))
        slope = x.T @ (weight * (label - q)) - 1e-3 * (found - [1.0, 0.0])
        curve = (x * (weight * q * (1 - q))[:, None]).T @ x + 1e-3 * np.eye(2)
        step = np.clip(np.linalg.solve(curve, slope), -2, 2)
        found = found + step
        if abs(step).max() < 1e-9:
            break
    return float(found[0]), float(found[1])


def shown(found: tuple[float, float, float] | None, percent: bool = False) -> str:
    """A figure with its interval, or a dash."""
    if found is None or not np.isfinite(found[0]):
        return "-"
    if percent:
        return "{:.1f}% ({:.1f}-{:.1f})".format(*(100.0 * value for value in found))
    return "{} ({}-{})".format(*(f"{value:.2f}".replace("0.", ".") for value in found))
