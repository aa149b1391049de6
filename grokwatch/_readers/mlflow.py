"""MLflow's "Download data as CSV": one measurement a line, ``run_id,key,value,step,timestamp``."""

from __future__ import annotations

import csv
from array import array
from pathlib import Path

import numpy as np

from grokwatch._readers.tidy import Logged, Options, brief, make_run
from grokwatch._run import RecordError, Run

LONG = {"run_id", "key", "value", "step"}

_Column = tuple["array[int]", "array[float]", "array[int]"]


def read_mlflow(path: Path, options: Options) -> list[Run]:
    """Read the runs of an export; a step or value that is no number is an error."""
    runs: dict[str, dict[str, _Column]] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            if not set(header) >= LONG:
                raise RecordError(f"{path}:1: wanted are {sorted(LONG)}; found {brief(header)}.")
            at = [header.index(name) for name in ("run_id", "key", "value", "step")]
            for row in reader:
                if len(row) == len(header):
                    _take(runs, [row[index] for index in at], f"{path}:{reader.line_num}")
                elif row and not options.growing:
                    raise RecordError(
                        f"{path}:{reader.line_num}: {len(row)} cells, but the header has "
                        f"{len(header)}."
                    )
        except csv.Error as error:
            raise RecordError(f"{path}:{reader.line_num}: {error}.") from None
    made = []
    for run, columns in runs.items():
        arrays = {
            key: (np.array(steps, dtype=np.int64), np.array(values), np.array(lines))
            for key, (steps, values, lines) in columns.items()
        }
        made.append(make_run(Logged(path, run, arrays), options, "mlflow"))
    return made


def _take(runs: dict[str, dict[str, _Column]], row: list[str], where: str) -> None:
    run, key, value, step = row
    try:
        number = float(value)
    except ValueError:
        raise RecordError(f"{where}: {key} should be a number but is {value!r:.60}.") from None
    try:
        at = int(step)
    except ValueError:
        at = -1
    if not 0 <= at <= 2**53:
        raise RecordError(f"{where}: step should be a whole number in 0..2^53 but is {step!r:.60}.")
    columns = runs.setdefault(run, {})
    steps, values, lines = columns.setdefault(key, (array("q"), array("d"), array("q")))
    steps.append(at)
    values.append(number)
    lines.append(int(where.rsplit(":", 1)[1]))
