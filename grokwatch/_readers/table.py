"""A CSV file as columns of numbers: chunks that are plain all at once, others cell by cell."""

from __future__ import annotations

import csv
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grokwatch._bounds import LINE
from grokwatch._readers.odd_cells import parse_cells, told
from grokwatch._readers.plain_cells import parse_plain
from grokwatch._readers.tidy import brief
from grokwatch._run import RecordError

CHUNK = 4_000_000  # bytes
_HEADER = 1_000_000  # likewise

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass
class Column:
    """One column: its numbers, the rows they stand in, and the first text among them.

    Attributes:
        rows: index of the row of each number, ascending; columns filled everywhere share it.
        values: the numbers; empty cells are left out, NaN and infinities are kept.
        text: (line number, content) of the first cell that is no number.
    """

    rows: IntArray
    values: FloatArray
    text: tuple[int, str] | None = None


@dataclass
class Table:
    """A CSV file: header, columns by name, and the line number of each row."""

    header: list[str]
    columns: dict[str, Column]
    lines: IntArray


def read_header(path: Path) -> tuple[list[str], str, int]:
    """Column names, delimiter, and the length of the header in bytes."""
    with path.open("rb") as file:
        raw = file.readline(_HEADER)
    if len(raw) == _HEADER:
        raise RecordError(f"{path}:1: a header of {_HEADER:,} bytes or more.")
    try:
        first = raw.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}:1: not a text file ({error}).") from None
    delimiter = next((mark for mark in (",", "\t", ";") if mark in first), ",")
    try:
        header = next(csv.reader([first], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise RecordError(f"{path}:1: {told(error)}.") from None
    return [name.strip() for name in header], delimiter, len(raw)


def read_table(path: Path, growing: bool = False) -> Table:
    """Read a CSV file.

    Args:
        path: the file.
        growing: leave out a last line that has no end yet.

    Raises:
        RecordError: a row of another length than the header, broken quotes, a name used twice.
    """
    header, delimiter, start = read_header(path)
    if not header:
        raise RecordError(f"{path}:1: no column 'step'; found none: the header is empty.")
    if len(set(header)) < len(header):
        raise RecordError(f"{path}:1: a column name occurs twice: {brief(header)}.")
    parts = _Parts(path, header, delimiter)
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(CHUNK):
            rest = file.readline(LINE)
            if len(rest) == LINE:
                raise RecordError(f"{path}: a line of more than {LINE:,} characters.")
            block += rest
            # A quoted cell may go over several lines: then the rest of the file is one chunk.
            if b'"' in block:
                block += file.read()
            if block.endswith(b"\n"):
                parts.add(block)
                continue
            end = block.rfind(b"\n") + 1
            parts.add(block[:end])
            if not growing:
                parts.add_last(block[end:])
            break
    return parts.table()


class _Parts:
    """Collects chunks of rows."""

    def __init__(self, path: Path, header: list[str], delimiter: str) -> None:
        self.path, self.header, self.delimiter = path, header, delimiter
        self._row, self._line = 0, 2
        self._rows: list[list[range | IntArray]] = [[] for _ in header]
        self._values: list[list[FloatArray]] = [[] for _ in header]
        self._text: list[tuple[int, str] | None] = [None for _ in header]
        self._lines: list[range | IntArray] = []

    def add(self, chunk: bytes) -> None:
        """Take whole lines."""
        if not chunk:
            return
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n")
        plain = chunk if self.delimiter == "," else chunk.replace(self.delimiter.encode(), b",")
        found = parse_plain(plain, len(self.header)) if self.delimiter != ";" else None
        if found is None:
            self._add_cells(chunk)
            return
        filled, numbers = found
        n = len(numbers)
        for index in range(len(self.header)):
            if filled is None or filled[:, index].all():
                self._rows[index].append(range(self._row, self._row + n))
                self._values[index].append(numbers[:, index].copy())
            elif filled[:, index].any():
                rows = np.flatnonzero(filled[:, index])
                self._rows[index].append(rows + self._row)
                self._values[index].append(numbers[rows, index])
        self._lines.append(range(self._line, self._line + n))
        self._row += n
        self._line += n

    def add_last(self, line: bytes) -> None:
        """Take a last line without its end: all of it, or nothing if a crash tore it."""
        torn = line.count(self.delimiter.encode()) < len(self.header) - 1
        if torn and self._row and b'"' not in line:
            warnings.warn(
                f"{self.path}:{self._line}: the last line is cut off and left out.",
                UserWarning,
                stacklevel=5,
            )
            return
        self._add_cells(line)

    def _add_cells(self, chunk: bytes) -> None:
        found = parse_cells(chunk, self.header, self.delimiter, self.path, self._line)
        for index, rows in enumerate(found.rows):
            self._text[index] = self._text[index] or found.text[index]
            if rows:
                self._rows[index].append(np.array(rows) + self._row)
                self._values[index].append(np.array(found.values[index]))
        self._lines.append(np.array(found.lines, dtype=np.int64))
        self._row += len(found.lines)
        self._line = found.end

    def table(self) -> Table:
        """Everything taken so far."""
        everywhere = np.arange(self._row)
        columns: dict[str, Column] = {}
        for name, text in zip(self.header, self._text, strict=True):
            index = len(columns)
            values = np.concatenate([np.empty(0), *self._values[index]])
            self._values[index] = []
            rows = everywhere if len(values) == self._row else _joined(self._rows[index])
            columns[name] = Column(rows, values, text)
        return Table(self.header, columns, _joined(self._lines))


def _joined(parts: list[range | IntArray]) -> IntArray:
    """Row or line numbers in one array.

    >>> _joined([range(2, 4), np.array([7]), range(8, 10)])
    array([2, 3, 7, 8, 9])
    """
    arrays = [np.arange(p.start, p.stop) if isinstance(p, range) else p for p in parts]
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays])
