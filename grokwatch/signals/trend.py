"""Trends on a log-time axis: least-squares slopes per doubling of the step, over several spans.

Of everything tried, the trend of validation loss and of the validation margin on this axis tells
most about whether a memorised run will generalise.
"""

from __future__ import annotations

import math

import numpy as np

from grokwatch.history import FloatArray, History

#: Look-back spans: the slope over 4x covers the steps from now / 4 to now.
SPANS = (2, 4, 16)

#: Measurement -> whether its natural logarithm is fitted (a slope of -0.4 is then exp(-0.4) a
#: doubling, a fall of a third) or the value itself.
TRENDS: dict[str, bool] = {
    "val_loss": True,
    "val_margin": False,
    "val_accuracy": False,
    "weight_norm": True,
    "grad_norm": True,
    "train_loss": True,
}
_MIN_POINTS = 4


def slope(steps: FloatArray, values: FloatArray) -> float:
    """Least-squares slope of ``values`` against log2 of ``steps``; both of shape (n,), n >= 2.

    Steps are shifted by one, so that step 0 is allowed.

    >>> slope(np.array([0., 1., 3., 7.]), np.array([5., 4., 3., 2.]))
    -1.0
    """
    return _slope(np.log2(steps + 1.0), values)


def look_back(steps: FloatArray, span: float) -> int:
    """Index of the first point inside the look-back span; ``steps`` ascending.

    >>> look_back(np.array([0., 10., 50., 99.]), 2)
    2
    """
    return int(steps.searchsorted((steps[-1] + 1.0) / span - 1.0))


def trends(history: History) -> dict[str, float]:
    """``<measurement>_slope_<span>x`` for every measurement of :data:`TRENDS` that has arrived.

    A slope needs four log-time bins that cover at least half of the span on the log axis. A
    measurement whose logarithm is wanted and which is not positive there has no slope.
    """
    found: dict[str, float] = {}
    for name, log in TRENDS.items():
        bins = history.bins.get(name)
        if bins is None or bins.count < _MIN_POINTS:
            continue
        steps, values = bins.points()
        longest = look_back(steps, SPANS[-1])
        steps, values = steps[longest:], values[longest:]
        if log:
            # Only what lies after the last value without a logarithm.
            usable = int(np.flatnonzero(values <= 0.0)[-1]) + 1 if values.min() <= 0.0 else 0
            values = np.log(np.maximum(values, 1e-300))
        else:
            usable = 0
        x = np.log2(steps + 1.0)
        for span in SPANS:
            start = look_back(steps, span)
            if start < usable or x.size - start < _MIN_POINTS:
                continue
            if (steps[-1] + 1) / (steps[start] + 1) < math.sqrt(span):
                continue
            found[f"{name}_slope_{span}x"] = _slope(x[start:], values[start:])
    return found


def _slope(x: FloatArray, values: FloatArray) -> float:
    x = x - x.sum() / x.size
    return float(x @ values / (x @ x))
