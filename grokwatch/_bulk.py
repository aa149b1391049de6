"""Many rows at once through the monitor's door: whole slices where nothing can happen.

Between two evaluations most rows change no verdict; they are told by ranges, a column at a time.
All others go through :meth:`Monitor.update`, so that there is one rule, not two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from grokwatch.ingest import MEASUREMENTS
from grokwatch.verdict import Verdict

if TYPE_CHECKING:
    from grokwatch.monitor import Monitor

_FEWEST, _MOST = 64, 65_536  # rows looked at together; memory stays bounded
_SINGLY = 32  # most rows taken one by one before slices are tried again
_PAYS = 8  # a slice of fewer rows costs more than the rows one by one

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Piece = dict[str, tuple[IntArray, FloatArray]]  # measurement -> steps and values of some rows


class Rows:
    """Columns side by side: which measurements belong to which step.

    Args:
        columns: measurement -> (steps, values), each of shape (n,), steps ascending.

    Raises:
        ValueError: steps that do not ascend, or shapes that do not fit.

    >>> rows = Rows({"train_loss": ([1, 2], [.5, .25]), "val_loss": ([2], [.75])})
    >>> list(rows.all())
    [(1, {'train_loss': 0.5}), (2, {'train_loss': 0.25, 'val_loss': 0.75})]
    """

    def __init__(self, columns: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]) -> None:
        self.columns: dict[str, tuple[IntArray, npt.NDArray[Any]]] = {}
        shared: dict[int, IntArray] = {}  # steps of several columns: checked once
        for name in sorted(columns, key=order):
            given, values = columns[name][0], np.asarray(columns[name][1])
            at = shared[id(given)] if id(given) in shared else np.asarray(given)
            if at.ndim != 1 or at.shape != values.shape:
                raise ValueError(
                    f"column {name} has steps of shape {at.shape} and values of shape "
                    f"{values.shape}; both must be (n,)."
                )
            if id(given) not in shared:
                whole = not at.size or np.issubdtype(at.dtype, np.integer)
                if not whole or (at[1:] <= at[:-1]).any():
                    raise ValueError(f"the steps of column {name} must be integers that ascend.")
                shared[id(given)] = at.astype(np.int64, copy=False)
            if at.size:
                self.columns[name] = (shared[id(given)], values)
        self.steps = merged_steps([at for at, _ in self.columns.values()])

    def __len__(self) -> int:
        return len(self.steps)

    def step(self, row: int) -> int:
        """The step of a row."""
        return int(self.steps[row])

    def at(self, step: int) -> int:
        """The first row at or after a step."""
        return int(np.searchsorted(self.steps, step))

    def all(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Step and all that was measured at it, in the monitor's order."""
        steps = self.steps[start:stop].tolist()
        if not steps:
            return
        parts = []
        for name, (at, values) in self.columns.items():
            first, last = np.searchsorted(at, (steps[0], steps[-1] + 1))
            parts.append((name, at[first:last].tolist(), values[first:last].tolist()))
        index = [0] * len(parts)
        for step in steps:
            row = {}
            for column, (name, at, values) in enumerate(parts):
                here = index[column]
                if here < len(at) and at[here] == step:
                    row[name] = values[here]
                    index[column] = here + 1
            yield step, row

    def quiet(
        self,
        start: int,
        stop: int,
        before: int,
        ranges: Mapping[str, tuple[float, float]],
        percent: bool,
    ) -> Piece:
        """The rows from ``start`` on, before a step, as far as all values lie in the ranges.

        Values are rounded to float32, as at the door.
        """
        stop = min(stop, len(self), self.at(before))
        piece: Piece = {}
        if stop <= start:
            return piece
        begin = int(self.steps[start])
        end = stopped = int(self.steps[stop - 1]) + 1
        shared: dict[int, tuple[int, IntArray]] = {}  # steps of several columns: cut once
        for name, (at, values) in self.columns.items():
            if id(at) not in shared:
                first, last = at.searchsorted((begin, stopped))
                shared[id(at)] = (first, at[first:last])
            first, steps = shared[id(at)]
            if not len(steps):
                continue
            numbers = self._rounded(name, values[first : first + len(steps)], percent)
            piece[name] = (steps, numbers.astype(np.float64))
            low, high = ranges.get(name, (1.0, 0.0))
            if not (low <= float(numbers.min()) and float(numbers.max()) <= high):  # NaN too
                exact = piece[name][1]
                wanted = np.flatnonzero(~((exact >= low) & (exact <= high)))
                end = min(end, int(steps[wanted[0]]))
        return piece if end == stopped else before_step(piece, end)

    @staticmethod
    def _rounded(name: str, values: npt.NDArray[Any], percent: bool) -> npt.NDArray[np.float32]:
        if percent and name != "chance" and MEASUREMENTS.get(name) == "fraction":
            values = values.astype(np.float64) / 100.0
        with np.errstate(over="ignore"):  # too large for float32 is inf
            return values.astype(np.float32, copy=False)


def before_step(piece: Piece, step: int) -> Piece:
    """What came before a step; columns without anything are left out.

    >>> before_step({"train_loss": (np.array([3, 5]), np.array([.5, .25]))}, 5)
    {'train_loss': (array([3]), array([0.5]))}
    """
    found = {}
    shared: dict[int, IntArray] = {}
    for name, (steps, values) in piece.items():
        if id(steps) not in shared:
            shared[id(steps)] = steps[: int(steps.searchsorted(step))]
        before = shared[id(steps)]
        if len(before):
            found[name] = (before, values[: len(before)])
    return found


def merged_steps(columns: list[IntArray]) -> IntArray:
    """All steps that occur in columns of ascending steps, ascending.

    >>> merged_steps([np.array([1, 3]), np.array([2, 3])])
    array([1, 2, 3])
    """
    merged = max(columns, key=len, default=np.empty(0, dtype=np.int64))
    for steps in columns:
        if steps is merged or np.array_equal(steps, merged):
            continue
        at = np.minimum(np.searchsorted(merged, steps), len(merged) - 1)
        new = steps[merged[at] != steps]
        if new.size:
            merged = np.sort(np.concatenate([merged, new]), kind="stable")
    return merged


def extend(
    monitor: Monitor, columns: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]] | Rows
) -> list[Verdict]:
    """See :meth:`Monitor.extend`."""
    rows = columns if isinstance(columns, Rows) else Rows(columns)
    verdicts: list[Verdict] = []
    last = monitor.verdict
    singly = bool(monitor.own_inputs & rows.columns.keys())  # a signal of one's own sees every row
    row, most, few = 0, _FEWEST, 1
    while row < len(rows):
        taken = 0 if singly else monitor._take_quiet(rows, row, most)
        row += taken
        most = min(max(2 * taken, _FEWEST), _MOST)
        few = 1 if taken >= _PAYS else min(2 * few, _SINGLY)
        for step, measured in rows.all(row, row + few):
            try:
                verdict = monitor.update(step, **measured)
            except (TypeError, ValueError) as error:
                raise type(error)(f"step {step}: {error}") from error
            row += 1
            if verdict is not last:
                if verdicts and verdicts[-1].step == verdict.step:
                    verdicts.pop()
                verdicts.append(verdict)
                last = verdict
    return verdicts


_ORDER = {name: index for index, name in enumerate(MEASUREMENTS)}


def order(name: str) -> tuple[int, str]:
    """Sort key: what grokwatch knows in its own order, then the others by name."""
    return (_ORDER.get(name, len(_ORDER)), name)
