"""Recorded runs: :class:`Run`, reading it from what people have, and writing it as CSV.

Read without options, told apart by their content (``docs/records.md`` has the particulars):
grokwatch's own ``grokwatch.jsonl``; CSV, or JSON lines with one object a step, whose names are
guessed or mapped; Lightning's and openai/grok's ``metrics.csv``; ``trainer_state.json``;
TensorBoard event files; exports of W&B and MLflow; and folders of these.

grokwatch's CSV: a header, one row a step, an empty cell for "not measured"; settings in a sidecar
of the same stem (``run.csv``, ``run.json``). grokwatch's JSONL: one object a line, by ``type``:

- ``run`` (first line): ``format``, ``settings`` (budget, chance, ...), free ``notes``;
- ``observations``: ``columns``, measurement -> ``steps`` and ``values`` of one chunk; steps are a
  list or ``{"from", "every", "count"}``; NaN and infinities are strings;
- ``verdict``: a verdict change, for people: readers form their own;
- ``resumed``: observations after ``step`` are taken again below and replace the earlier ones; of
  the step itself those named in ``known`` stay.

A line torn by a crash is left out: the last one, or the last before ``resumed``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from grokwatch._csv import write_csv
from grokwatch._readers.csv_files import read_csv
from grokwatch._readers.events import read_events
from grokwatch._readers.find import FORMATS, Found, file_format, find_runs
from grokwatch._readers.json_lines import read_json_lines
from grokwatch._readers.tidy import Options, brief
from grokwatch._readers.trainer_state import read_trainer_state
from grokwatch._run import SETTINGS, RecordError, Run
from grokwatch.ingest import MEASUREMENTS

__all__ = ["FORMATS", "SETTINGS", "RecordError", "Run", "read_run", "read_runs", "write_csv"]


def read_run(
    path: str | Path,
    *,
    format: str | None = None,
    names: Mapping[str, str] | None = None,
    run: str | None = None,
    growing: bool = False,
) -> Run:
    """Read the one run that a file or folder holds.

    Args:
        path: a file, or a folder that is walked.
        format: one of :data:`FORMATS`; None = told by the content.
        names: measurement, or "step" -> the name the file has for it; what is missing is guessed.
        run: which run, by name or by path, where there are several.
        growing: the file is being written: half a line at its end is left for later.

    Raises:
        RecordError: no such file, several runs or none, or one that is broken; the message names
            file and line.
    """
    runs = read_runs(path, format=format, names=names, run=run, growing=growing)
    if len(runs) > 1:
        listed = brief([item.name for item in runs])
        raise RecordError(f"{path}: holds {len(runs)} runs: {listed}. Pick one with --run NAME.")
    return runs[0]


def read_runs(
    path: str | Path,
    *,
    format: str | None = None,
    names: Mapping[str, str] | None = None,
    run: str | None = None,
    growing: bool = False,
) -> list[Run]:
    """Read every run that a file or folder holds, at least one; see :func:`read_run`."""
    path = Path(path)
    _check(path, format, names)
    options = Options(dict(names or {}), growing)
    if path.is_dir() and format == "tensorboard" and any(path.glob("*tfevents*")):
        found = [Found(path, format)]
    elif path.is_dir():
        found = [f for f in find_runs(path) if format in (None, f.format)]
        if not found:
            what = f"no {format} run" if format else "no recorded run"
            raise RecordError(
                f"{path}: {what} in this folder; wanted is a .jsonl, .csv, trainer_state.json or "
                f"TensorBoard event file."
            )
    else:
        found = [Found(path, format or file_format(path))]
    runs: list[Run] = []
    for item in found:
        here = _read(item, options)
        if len(found) > 1:  # files of one name: say where
            for one in here:
                where = item.path if item.path.is_dir() else item.path.parent
                inside = where.relative_to(path).as_posix()
                one.name = one.name if inside in (".", "") else _placed(one.name, inside)
        runs += here
    if run is not None:
        wanted = [item for item in runs if item.name == run]
        if not wanted:
            raise RecordError(
                f"{path}: no run called {run!r}; there are {brief([r.name for r in runs])}."
            )
        return wanted
    if not runs:
        raise RecordError(f"{path}: the record holds no observations.")
    return runs


def _placed(name: str, inside: str) -> str:
    return inside if inside.endswith(name) or name.endswith(inside) else f"{inside}/{name}"


def _check(path: Path, format: str | None, names: Mapping[str, str] | None) -> None:
    if format is not None and format not in FORMATS:
        raise RecordError(f"unknown format {format!r}; known: {', '.join(FORMATS)}.")
    if not path.exists():
        raise RecordError(f"{path}: no such file or folder.")
    if not path.is_file() and not path.is_dir():
        raise RecordError(f"{path}: neither a file nor a folder; write what it gives to a file.")
    for name in names or ():
        if not name or (name not in MEASUREMENTS and not name.isidentifier() and name != "step"):
            raise RecordError(
                f"--map {name}=...: {name!r} is no measurement; known: step, "
                f"{', '.join(MEASUREMENTS)}."
            )


def _read(found: Found, options: Options) -> list[Run]:
    path, format = found.path, found.format
    try:
        if format in ("csv", "lightning", "grok", "wandb", "mlflow"):
            return read_csv(path, options, format)
        if format in ("jsonl", "rows"):
            return read_json_lines(path, options, format)
        if format == "trainer_state":
            return read_trainer_state(path, options)
        return read_events(path, options)
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}: not a text file ({error}).") from None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error}.") from None
