"""A curve of any length in fixed memory that keeps its bends.

Measurements are averaged ``stride`` at a time into points; the stride grows with the run. When the
points reach ``capacity``, the quarter of them that lie nearest to a neighbour on the chart of
value against log step are merged into that neighbour. Merging all pairs alike would blur an early
jump as the run goes on: a training jump at step 200 is less than one point wide after 10^5 steps.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grokwatch._sums import add_all, add_rows
from grokwatch.state import decode, encode, take

FloatArray = npt.NDArray[np.float64]

#: A difference of 0.05 in accuracy counts as much as one of 5 % in the step.
_FEW = 100  # up to here the plain loop is faster than numpy
_VALUE_UNIT = 0.05
_LOG_STEP_UNIT = 0.05
_ARRAYS = (("steps", "d"), ("values", "f"), ("counts", "f"))
_NUMBERS = ("capacity", "count", "stride", "pending", "step_sum", "value_sum")


class MergedCurve:
    """Means of neighbouring measurements, at most ``capacity`` of them.

    The points depend on the measurements alone, not on how their arrival was grouped.

    Args:
        capacity: most points kept, at least 16.

    Raises:
        ValueError: for a smaller capacity.

    >>> curve = MergedCurve(16)
    >>> curve.extend(range(10_000), [step >= 5000 for step in range(10_000)])
    >>> steps, values, counts = curve.points()
    >>> len(steps), int(counts.sum()), float(values[steps < 4900].max()), float(values[-1])
    (16, 10000, 0.0, 1.0)
    """

    def __init__(self, capacity: int = 256) -> None:
        if capacity < 16:
            raise ValueError(f"capacity must be at least 16 points but is {capacity}.")
        self._capacity = capacity
        self._reset()

    def _reset(self) -> None:
        self._count = 0  # measurements in points
        self._stride = 1
        self._pending = 0  # measurements not yet in a point
        self._step_sum = self._value_sum = 0.0
        self._steps, self._values, self._counts = array("d"), array("f"), array("f")

    @property
    def count(self) -> int:
        """Measurements taken so far."""
        return self._count + self._pending

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: float, value: float) -> None:
        """Take one measurement; one that is not finite is left out."""
        if value - value != 0.0:
            return
        self._step_sum += step
        self._value_sum += value
        self._pending += 1
        if self._pending >= self._stride:
            n = self._pending
            self._steps.append(self._step_sum / n)
            self._values.append(self._value_sum / n)
            self._counts.append(n)
            self._pending = 0
            self._step_sum = self._value_sum = 0.0
            self._grown(n)

    def extend(
        self,
        steps: Sequence[float] | npt.NDArray[Any],
        values: Sequence[float] | npt.NDArray[Any],
    ) -> None:
        """Take several measurements, bit for bit as if one by one."""
        if isinstance(values, list) and len(values) == len(steps) <= _FEW:
            for step, value in zip(steps, values, strict=True):
                self.add(step, value)
            return
        x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(
                f"steps and values must be one-dimensional and of one length but their shapes are "
                f"{x.shape} and {y.shape}."
            )
        finite = np.isfinite(y)
        if not finite.all():
            x, y = x[finite], y[finite]
        at = 0
        while at < len(x):
            size = self._stride
            whole = min((len(x) - at) // size, self._capacity - len(self), self._until_wider())
            if self._pending or not whole:
                at = self._add_some(x, y, at)
                continue
            block = slice(at, at + whole * size)
            self._steps.extend((add_rows(x[block].reshape(whole, size)) / size).tolist())
            self._values.extend((add_rows(y[block].reshape(whole, size)) / size).tolist())
            self._counts.extend([size] * whole)
            at += whole * size
            self._grown(whole * size)

    def _add_some(self, x: FloatArray, y: FloatArray, at: int) -> int:
        """Take measurements from ``at`` on into the point begun; where the next begins."""
        stop = min(at + max(1, self._stride - self._pending), len(x))
        last = stop - 1  # goes by `add`, which knows when a point is full
        if last > at:
            self._step_sum = add_all(self._step_sum, x[at:last])
            self._value_sum = add_all(self._value_sum, y[at:last])
            self._pending += last - at
        self.add(float(x[last]), float(y[last]))
        return stop

    def points(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean steps, mean values and counts, each (n,), ascending in step; all measurements."""
        steps, values, counts = self._copies()
        if self._pending:
            steps = np.append(steps, self._step_sum / self._pending)
            values = np.append(values, self._value_sum / self._pending)
            counts = np.append(counts, float(self._pending))
        if len(steps) > 1 and np.diff(steps).min() < 0.0:  # a resumed run went back once
            order = np.argsort(steps, kind="stable")
            steps, values, counts = steps[order], values[order], counts[order]
        return steps, values, counts

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON-able state, about 20 bytes a point."""
        numbers = {name: getattr(self, f"_{name}") for name in _NUMBERS}
        return numbers | {name: encode(getattr(self, f"_{name}")) for name, _ in _ARRAYS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; ValueError where it is incomplete or does not fit."""
        numbers = {name: take(state, name) for name in _NUMBERS}
        arrays = {name: array(code, decode(take(state, name))) for name, code in _ARRAYS}
        if numbers["capacity"] != self._capacity:
            raise ValueError(
                f"the saved curve has a capacity of {numbers['capacity']} points but this one has "
                f"{self._capacity}; construct it with the saved capacity."
            )
        if len({len(kept) for kept in arrays.values()}) != 1:
            raise ValueError("the saved curve's steps, values and counts differ in length.")
        for name, value in numbers.items():
            setattr(self, f"_{name}", value)
        for name, kept in arrays.items():
            setattr(self, f"_{name}", kept)

    def _until_wider(self) -> int:
        """Points until the stride doubles."""
        return math.ceil((4 * self._capacity * self._stride - self._count) / self._stride)

    def _grown(self, measurements: int) -> None:
        self._count += measurements
        if len(self) >= self._capacity:
            self._merge()
        if self._count >= 4 * self._capacity * self._stride:
            self._stride *= 2

    def _merge(self) -> None:
        steps, values, counts = self._copies()
        near = (np.diff(values) / _VALUE_UNIT) ** 2
        near += (np.diff(np.log1p(np.maximum(steps, 0.0))) / _LOG_STEP_UNIT) ** 2
        free = [True] * len(steps)
        left = []
        for i in np.argsort(near, kind="stable").tolist():
            if free[i] and free[i + 1]:
                free[i] = free[i + 1] = False
                left.append(i)
                if 4 * len(left) >= self._capacity:
                    break
        a = np.array(left)
        b = a + 1
        both = counts[a] + counts[b]
        for means in (steps, values):
            means[a] = (counts[a] * means[a] + counts[b] * means[b]) / both
        counts[a] = both
        kept = np.full(len(steps), True)
        kept[b] = False
        self._steps = array("d", steps[kept].tobytes())
        self._values = array("f", values[kept].astype(np.float32).tobytes())
        self._counts = array("f", counts[kept].astype(np.float32).tobytes())

    def _copies(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        return (
            np.array(self._steps, dtype=np.float64),
            np.array(self._values, dtype=np.float64),
            np.array(self._counts, dtype=np.float64),
        )
