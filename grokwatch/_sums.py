"""Sums in the order of arrival: bit for bit what adding one by one gives, but of whole arrays.

``numpy.sum`` adds pairwise along the fast axis; a sum that is continued later must not depend on
how its terms arrived.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_BLOCK = 8192  # larger temporaries cost more than the adding: they are mapped anew each time
_MANY = 8  # rows from which on adding them side by side pays


def add_all(start: float, values: FloatArray) -> float:
    """``start + values[0] + values[1] + ...``, from left to right; values of shape (n,).

    >>> add_all(0.5, np.array([1.0, 2.0]))
    3.5
    """
    for at in range(0, len(values), _BLOCK):
        block = values[at : at + _BLOCK].copy()
        block[0] += start
        start = float(block.cumsum()[-1])
    return start


def add_rows(rows: FloatArray) -> FloatArray:
    """The sum of each row, from left to right; (n, m) -> (n,), m >= 1.

    >>> add_rows(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([3., 7.])
    """
    if len(rows) < _MANY:
        return np.cumsum(rows, axis=1)[:, -1]
    # Along the slow axis numpy adds one row to the next.
    summed: FloatArray = np.add.reduce(np.ascontiguousarray(rows.T), axis=0)
    return summed
