"""Fixed-memory history: a recent window at full resolution and the whole run in log-time bins.

25 bins a decade hold a run of 10^7 steps in about 160 bins per measurement, evenly spaced on
the axis on which grokking is a straight story: log time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grokwatch._sums import add_all
from grokwatch.state import decode, encode, take

FloatArray = npt.NDArray[np.float64]
Steps = Sequence[int] | npt.NDArray[np.int64]
Values = Sequence[float] | FloatArray


def log_grid(per_decade: int = 25, decades: int = 15) -> tuple[int, ...]:
    """Distinct integer steps, ``per_decade`` to the decade: 0, 1, 2, ... 9, 10, 11, 12, 13, 14.

    >>> log_grid(per_decade=3, decades=2)
    (0, 1, 2, 5, 10, 22, 46, 100)
    """
    return tuple(
        sorted({0} | {round(10 ** (k / per_decade)) for k in range(decades * per_decade + 1)})
    )


#: The fixed grid of verdicts and of the history's bins.
GRID = log_grid()


def next_on_grid(step: int) -> int:
    """The first grid step after ``step``."""
    return GRID[min(bisect_right(GRID, step), len(GRID) - 1)]


class LogBins:
    """Means of one measurement in log-time bins, in fixed memory.

    A bin runs from one step of :data:`GRID` to the next; it holds the mean step and the mean
    value of what fell into it. Non-finite values are left out. Sums run in arrival order, so the
    result does not depend on how arrivals were grouped.

    >>> bins = LogBins()
    >>> for step in range(1, 13): bins.add(step, 2.0 * step)
    >>> bins.points()[0][-3:], bins.points()[1][-3:]
    (array([10., 11., 12.]), array([20., 22., 24.]))
    """

    __slots__ = (
        "_count",
        "_edge",
        "_points",
        "_step_sum",
        "_steps",
        "_sum",
        "_values",
        "count",
        "last",
    )

    def __init__(self) -> None:
        self._steps = array("d")
        self._values = array("d")
        self._edge = 0
        self._count = 0
        self._step_sum = 0
        self._sum = 0.0
        self._points: tuple[FloatArray, FloatArray] | None = None
        self.count = 0  # finite measurements so far
        self.last: tuple[int, float] | None = None

    def add(self, step: int, value: float) -> None:
        """Take one measurement; steps never fall."""
        self.extend((step,), (value,))

    def extend(self, steps: Steps, values: Values) -> None:
        """Take several measurements, as if one by one; arrays are taken at once."""
        self._points = None
        if isinstance(values, np.ndarray):
            numbers = np.asarray(values, dtype=np.float64)
            self._extend_arrays(np.asarray(steps, dtype=np.int64), numbers)
            return
        edge, count, step_sum, total = self._edge, self._count, self._step_sum, self._sum
        kept = 0
        for step, value in zip(steps, values, strict=True):
            if value - value != 0.0:  # NaN or inf
                continue
            if step >= edge:
                if count:
                    self._steps.append(step_sum / count)
                    self._values.append(total / count)
                edge = next_on_grid(step)
                count, step_sum, total = 0, 0, 0.0
            count += 1
            step_sum += step
            total += value
            kept += 1
            self.last = (step, value)
        self._edge, self._count, self._step_sum, self._sum = edge, count, step_sum, total
        self.count += kept

    def _extend_arrays(self, steps: npt.NDArray[np.int64], values: FloatArray) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            steps, values = steps[finite], values[finite]
        at = 0
        while at < len(steps):
            first = int(steps[at])
            if first >= self._edge:
                if self._count:
                    self._steps.append(self._step_sum / self._count)
                    self._values.append(self._sum / self._count)
                self._edge = next_on_grid(first)
                self._count, self._step_sum, self._sum = 0, 0, 0.0
            stop = max(int(np.searchsorted(steps, self._edge)), at + 1)
            self._sum = add_all(self._sum, values[at:stop])
            self._step_sum += first * (stop - at) + int((steps[at:stop] - first).sum())
            self._count += stop - at
            at = stop
        if at:
            self.count += at
            self.last = (int(steps[-1]), float(values[-1]))

    def points(self) -> tuple[FloatArray, FloatArray]:
        """Mean step and mean value of every bin, the open one included; each of shape (n,)."""
        if self._points is None:
            n = len(self._steps)
            steps, values = np.empty(n + (self._count > 0)), np.empty(n + (self._count > 0))
            steps[:n], values[:n] = self._steps, self._values
            if self._count:
                steps[n] = self._step_sum / self._count
                values[n] = self._sum / self._count
            steps.flags.writeable = values.flags.writeable = False  # asked for again and again
            self._points = (steps, values)
        return self._points

    def state_dict(self) -> dict[str, object]:
        """Plain, JSON-able state."""
        return {
            "steps": encode(self._steps),
            "values": encode(self._values),
            "open": [self._edge, self._count, self._step_sum, self._sum],
            "count": self.count,
            "last": self.last,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._steps = array("d", decode(take(state, "steps")))
        self._values = array("d", decode(take(state, "values")))
        self._edge, self._count, self._step_sum, self._sum = take(state, "open")
        self._points = None
        self.count = take(state, "count")
        last = take(state, "last")
        self.last = None if last is None else (last[0], last[1])


class Window:
    """The last ``size`` measurements at full resolution: ``steps`` and ``values``.

    >>> window = Window(3)
    >>> window.extend([1, 2, 3, 4], [.5, .25, .125, .0])
    >>> window.values
    array([0.25 , 0.125, 0.   ])
    """

    __slots__ = ("_end", "_steps", "_values", "size")

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a window needs a size of at least 1 but got {size}.")
        self.size = size
        self._steps = np.empty(2 * size, dtype=np.int64)
        self._values = np.empty(2 * size, dtype=np.float32)
        self._end = 0

    def __len__(self) -> int:
        return min(self._end, self.size)

    @property
    def steps(self) -> npt.NDArray[np.int64]:
        """Steps, oldest first; a view, valid until the next ``extend``."""
        return self._steps[max(0, self._end - self.size) : self._end]

    @property
    def values(self) -> FloatArray:
        """Values, oldest first, as float64."""
        return self._values[max(0, self._end - self.size) : self._end].astype(np.float64)

    def extend(self, steps: Steps, values: Values) -> None:
        """Append measurements; the oldest fall out."""
        steps, values = steps[-self.size :], values[-self.size :]
        n = len(steps)
        if self._end + n > 2 * self.size:  # slide the live part to the front
            keep = min(self._end, self.size)
            self._steps[:keep] = self._steps[self._end - keep : self._end]
            self._values[:keep] = self._values[self._end - keep : self._end]
            self._end = keep
        self._steps[self._end : self._end + n] = steps
        self._values[self._end : self._end + n] = values
        self._end += n

    def clear(self) -> None:
        """Forget everything."""
        self._end = 0

    def state_dict(self) -> dict[str, object]:
        """Plain, JSON-able state."""
        return {"steps": encode(self.steps), "values": encode(self.values.astype(np.float32))}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.clear()
        self.extend(decode(take(state, "steps")).tolist(), decode(take(state, "values")).tolist())


class History:
    """Log-time bins for every measurement that has arrived."""

    def __init__(self) -> None:
        self.bins: dict[str, LogBins] = {}

    def __getitem__(self, name: str) -> LogBins:
        """The bins of a measurement, empty if it never arrived."""
        return self.bins.get(name) or LogBins()

    def extend(self, name: str, steps: Steps, values: Values) -> None:
        """Take measurements of one kind, in step order."""
        if name not in self.bins:
            self.bins[name] = LogBins()
        self.bins[name].extend(steps, values)

    def state_dict(self) -> dict[str, object]:
        """Plain, JSON-able state."""
        return {name: bins.state_dict() for name, bins in self.bins.items()}

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.bins = {}
        for name, bins in state.items():
            self.bins[name] = LogBins()
            self.bins[name].load_state_dict(bins)
