"""What MLflow exports as CSV: one measurement a line.

The metric page writes ``run_id,key,value,step,timestamp``; charts of an experiment
``Run,Run ID,metric,step,timestamp,value`` (``Group`` for a group of runs), every cell in quotes and
an apostrophe before a minus. A list of ``mlflow.entities.Metric`` as a table has ``key``, ``value``
and ``step``, and in recent versions ``run_id``.
"""

from __future__ import annotations

import csv
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from grokwatch._bounds import BESIDE, lines
from grokwatch._readers.odd_cells import told
from grokwatch._readers.steps import LAST_STEP
from grokwatch._readers.tidy import Logged, Options, brief, make_run
from grokwatch._run import RecordError, Run

_Column = tuple["array[int]", "array[float]", "array[int]"]


class _Line(NamedTuple):
    run: str  # tells runs apart
    title: str  # names them for people, not always differently
    key: str
    value: str
    step: str
    number: int  # of the line


def is_long(header: Collection[str]) -> bool:
    """Whether a header is one that MLflow writes.

    >>> is_long(["Run", "Run ID", "metric", "step", "timestamp", "value"]), is_long(["step", "x"])
    (True, False)
    """
    return {"key", "value", "step"} <= set(header) or {
        "Run ID",
        "metric",
        "value",
        "step",
    } <= set(header)


def read_mlflow(path: Path, options: Options) -> list[Run]:
    """Read the runs of an export; a step or value that is no number is an error."""
    runs: dict[str, dict[str, _Column]] = {}
    titles: dict[str, str] = {}
    for line in _lines(path, options.growing):
        titles.setdefault(line.run, line.title)
        _take(runs.setdefault(line.run, {}), line, f"{path}:{line.number}")
    made = []
    often = Counter(titles.values())
    for run, columns in runs.items():
        title = titles[run]
        if often[title] > 1:
            title = f"{title} ({run})"
        arrays = {
            key: (np.array(steps, dtype=np.int64), np.array(values), np.array(lines))
            for key, (steps, values, lines) in columns.items()
        }
        made.append(make_run(Logged(path, title, arrays), options, "mlflow"))
    return made


def _lines(path: Path, growing: bool) -> Iterator[_Line]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(lines(file, path, BESIDE), strict=True)
        try:
            header = next(reader, [])
            if not is_long(header):
                raise RecordError(
                    f"{path}:1: wanted are run_id, key, value and step; found {brief(header)}."
                )
            at = {name: index for index, name in enumerate(header)}
            key, value, step = at.get("key", at.get("metric", 0)), at["value"], at["step"]
            run = at.get("run_id", at.get("Run ID"))
            title = at.get("Run", at.get("Group", run))
            for row in reader:
                if len(row) == len(header):
                    titled = path.stem if title is None else row[title]
                    one = titled if run is None else row[run] or titled  # a group has no id
                    cells = row[key], row[value].removeprefix("'"), row[step]
                    yield _Line(one, titled, *cells, reader.line_num)
                elif row and not growing:
                    raise RecordError(
                        f"{path}:{reader.line_num}: {len(row)} cells, but the header has "
                        f"{len(header)}."
                    )
        except csv.Error as error:
            raise RecordError(f"{path}:{reader.line_num}: {told(error)}.") from None


def _take(columns: dict[str, _Column], line: _Line, where: str) -> None:
    try:
        number = float(line.value)
    except ValueError:
        raise RecordError(
            f"{where}: {line.key} should be a number but is {line.value!r:.60}."
        ) from None
    try:
        at = int(line.step)
    except ValueError:
        at = -1
    if not 0 <= at <= LAST_STEP:
        raise RecordError(
            f"{where}: step should be a whole number in 0..2^53 but is {line.step!r:.60}."
        )
    steps, values, lines = columns.setdefault(line.key, (array("q"), array("d"), array("q")))
    steps.append(at)
    values.append(number)
    lines.append(line.number)
