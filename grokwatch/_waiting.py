"""Rows that can change no verdict wait here, so that the signals take many of them at once."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from grokwatch.analyzer import Analyzer
from grokwatch.ingest import MEASUREMENTS

_MANY = 64  # from here on signals take arrays faster than lists
_NOTHING = (1.0, 0.0)  # an empty range

Column = tuple["array[int]", "array[float]"]  # steps and values


class Waiting:
    """The rows put by since the signals were last handed any, a column for each measurement.

    Attributes:
        rows: how many wait.
        room: how many may wait; 0 = every row is wanted at once.

    >>> waiting = Waiting()
    >>> waiting.rows < waiting.room
    False
    """

    __slots__ = (
        "_accuracy",
        "_columns",
        "_loss",
        "_put_accuracy",
        "_put_loss",
        "_ranges",
        "room",
        "rows",
    )

    def __init__(self) -> None:
        self.rows = self.room = 0
        self._columns: dict[str, Column] = {n: (array("q"), array("f")) for n in MEASUREMENTS}
        self._ranges: dict[str, tuple[float, float]] = {}
        self._loss = self._accuracy = _NOTHING
        self._put_loss = _putters(self._columns["train_loss"])
        self._put_accuracy = _putters(self._columns["train_accuracy"])

    def plan(self, analyzer: Analyzer, percent: bool, at_once: bool) -> None:
        """Ask which rows can change no verdict from now on.

        Args:
            analyzer: has been handed all that waited.
            percent: accuracies arrive as 0..100, and are converted elsewhere.
            at_once: every row is wanted.
        """
        self.room, self._ranges = (0, {}) if at_once else analyzer.quiet_rows()
        if percent:
            for name, kind in MEASUREMENTS.items():
                if kind == "fraction":
                    self._ranges.pop(name, None)
        self._loss = self._ranges.get("train_loss", _NOTHING)
        self._accuracy = self._ranges.get("train_accuracy", _NOTHING)

    def take_loss(self, step: int, loss: Any, accuracy: Any) -> bool:
        """:meth:`take` of a loss with or without an accuracy: what comes at every step."""
        low, high = self._loss
        if type(loss) is not float or not low <= loss <= high:
            return False
        if accuracy is not None:
            low, high = self._accuracy
            if type(accuracy) is not float or not low <= accuracy <= high:
                return False
            put_step, put_value = self._put_accuracy
            put_step(step)
            put_value(accuracy)
        put_step, put_value = self._put_loss
        put_step(step)
        put_value(loss)
        self.rows += 1
        return True

    def take(self, step: int, row: Mapping[str, Any]) -> bool:
        """Put a row by and say so, or leave it be; it is not empty, and its step is new."""
        for name, value in row.items():
            low, high = self._ranges.get(name, _NOTHING)
            if type(value) is not float or not low <= value <= high:
                return False
        for name, value in row.items():
            steps, values = self._columns[name]
            steps.append(step)
            values.append(value)
        self.rows += 1
        return True

    def hand_over(self, analyzer: Analyzer, last: int) -> dict[str, float]:
        """Hand what waits to the signals; gives the row of the step ``last``.

        No row may wait again until :meth:`plan` has asked anew.
        """
        row: dict[str, float] = {}
        for name, (steps, values) in self._columns.items():
            count = min(len(steps), len(values))  # a Ctrl-C may have come between the two
            if count:
                at, kept = steps[:count], values[:count]
                del steps[:], values[:]
                if at[-1] == last:
                    row[name] = kept[-1]
                many = count >= _MANY
                analyzer.extend_quiet(
                    name,
                    np.array(at, dtype=np.int64) if many else at.tolist(),
                    np.array(kept, dtype=np.float64) if many else kept.tolist(),
                )
        self.rows = self.room = 0
        return row


def _putters(column: Column) -> tuple[Callable[[int], None], Callable[[float], None]]:
    """What appends to both arrays of a column; they stay the same arrays."""
    return column[0].append, column[1].append
