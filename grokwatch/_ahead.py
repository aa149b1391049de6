"""Replay of a large CSV file that is read by Arrow while what came before is being judged.

Judging need not wait for the end of a file in which nothing has to be repaired: whole steps that
ascend, numbers and gaps. Where anything else turns up, the file is read as any other, from the
beginning, by those who know what to make of it or how to refuse it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from grokwatch._bounds import LINE
from grokwatch._readers.csv_files import beside_csv, run_name
from grokwatch._readers.find import file_format
from grokwatch._readers.names import guess_step
from grokwatch._readers.steps import LAST_STEP
from grokwatch._readers.table import read_header
from grokwatch._readers.tidy import Options, source_of, taken_names
from grokwatch._run import Run
from grokwatch.ingest import MEASUREMENTS
from grokwatch.monitor import Monitor
from grokwatch.verdict import Verdict

if TYPE_CHECKING:
    import pyarrow

_CHUNK = 4_000_000  # bytes judged while as many are read
_FIRST = 1_000_000  # bytes; until they are read there is nothing to judge
_LARGE = 4_000_000  # bytes; of fewer there is nothing to gain
_PAYS = 250_000_000  # bytes; fewer are read by others while Arrow is still being imported
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # Arrow passes over it at the beginning of every chunk

Column = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


class _OddError(ValueError):
    """The file has to be read whole."""


class Judged(NamedTuple):
    """A run and the verdicts formed on it."""

    run: Run
    verdicts: list[Verdict]


def worth_it(size: int) -> bool:
    """Whether a file of so many bytes is read sooner by Arrow, which may not be loaded yet."""
    if "pyarrow" in sys.modules:
        return size >= _LARGE
    return size >= _PAYS and importlib.util.find_spec("pyarrow") is not None


def judge_ahead(
    path: Path, settings: Mapping[str, Any], options: Options, format: str | None = None
) -> Judged | None:
    """What replaying the file gives; None where it has to be read whole beforehand.

    Args:
        path: of anything.
        settings: of :class:`Monitor`; they override those recorded. Somebody's own signals,
            forecast or policy may remember what they are told, and are not told it twice.
        options: how to read.
        format: of the file, where it is told.
    """
    plain = all(isinstance(value, (int, float, str, type(None))) for value in settings.values())
    if not plain or not path.is_file() or not worth_it(path.stat().st_size):
        return None
    try:
        if (format or file_format(path)) != "csv":
            return None
        return _judge(path, settings, options)
    except (ImportError, TypeError, ValueError, OSError):  # told better by those who read it next
        return None


def _judge(path: Path, settings: Mapping[str, Any], options: Options) -> Judged | None:
    header, delimiter, start = read_header(path)
    at = guess_step(header, options.names)
    if at not in header or len(set(header)) < len(header) or delimiter == ";":
        return None
    columns = [name for name in header if name and name != at]
    for name, column in options.names.items():
        if name != "step" and (name not in MEASUREMENTS or column not in columns):
            return None
    recorded, notes, basis = beside_csv(path, "csv")
    told = {**recorded, **settings}
    if "budget" not in told:  # the last step takes its place
        return None
    names, chosen = taken_names(columns, options.names)
    monitor = Monitor(**told)
    kept: dict[str, list[Column]] = {}
    verdicts: list[Verdict] = []
    last = -1
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":  # cut off, or going on
            return None
        file.seek(start)
        for table in _tables(file, header, delimiter):
            steps = _steps(table.column(header.index(at)), last)
            last = int(steps[-1])
            piece: dict[str, Column] = {}
            for index, column in enumerate(header):
                if column in names and table.column(index).null_count < table.num_rows:
                    piece[names[column]] = _column(table.column(index), steps)
                    kept.setdefault(names[column], []).append(piece[names[column]])
            verdicts += monitor.extend({n: piece[n] for n in piece if n in MEASUREMENTS})
    if not MEASUREMENTS.keys() & kept.keys():
        return None
    source = source_of("csv", chosen, basis)
    ordered = {name: kept[name] for name in names.values() if name in kept}
    run = Run(_joined(ordered), recorded, run_name(path), notes, source)
    return Judged(run, verdicts or [monitor.verdict])


def _tables(file: BinaryIO, header: list[str], delimiter: str) -> Iterator[pyarrow.Table]:
    """The chunks of a file, each read while the one before is made use of."""
    size = _FIRST
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(_read, file, size, len(header), delimiter)
        try:
            while (table := ahead.result()) is not None:
                size = min(2 * size, _CHUNK)
                ahead = pool.submit(_read, file, size, len(header), delimiter)
                yield table
        finally:
            del ahead  # an error in it holds this frame, and all that was judged


def _read(file: BinaryIO, size: int, width: int, delimiter: str) -> pyarrow.Table | None:
    """The next chunk; None at the end."""
    import pyarrow
    from pyarrow import csv

    chunk = file.read(size)
    if not chunk:
        return None
    chunk += file.readline(LINE)
    # Of what Arrow takes and float does not: nan() and nan(1).
    odd = b"\r" in chunk or b"(" in chunk or chunk.startswith(_BYTE_ORDER_MARK)
    if odd or not chunk.endswith(b"\n"):
        raise _OddError
    names = [str(index) for index in range(width)]
    return csv.read_csv(
        pyarrow.py_buffer(chunk),
        # One thread: what is judged meanwhile needs the other core.
        csv.ReadOptions(column_names=names, block_size=len(chunk), use_threads=False),
        csv.ParseOptions(
            delimiter=delimiter, quote_char=False, double_quote=False, ignore_empty_lines=False
        ),
        csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.float64()), null_values=[""]),
    )


def _steps(column: pyarrow.ChunkedArray, last: int) -> npt.NDArray[np.int64]:
    """The steps of a chunk; raises if they do not ascend from the last one before."""
    numbers = _numbers(column)
    if column.null_count or not (numbers.min() >= 0 and numbers.max() <= LAST_STEP):  # or NaN
        raise _OddError
    steps = numbers.astype(np.int64)
    if steps[0] <= last or (steps[1:] <= steps[:-1]).any() or (steps != numbers).any():
        raise _OddError
    return steps


def _column(column: pyarrow.ChunkedArray, steps: npt.NDArray[np.int64]) -> Column:
    """Steps and values of what a chunk holds of a column."""
    with np.errstate(over="ignore"):  # too large for float32 is inf, as at the one door
        values = _numbers(column).astype(np.float32)
    if column.null_count:
        steps = steps[column.is_valid().to_numpy()]
    return steps, values


def _numbers(column: pyarrow.ChunkedArray) -> npt.NDArray[np.float64]:
    """The numbers of a column without its gaps."""
    blocks = [part.drop_null() if part.null_count else part for part in column.chunks]
    parts = [block.to_numpy() for block in blocks]
    numbers: npt.NDArray[np.float64] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return numbers


def _joined(kept: Mapping[str, list[Column]]) -> dict[str, Column]:
    """The whole columns; those that share their steps share them still."""
    shared: dict[tuple[int, ...], npt.NDArray[np.int64]] = {}
    columns = {}
    for name, parts in kept.items():
        key = tuple(id(steps) for steps, _ in parts)
        if key not in shared:
            shared[key] = np.concatenate([steps for steps, _ in parts])
        columns[name] = shared[key], np.concatenate([values for _, values in parts])
    return columns
