"""Recorded runs as JSONL; the format is described in :mod:`grokwatch.records`."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grokwatch._bounds import lines, parsed
from grokwatch._run import RecordError, Run, RunBuilder

FORMAT = 1


def read_jsonl(path: Path) -> Run:
    """Read a record written by :class:`grokwatch.sinks.jsonl.JsonlSink`."""
    builder = RunBuilder()
    head: dict[str, Any] | None = None
    torn: RecordError | None = None
    with path.open("rb") as file:
        for number, raw in enumerate(lines(file, path), start=1):
            if not raw.strip():
                continue
            where = f"{path}:{number}"
            try:
                line = parsed(raw)
                kind = line["type"]
            except (ValueError, KeyError, TypeError, RecursionError):
                if torn is None:
                    torn = RecordError(f"{where}: not a line of a grokwatch record.")
                continue
            # A crash tears one line; what follows it, if anything, is the run going on.
            if torn is not None and kind != "resumed":
                raise torn
            torn = None
            if head is None and kind != "run":
                raise RecordError(f"{where}: a record begins with a line of type 'run'.")
            try:
                if kind == "run":
                    head = _head(line, where)
                elif kind == "observations":
                    for name, column in line["columns"].items():
                        values = [float(value) for value in column["values"]]
                        builder.add(name, _steps(column["steps"], len(values)), values)
                elif kind == "resumed":
                    builder.rewind(operator.index(line["step"]), line.get("known"))
            except RecordError:
                raise
            except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
                raise RecordError(f"{where}: a broken {kind} line: {error!r:.200}.") from None
    if head is None:
        raise torn or RecordError(f"{path}:1: empty; a record begins with a line of type 'run'.")
    name = path.parent.name if path.stem == "grokwatch" and path.parent.name else path.stem
    return builder.run(name, head["settings"], head["notes"])


def is_record(path: Path) -> bool:
    """Whether a file, not a link, begins as a grokwatch record does."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = parsed(next(lines(file, path), b""))
        return isinstance(head, dict) and (head.get("type"), head.get("format")) == ("run", FORMAT)
    except (OSError, ValueError, RecursionError):
        return False


def _head(line: Mapping[str, Any], where: str) -> dict[str, Any]:
    if line["format"] != FORMAT:
        raise RecordError(f"{where}: format {line['format']!r:.60}; known: {FORMAT}.")
    return {"settings": dict(line["settings"]), "notes": dict(line.get("notes", {}))}


def _steps(packed: Mapping[str, int] | list[int], count: int) -> Sequence[int]:
    if isinstance(packed, Mapping):
        if packed["count"] != count:
            raise ValueError(f"{packed['count']} steps but {count} values")
        start, every = operator.index(packed["from"]), operator.index(packed["every"])
        return range(start, start + every * count, every)
    return [operator.index(step) for step in packed]


def pack_steps(steps: list[int]) -> dict[str, int] | list[int]:
    """Evenly spaced steps in three numbers, others as they are.

    >>> pack_steps([10, 12, 14]), pack_steps([1, 2, 4])
    ({'from': 10, 'every': 2, 'count': 3}, [1, 2, 4])
    """
    if len(steps) >= 3:
        every = steps[1] - steps[0]
        if every > 0 and steps == list(range(steps[0], steps[0] + every * len(steps), every)):
            return {"from": steps[0], "every": every, "count": len(steps)}
    return steps


def short(values: npt.ArrayLike) -> list[float | str]:
    """float32 values as the shortest decimals that read back the same; NaN and inf as strings.

    >>> short([0.1, float("nan"), float("inf"), 3])
    [0.1, 'NaN', 'Infinity', 3.0]
    """
    with np.errstate(over="ignore"):
        numbers = np.asarray(values, dtype=np.float32)
    plain: list[float | str] = [float(text) for text in numbers.astype("U32")]
    for index in np.flatnonzero(~np.isfinite(numbers)):
        value = numbers[index]
        plain[index] = "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return plain
