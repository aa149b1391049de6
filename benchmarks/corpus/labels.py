"""The label rule: t2, t4 and what became of a run, from densely measured accuracies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MEMORISED_AT, GENERALISED_AT, FALLEN_BELOW = 0.99, 0.95, 0.5
_SPAN, _AT_LEAST, _SHARE = 100, 5, 0.9
_DIVERGED_ABOVE, _DIVERGED_TIMES = 1e6, 3.0

Floats = NDArray[np.float64]


def lasting_step(steps: Floats, values: Floats, threshold: float) -> int | None:
    """First step that passes the threshold and stays.

    It stays when at least 90 % of the measurements of the following 100 steps (at least the next
    5 measurements) pass too. A step without 5 measurements after it cannot be confirmed.

    Args:
        steps: Increasing, shape (n,).
        values: Shape (n,).
        threshold: Passing means value >= threshold.

    Returns:
        The step, or None.

    >>> steps = np.arange(0.0, 300.0, 10.0)
    >>> lasting_step(steps, (steps >= 120).astype(float), 0.95)
    120
    >>> lasting_step(steps, (steps == 120).astype(float), 0.95) is None
    True
    """
    passing = np.asarray(values) >= threshold
    total = np.concatenate([[0], np.cumsum(passing)])
    ends = np.searchsorted(steps, np.asarray(steps) + _SPAN, side="right")
    places = np.arange(len(steps))
    ends = np.maximum(ends, places + 1 + _AT_LEAST)
    confirmed = passing & (ends <= len(steps))
    ends = np.minimum(ends, len(steps))
    counts = ends - places - 1
    confirmed &= total[ends] - total[places + 1] >= _SHARE * counts - 1e-9
    hits = np.flatnonzero(confirmed)
    return int(steps[hits[0]]) if hits.size else None


def fallen_step(steps: Floats, values: Floats, since: int) -> int | None:
    """First step after `since` of 5 measurements in a row below one half, or None."""
    below = (np.asarray(steps) > since) & (np.asarray(values) < FALLEN_BELOW)
    run = np.convolve(below, np.ones(_AT_LEAST), mode="valid")
    hits = np.flatnonzero(run == _AT_LEAST)
    return int(steps[hits[0]]) if hits.size else None


def outcome(
    steps: Floats, train_accuracy: Floats, val_accuracy: Floats, train_loss: Floats
) -> dict[str, Any]:
    """Label one finished run.

    Returns:
        t2 and t4 (None if not reached), and the flags `generalised`, `censored` (no t4 within
        the steps run, and not diverged), `ungrokked` with its step, `diverged` (loss not finite
        or above 1e6, or at the end above three times the first loss), `late` (t4 at least
        1.5 t2 and 100 steps after it).
    """
    t2 = lasting_step(steps, train_accuracy, MEMORISED_AT)
    t4 = lasting_step(steps, val_accuracy, GENERALISED_AT)
    fallen = None if t4 is None else fallen_step(steps, val_accuracy, t4)
    with np.errstate(invalid="ignore"):
        last = float(np.median(train_loss[-5:]))
        diverged = (
            not np.isfinite(last)
            or float(np.nanmax(train_loss)) > max(_DIVERGED_ABOVE, 10 * train_loss[0])
            or last > _DIVERGED_TIMES * train_loss[0]
        )
    diverged = bool(diverged or not np.isfinite(train_loss[-1]))
    late = t2 is not None and t4 is not None and t4 >= 1.5 * t2 and t4 - t2 >= 100
    return {
        "t2": t2,
        "t4": t4,
        "generalised": t4 is not None,
        "late": late,
        "censored": t4 is None and not diverged,
        "ungrokked": fallen is not None,
        "ungrokked_at": fallen,
        "diverged": diverged,
    }
