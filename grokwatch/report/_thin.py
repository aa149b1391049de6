"""Fewer points that draw the same curve."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

COLUMNS = 500  # of pixels that a figure on a page has, roughly


def thin(
    x: npt.ArrayLike, y: npt.ArrayLike, columns: int = COLUMNS
) -> tuple[FloatArray, FloatArray]:
    """Keep, of every column of pixels on a logarithmic axis, first, last, least and greatest.

    Args:
        x: positive, ascending, shape (n,).
        y: finite, shape (n,).
        columns: how many columns the axis is wide.

    Returns:
        x and y of the points kept, in order, at most 4 a column.

    >>> import numpy as np
    >>> spiky = np.zeros(100_000)
    >>> spiky[70_000] = 5.0
    >>> x, y = thin(np.arange(1, 100_001), spiky, columns=100)
    >>> len(x) <= 400, float(x[y.argmax()]), float(y.max())
    (True, 70001.0, 5.0)
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(x) <= 4 * columns:
        return x, y
    place = np.log(x)
    place = (place - place[0]) * (columns / max(place[-1] - place[0], 1e-12))
    column = np.minimum(place.astype(np.int64), columns - 1)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    ends = np.append(starts[1:], len(x)) - 1
    # Sorted by column, then by height: a column's ends are its extremes.
    by_height = np.lexsort((y, column))
    kept = np.unique(np.concatenate([starts, ends, by_height[starts], by_height[ends]]))
    return x[kept], y[kept]
