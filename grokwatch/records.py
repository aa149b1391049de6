"""Recorded runs: :class:`Run`, and reading and writing it as JSONL or CSV.

CSV: a header, one row a step, an empty cell for "not measured"; settings in a sidecar of the same
stem (``run.csv``, ``run.json``). JSONL: one object a line, told apart by ``type``:

- ``run`` (first line): ``format``, ``settings`` (budget, chance, ...), free ``notes``;
- ``observations``: ``columns``, measurement -> ``steps`` and ``values`` of one chunk; steps are a
  list or ``{"from", "every", "count"}``; NaN and infinities are strings;
- ``verdict``: a verdict change, for people: readers form their own;
- ``resumed``: observations after ``step`` are taken again below and replace the earlier ones; of
  the step itself those named in ``known`` stay.

A line torn by a crash is left out: the last one, or the last before ``resumed``.
"""

from __future__ import annotations

from pathlib import Path

from grokwatch._csv import read_csv, write_csv
from grokwatch._jsonl import read_jsonl
from grokwatch._run import SETTINGS, RecordError, Run

__all__ = ["SETTINGS", "RecordError", "Run", "read_run", "write_csv"]


def read_run(path: str | Path) -> Run:
    """Read a recorded run: ``.jsonl``, ``.csv``, or a folder that holds one ``grokwatch.jsonl``.

    Raises:
        RecordError: no such file, or one that is broken; file and line are named.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "grokwatch.jsonl"
    if not path.is_file():
        raise RecordError(f"{path}: no such file; a recorded run is a .jsonl or .csv file.")
    readers = {".jsonl": read_jsonl, ".csv": read_csv}
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise RecordError(
            f"{path}: cannot read {suffix or 'a file without suffix'}; known: {sorted(readers)}."
        )
    try:
        return readers[suffix](path)
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not a text file ({error}).") from None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error}.") from None
