"""The step of every row of a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from grokwatch._readers.table import Table
from grokwatch._readers.tidy import IntArray
from grokwatch._run import RecordError

LAST_STEP = 2**53  # beyond, a number in a text is no longer exact


def steps_of_rows(
    path: Path, table: Table, name: str, rows: IntArray | None = None, what: str | None = None
) -> IntArray:
    """The steps that a column gives for some rows.

    Args:
        path: the file, for messages.
        table: its content.
        name: the column.
        rows: the rows wanted, ascending; None = all.
        what: what to call the column; None = the step, and its name if that is another.

    Raises:
        RecordError: a step that is no whole number, negative, or missing.
    """
    column = table.columns[name]
    what = what or ("step" if name == "step" else f"the step ({name})")
    if column.text is not None:
        line, text = column.text
        raise RecordError(f"{path}:{line}: {what} should be a whole number but is {text!r:.60}.")
    wanted = np.arange(len(table.lines)) if rows is None else rows
    values, lines = column.values, table.lines
    if rows is not None or len(column.rows) < len(wanted):
        missing = np.setdiff1d(wanted, column.rows)
        if missing.size:
            raise RecordError(f"{path}:{lines[missing[0]]}: {what} is missing.")
        values, lines = values[np.searchsorted(column.rows, wanted)], lines[wanted]
    with np.errstate(invalid="ignore"):
        broken = np.flatnonzero(values != np.floor(values))
        beyond = np.flatnonzero(~((values >= 0) & (values <= LAST_STEP)))
    if broken.size and np.isfinite(values[broken[0]]):
        line, value = lines[broken[0]], float(values[broken[0]])
        raise RecordError(f"{path}:{line}: {what} should be a whole number but is '{value!r}'.")
    if beyond.size:
        line, value = lines[beyond[0]], float(values[beyond[0]])
        raise RecordError(f"{path}:{line}: {what} must lie in 0..2^53 but is {value!r}.")
    return values.astype(np.int64)
