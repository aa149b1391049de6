"""Recorded runs as CSV with a sidecar; the format is described in :mod:`grokwatch.records`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from grokwatch._jsonl import short
from grokwatch._run import MAX_STEP, SETTINGS, RecordError, Run, RunBuilder, column_order


def read_csv(path: Path) -> Run:
    """Read a CSV and its sidecar, if there is one."""
    builder = RunBuilder()
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            _read_rows(reader, path, builder)
        except csv.Error as error:
            raise RecordError(f"{path}:{reader.line_num}: {error}.") from None
    settings = _read_sidecar(path.with_suffix(".json"))
    notes = {key: settings.pop(key) for key in list(settings) if key not in SETTINGS}
    return builder.run(path.stem, settings, notes)


def _read_rows(reader: Any, path: Path, builder: RunBuilder) -> None:
    header = [name.strip() for name in next(reader, [])]
    if "step" not in header:
        raise RecordError(f"{path}:1: no column 'step'; found {header}.")
    if len(set(header)) < len(header):
        raise RecordError(f"{path}:1: a column name occurs twice: {header}.")
    step_at, last = header.index("step"), -1
    for row in reader:
        where = f"{path}:{reader.line_num}"
        if not row:
            continue
        if len(row) != len(header):
            raise RecordError(f"{where}: {len(row)} cells, but the header has {len(header)}.")
        step = _step(row[step_at], where)
        if step <= last:
            raise RecordError(f"{where}: step {step} does not come after step {last}.")
        last = step
        for name, cell in zip(header, row, strict=True):
            if name != "step" and cell.strip():
                builder.add(name, [step], [_number(cell, where, name)])


def _step(text: str, where: str) -> int:
    try:
        step = int(text)
    except ValueError:
        raise RecordError(f"{where}: step should be a whole number but is {text!r:.60}.") from None
    if not 0 <= step <= MAX_STEP:
        raise RecordError(f"{where}: step must lie in 0..{MAX_STEP} but is {text!r:.60}.")
    return step


def _number(text: str, where: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RecordError(f"{where}: {name} should be a number but is {text!r:.60}.") from None


def _read_sidecar(sidecar: Path) -> dict[str, Any]:
    if not sidecar.is_file():
        return {}
    try:
        settings = json.loads(sidecar.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{sidecar}: not JSON: {error}.") from None
    if not isinstance(settings, dict):
        raise RecordError(f"{sidecar}: must hold one object, but holds {settings!r:.40}.")
    return settings


def write_csv(run: Run, path: str | Path) -> None:
    """Write a run as CSV with its sidecar."""
    path = Path(path)
    names = column_order(run.columns)
    texts = {name: iter(short(run.columns[name][1])) for name in names}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *names])
        for step, row in run.rows():
            writer.writerow([step, *(next(texts[n]) if n in row else "" for n in names)])
    sidecar = json.dumps({**run.notes, **run.settings}, indent=1)
    path.with_suffix(".json").write_text(sidecar + "\n", encoding="utf-8")
