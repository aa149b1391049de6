"""A recorded run in memory, and how readers build one."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from grokwatch._bulk import Rows, order

#: Settings a record may carry; what `Monitor` takes under the same names.
SETTINGS = (
    "budget",
    "chance",
    "learning_rate",
    "weight_decay",
    "train_fraction",
    "max_kill_rate",
    "memorised_at",
    "generalised_at",
)

MAX_STEP = 2**63 - 1


class RecordError(ValueError):
    """A recorded run that cannot be read; the message names file and line."""


@dataclass
class Run:
    """A recorded run.

    Attributes:
        columns: measurement -> (steps int64, values float32), each of shape (n,), steps ascending.
        settings: budget, chance, learning_rate, weight_decay, train_fraction and thresholds, as
            far as known.
        name: for titles.
        notes: anything else worth keeping (seed, task, ...).
        source: where it was read from: ``format``; ``names``, measurement -> the file's own name
            where it differs; ``basis``, sentences on what the numbers are and are not.

    Raises:
        RecordError: steps that do not ascend, shapes that do not fit, unknown settings.

    >>> run = Run({"train_loss": ([1, 2], [0.5, 0.25]), "val_loss": ([2], [0.75])})
    >>> list(run.rows())
    [(1, {'train_loss': 0.5}), (2, {'train_loss': 0.25, 'val_loss': 0.75})]
    """

    columns: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = "run"
    notes: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked = {}
        shared: dict[int, npt.NDArray[np.int64]] = {}  # what several columns share: checked once
        for name, (steps, values) in self.columns.items():
            if id(steps) not in shared:
                shared[id(steps)] = self._ascending(name, np.asarray(steps))
            at = shared[id(steps)]
            with np.errstate(over="ignore"):  # too large for float32 is inf, as at the one door
                numbers = np.asarray(values, dtype=np.float32)
            if at.ndim != 1 or at.shape != numbers.shape:
                raise RecordError(
                    f"{self.name}: column {name} has steps of shape {at.shape} and values of "
                    f"shape {numbers.shape}; both must be (n,)."
                )
            checked[name] = (at, numbers)
        self.columns = checked
        unknown = sorted(set(self.settings) - set(SETTINGS))
        if unknown:
            raise RecordError(f"{self.name}: unknown settings {unknown}; known: {list(SETTINGS)}.")

    def _ascending(self, name: str, steps: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        if steps.size and not np.issubdtype(steps.dtype, np.integer):
            raise RecordError(f"{self.name}: the steps of column {name} are not integers.")
        at = steps.astype(np.int64, copy=False)
        if at.ndim == 1 and at.size and (at[0] < 0 or (at[1:] <= at[:-1]).any()):
            raise RecordError(f"{self.name}: the steps of column {name} do not ascend from 0.")
        return at

    @property
    def last_step(self) -> int:
        """The last step of any column; -1 for an empty run."""
        return max((int(steps[-1]) for steps, _ in self.columns.values() if steps.size), default=-1)

    def rows(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Step and all that was measured at it, in step order, as Monitor.update takes it."""
        return Rows(self.columns).all()


def column_order(columns: Mapping[str, object]) -> list[str]:
    """The names of the columns: what grokwatch knows in its own order, then the others."""
    return sorted(columns, key=order)


class RunBuilder:
    """Collects observations into a :class:`Run`."""

    def __init__(self) -> None:
        self._steps: dict[str, array[int]] = {}
        self._values: dict[str, array[float]] = {}

    def add(self, name: str, steps: Sequence[int], values: Sequence[float]) -> None:
        """Append to one column.

        Raises:
            ValueError: steps that do not ascend, or not as many values as steps.
        """
        if len(steps) != len(values):
            raise ValueError(f"column {name} has {len(steps)} steps and {len(values)} values")
        so_far = self._steps.setdefault(name, array("q"))
        last = so_far[-1] if so_far else -1
        for step in steps:
            if not last < step <= MAX_STEP:
                raise ValueError(f"in column {name} step {step} comes after step {last}")
            last = step
        so_far.extend(steps)
        self._values.setdefault(name, array("f")).extend(values)

    def rewind(self, step: int, known: Sequence[str] | None = None) -> None:
        """Forget everything after ``step``, and at it what is not ``known`` (None = all is)."""
        for name, steps in self._steps.items():
            side = "right" if known is None or name in known else "left"
            keep = int(np.searchsorted(np.array(steps), step, side=side))  # type: ignore[call-overload]
            del steps[keep:], self._values[name][keep:]

    def run(self, name: str, settings: dict[str, Any], notes: dict[str, Any]) -> Run:
        """The run collected so far."""
        columns = {
            key: (np.array(self._steps[key]), np.array(self._values[key])) for key in self._steps
        }
        return Run(columns, settings, name, notes)
