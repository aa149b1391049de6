"""A CSV file as columns of numbers: chunks that are plain all at once, others cell by cell."""

from __future__ import annotations

import csv
import os
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from grokwatch._bounds import LINE
from grokwatch._readers.odd_cells import parse_cells, told
from grokwatch._readers.plain_cells import one_thread, parse_plain
from grokwatch._readers.tidy import brief
from grokwatch._run import RecordError

CHUNK = 4_000_000  # bytes; larger ones cost memory
_KEPT = 32_000_000  # likewise: more than the arrays of one chunk take together
_HEADER = 1_000_000  # likewise
_MORE = 8.0  # an array grows at most so many times at once: the beginning may mislead

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
    # Once a block of this size was freed, glibc no longer hands back the memory of each chunk,
    # which the next one would have to map anew. Nothing is written to it.
    np.empty(_KEPT, dtype=np.uint8)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size - start
        parts = _Parts(path, header, delimiter, size)
        file.seek(start)
        with one_thread() if size > CHUNK else nullcontext():
            parts.take(file, growing)
    return parts.table()


class _Parts:
    """Collects chunks of rows."""

    def __init__(self, path: Path, header: list[str], delimiter: str, size: int) -> None:
        self.path, self.header, self.delimiter = path, header, delimiter
        self._row, self._line = 0, 2
        self._size, self._taken = size, 0  # bytes: of all rows, of those taken
        self._rows: list[list[range | IntArray]] = [[] for _ in header]
        self._values = [Filling() for _ in header]
        self._text: list[tuple[int, str] | None] = [None for _ in header]
        self._lines: list[range | IntArray] = []

    def take(self, file: BinaryIO, growing: bool) -> None:
        """Take what follows in a file."""
        while block := file.read(CHUNK):
            rest = file.readline(LINE)
            if len(rest) == LINE:
                raise RecordError(f"{self.path}: a line of more than {LINE:,} characters.")
            block += rest
            # A quoted cell may go over several lines: then the rest of the file is one chunk.
            if b'"' in block:
                block += file.read()
            if block.endswith(b"\n"):
                self.add(block)
                continue
            end = block.rfind(b"\n") + 1
            self.add(block[:end])
            if not growing:
                self.add_last(block[end:])
            break

    def add(self, chunk: bytes) -> None:
        """Take whole lines."""
        if not chunk:
            return
        self._taken += len(chunk)
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n")
        plain = chunk if self.delimiter == "," else chunk.replace(self.delimiter.encode(), b",")
        found = parse_plain(plain, len(self.header)) if self.delimiter != ";" else None
        if found is None:
            self._add_cells(chunk)
            return
        filled, numbers = found
        n, more = len(numbers), self._size / self._taken
        for index in range(len(self.header)):
            if filled is None or filled[:, index].all():
                _go_on(self._rows[index], self._row, n)
                self._values[index].add(numbers[:, index], more)
            elif filled[:, index].any():
                rows = np.flatnonzero(filled[:, index])
                self._rows[index].append(rows + self._row)
                self._values[index].add(numbers[rows, index], more)
        _go_on(self._lines, self._line, n)
        self._row += n
        self._line += n

    def add_last(self, line: bytes) -> None:
        """Take a last line without its end: all of it, or nothing if a crash tore it."""
        torn = line.count(self.delimiter.encode()) < len(self.header) - 1
        if torn and self._row and b'"' not in line:
            warnings.warn(
                f"{self.path}:{self._line}: the last line is cut off and left out.",
                UserWarning,
                stacklevel=6,
            )
            return
        self._add_cells(line)

    def _add_cells(self, chunk: bytes) -> None:
        found = parse_cells(chunk, self.header, self.delimiter, self.path, self._line)
        for index, rows in enumerate(found.rows):
            self._text[index] = self._text[index] or found.text[index]
            if rows:
                self._rows[index].append(np.array(rows) + self._row)
                self._values[index].add(np.array(found.values[index]))
        self._lines.append(np.array(found.lines, dtype=np.int64))
        self._row += len(found.lines)
        self._line = found.end

    def table(self) -> Table:
        """Everything taken so far."""
        everywhere = np.arange(self._row)
        columns: dict[str, Column] = {}
        for name, text in zip(self.header, self._text, strict=True):
            index = len(columns)
            values = self._values[index].values
            rows = everywhere if len(values) == self._row else _joined(self._rows[index])
            columns[name] = Column(rows, values, text)
        return Table(self.header, columns, _joined(self._lines))


class Filling:
    """An array that is filled bit by bit; room is made for what is still to come.

    >>> filling = Filling()
    >>> filling.add(np.array([1.0, 2.0]), more=2.0)
    >>> filling.add(np.array([3.0]))
    >>> filling.values
    array([1., 2., 3.])
    """

    def __init__(self) -> None:
        self._room = np.empty(0)
        self._count = 0

    def add(self, values: FloatArray, more: float = 1.0) -> None:
        """Append values; about ``more`` times as many as so far are expected in the end."""
        start, stop = self._count, self._count + len(values)
        if stop > len(self._room):
            room = np.empty(int(stop * min(max(1.05 * more, 1.25), _MORE)))
            room[:start] = self.values
            self._room = room
        self._room[start:stop] = values
        self._count = stop

    @property
    def values(self) -> FloatArray:
        """Everything so far."""
        return self._room[: self._count]


def _go_on(parts: list[range | IntArray], start: int, count: int) -> None:
    """Append so many rows or lines, to the last range if they follow it.

    >>> parts = [range(2, 4)]
    >>> _go_on(parts, 4, 3), parts
    (None, [range(2, 7)])
    """
    if parts and isinstance(last := parts[-1], range) and last.stop == start:
        parts[-1] = range(last.start, start + count)
    else:
        parts.append(range(start, start + count))


def _joined(parts: list[range | IntArray]) -> IntArray:
    """Row or line numbers in one array.

    >>> _joined([range(2, 4), np.array([7]), range(8, 10)])
    array([2, 3, 7, 8, 9])
    """
    arrays = [np.arange(p.start, p.stop) if isinstance(p, range) else p for p in parts]
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays])
