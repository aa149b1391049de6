"""JSON lines: grokwatch's own record, or one flat object a step as many loops write them."""

from __future__ import annotations

import warnings
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from grokwatch._bounds import lines, parsed
from grokwatch._jsonl import read_jsonl
from grokwatch._readers.names import guess, guess_step
from grokwatch._readers.tidy import Logged, Options, brief, make_run
from grokwatch._run import RecordError, Run
from grokwatch.ingest import as_float


def jsonl_format(path: Path) -> str:
    """The format of JSON lines: jsonl (grokwatch's own record) or rows (one object a step)."""
    with path.open("rb") as file:
        first = next((line for line in lines(file, path) if line.strip()), b"")
    try:
        line = parsed(first)
    except (ValueError, RecursionError):
        return "jsonl"
    return "rows" if isinstance(line, dict) and "type" not in line else "jsonl"


def read_json_lines(path: Path, options: Options, format: str | None = None) -> list[Run]:
    """Read a file of JSON lines."""
    if (format or jsonl_format(path)) == "rows":
        return [_read_rows(path, options)]
    run = read_jsonl(path)
    run.source = {"format": "jsonl", "names": {}, "basis": []}
    if options.names:
        raise RecordError(f"{path}: --map does not apply to grokwatch's own record.")
    return [run]


def _read_rows(path: Path, options: Options) -> Run:
    columns: dict[str, tuple[array[int], array[float], array[int]]] = {}
    texts: dict[str, tuple[int, Any]] = {}
    at: str | None = None
    torn: int | None = None
    with path.open("rb") as file:
        for number, raw in enumerate(lines(file, path), start=1):
            if not raw.strip():
                continue
            if torn is not None:
                raise RecordError(f"{path}:{torn}: not a JSON object.")
            try:
                line = parsed(raw)
                if not isinstance(line, dict):
                    raise ValueError
            except (ValueError, RecursionError):
                torn = number
                continue
            row = dict(_flat(line))
            at = at or guess_step(row, options.names)
            if at is None:
                raise RecordError(
                    f"{path}:{number}: no 'step'; found {brief(row)}. Name it: --map step=NAME."
                )
            step = _step(row.pop(at, None), f"{path}:{number}", at)
            for name, value in row.items():
                if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
                    value = float(value)
                if isinstance(value, bool) or not isinstance(value, (int, float)):
                    if value is not None:
                        texts.setdefault(name, (number, value))
                    continue
                steps, values, at_lines = columns.setdefault(
                    name, (array("q"), array("d"), array("q"))
                )
                steps.append(step)
                values.append(as_float(name, value))
                at_lines.append(number)
    if torn is not None and not columns:
        raise RecordError(f"{path}:{torn}: not a JSON object.")
    if torn is not None and not options.growing:
        warnings.warn(
            f"{path}:{torn}: the last line is cut off and left out.", UserWarning, stacklevel=4
        )
    for name in guess([*columns, *texts], options.names).values():
        if name in texts:
            line_number, value = texts[name]
            raise RecordError(
                f"{path}:{line_number}: {name} should be a number but is {value!r:.60}."
            )
    arrays = {name: tuple(map(np.array, parts)) for name, parts in columns.items()}
    return make_run(Logged(path, path.stem, arrays), options, "rows")  # type: ignore[arg-type]


def _flat(line: dict[str, Any], prefix: str = "") -> Any:
    for name, value in line.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _step(value: Any, where: str, name: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**53:
        raise RecordError(
            f"{where}: {name} should be a whole number in 0..2^53 but is {value!r:.60}."
        )
    return value
