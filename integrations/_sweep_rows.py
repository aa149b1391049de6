"""The rows of one trial as they count: checked, and forgotten where the trial went back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from grokwatch._jsonl import pack_steps
from grokwatch._run import RunBuilder
from grokwatch.ingest import check_measurement, check_step
from grokwatch.records import Run
from grokwatch.state import decode, encode, take

#: Told the name of a measurement that was wrong, and what is wrong with it.
Refuse = Callable[[str, Exception], None]


class TrialRows:
    """Takes rows in the order in which they were reported.

    A trial that an engine takes up again from a checkpoint reports steps it has reported before:
    what had come at or after that step is then forgotten.

    Args:
        percent: accuracies arrive as 0..100; kept are fractions.
        refuse: told of wrong measurements, which are left out from then on.

    >>> rows = TrialRows(False, print)
    >>> for step, loss in [(10, 4.0), (20, 2.0), (30, 1.0), (20, 2.5)]:
    ...     back, new = rows.take(step, {"train_loss": loss})
    >>> back, list(rows.run("a", {}).rows())
    (True, [(10, {'train_loss': 4.0}), (20, {'train_loss': 2.5})])
    """

    def __init__(self, percent: bool, refuse: Refuse) -> None:
        self._percent, self._refuse = percent, refuse
        self._refused: set[str] = set()
        self._builder = RunBuilder()
        self._row: dict[str, float] = {}
        self.last = -1  # the last step; -1 = none yet

    def take(self, step: int, measured: Mapping[str, Any]) -> tuple[bool, dict[str, float]]:
        """Whether the trial went back, and what of a row is new and counts.

        Raises:
            TypeError, ValueError: a step that is none.
        """
        step, row = check_step(step), self._checked(measured)
        back = step < self.last or (step == self.last and self._contradicts(row))
        if back:
            self._builder.rewind(step, known=())
            self.last, self._row = step, {}
        if step > self.last:
            self.last, self._row = step, {}
        new = {name: value for name, value in row.items() if name not in self._row}
        self._row.update(new)
        for name, value in new.items():
            self._builder.add(name, [step], [value])
        return back, new

    def _checked(self, measured: Mapping[str, Any]) -> dict[str, float]:
        row: dict[str, float] = {}
        for name, value in measured.items():
            if value is None or name in self._refused:
                continue
            try:
                number = check_measurement(name, value, self._percent)
            except (TypeError, ValueError) as error:
                self._refused.add(name)
                self._refuse(name, error)
                continue
            if number is not None:
                row[name] = number
        return row

    def _contradicts(self, row: Mapping[str, float]) -> bool:
        pairs = [(self._row[name], value) for name, value in row.items() if name in self._row]
        return any(a != b and not (math.isnan(a) and math.isnan(b)) for a, b in pairs)

    def run(self, name: str, settings: Mapping[str, Any]) -> Run:
        """The rows so far as a run."""
        return self._builder.run(name, dict(settings), {})

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state: measurement -> steps and values."""
        return {
            name: {"steps": pack_steps(steps.tolist()), "values": encode(values)}
            for name, (steps, values) in self.run("", {}).columns.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved rows, in place of any there are.

        Raises:
            ValueError: a missing key, which is named.
        """
        self._builder = RunBuilder()
        for name, packed in state.items():
            steps = take(packed, "steps")
            if isinstance(steps, Mapping):
                start, every = steps["from"], steps["every"]
                steps = range(start, start + every * steps["count"], every)
            values = decode(take(packed, "values")).astype(np.float64).tolist()
            self._builder.add(name, steps, values)
        run = self.run("", {})
        self.last, self._row = run.last_step, {}
        for name, (at, values) in run.columns.items():
            if at.size and at[-1] == self.last:
                self._row[name] = float(values[-1])
