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
    x = np.log2(steps + 1.0)
    x -= x.mean()
    return float(x @ values / (x @ x))


def look_back(steps: FloatArray, span: float) -> int:
    """Index of the first point inside the look-back span; ``steps`` ascending.

    >>> look_back(np.array([0., 10., 50., 99.]), 2)
    2
    """
    return int(np.searchsorted(steps, (steps[-1] + 1.0) / span - 1.0))


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
        for span in SPANS:
            start = look_back(steps, span)
            x, y = steps[start:], values[start:]
            if x.size < _MIN_POINTS or (x[-1] + 1) / (x[0] + 1) < math.sqrt(span):
                continue
            if log:
                if y.min() <= 0.0:
                    continue
                y = np.log(y)
            found[f"{name}_slope_{span}x"] = slope(x, y)
    return found
