"""From columns as they were logged, in any order and with repeats, to a :class:`Run`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grokwatch._readers.names import guess
from grokwatch._run import RecordError, Run

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """How to read.

    Attributes:
        names: measurement (or "step") -> the file's own name for it; what is missing is guessed.
        growing: the file is being written: a last line without its end is left for later.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    growing: bool = False


@dataclass
class Logged:
    """Columns under their own names.

    Attributes:
        path: the file or folder, for messages.
        name: of the run.
        columns: name -> (steps, values, line numbers), each of shape (n,), in the order logged.
        settings: as in :class:`Run`.
        notes: likewise.
        basis: what is worth knowing about what the numbers are, one sentence each.
    """

    path: Path
    name: str
    columns: dict[str, tuple[IntArray, FloatArray, IntArray]]
    settings: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    basis: list[str] = field(default_factory=list)


def make_run(logged: Logged, options: Options, format: str, percent: tuple[str, ...] = ()) -> Run:
    """Rename, sort, drop what a later line replaced; one warning says what was repaired.

    Args:
        logged: the columns.
        options: names to use before any guess.
        format: the name of the format, kept in the notes.
        percent: columns that hold percentages.

    Raises:
        RecordError: a name of ``options`` that the file does not have.
    """
    for name, column in options.names.items():
        if column not in logged.columns and name != "step":
            raise RecordError(
                f"{logged.path}: --map {name}={column}: there is no column {column!r}; the columns "
                f"are {brief(logged.columns)}."
            )
    names, chosen = taken_names(logged.columns, options.names)
    columns: dict[str, tuple[IntArray, npt.NDArray[np.float32]]] = {}
    back: list[tuple[str, int]] = []
    replaced = 0
    ascending: dict[int, bool] = {}  # columns of one table share their steps: looked at once
    for column, (steps, values, lines) in logged.columns.items():
        if column not in names or not steps.size:
            continue
        name = names[column]
        if column in percent:
            values = values / 100.0
        if id(steps) not in ascending:
            ascending[id(steps)] = bool((steps[1:] > steps[:-1]).all())
        if not ascending[id(steps)]:
            falls = np.flatnonzero(np.diff(steps) < 0)
            if falls.size:
                back.append((column, int(lines[falls[0] + 1])))
            steps, values, lost = _last_of_each_step(steps, values)
            replaced += lost
        with np.errstate(over="ignore"):
            columns[name] = (steps, values.astype(np.float32))
    if back or replaced:
        _tell(logged.path, back, replaced)
    source = source_of(format, chosen, logged.basis)
    return Run(columns, logged.settings, logged.name, logged.notes, source)


def taken_names(
    columns: Iterable[str], given: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The name a run has for each column of a file, and the column of each measurement.

    A column whose own name is that of a measurement read from another column has none.

    >>> taken_names(["train/loss", "loss", "epoch"], {})
    ({'train/loss': 'train_loss', 'loss': 'loss', 'epoch': 'epoch'}, {'train_loss': 'train/loss'})
    """
    columns = list(columns)
    chosen = guess(columns, given)
    taken = {column: name for name, column in chosen.items()}
    names = {c: taken.get(c, c) for c in columns if c in taken or c not in chosen}
    return names, chosen


def source_of(format: str, chosen: Mapping[str, str], basis: Iterable[str]) -> dict[str, Any]:
    """What a run tells of where it was read from."""
    foreign = {name: column for name, column in chosen.items() if name != column}
    return {"format": format, "names": foreign, "basis": list(basis)}


def _last_of_each_step(steps: IntArray, values: FloatArray) -> tuple[IntArray, FloatArray, int]:
    """Sorted, the last value of each step, and how many differing values it replaced.

    >>> _last_of_each_step(np.array([3, 1, 3]), np.array([.5, .25, .75]))
    (array([1, 3]), array([0.25, 0.75]), 1)
    """
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], values[order]
    again = steps[1:] == steps[:-1]
    same = (values[1:] == values[:-1]) | (np.isnan(values[1:]) & np.isnan(values[:-1]))
    keep = np.append(~again, True)
    return steps[keep], values[keep], int((again & ~same).sum())


def _tell(path: Path, back: list[tuple[str, int]], replaced: int) -> None:
    said = []
    if back:
        column, line = back[0]
        where = f":{line}" if line else ""
        said.append(f"{path}{where}: steps go back (column {column!r}); they are sorted")
    if replaced:
        start = "" if said else f"{path}: "
        values = "1 value was" if replaced == 1 else f"{replaced} values were"
        said.append(f"{start}{values} logged again for the same step; the last counts")
    warnings.warn("; ".join(said) + ".", UserWarning, stacklevel=4)


def folder_name(folder: Path) -> str:
    """What a folder's run is called; Lightning's ``version_0`` alone says too little.

    >>> folder_name(Path("logs/sweep/version_0")), folder_name(Path("runs/mod97"))
    ('sweep/version_0', 'mod97')
    """
    above = folder.parent.name
    return f"{above}/{folder.name}" if folder.name.startswith("version_") and above else folder.name


def brief(names: Any, most: int = 12) -> str:
    """Some names in a list that stays short."""
    listed = [f"{name!s:.60}" for name in names]
    more = f", and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more if listed else "none"
