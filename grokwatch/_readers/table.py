"""A CSV file as columns of numbers, fast: whole chunks are parsed at once where they are plain.

Plain chunks (digits, signs, points, exponents; every row of the header's length) go through
:func:`scipy.io.mmread`, whose array format is one number a line, read by a correctly rounding
parser: the numbers are those of ``float(text)``. Any other chunk goes cell by cell, with the line
in every message.
"""

from __future__ import annotations

import csv
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grokwatch._readers.tidy import brief
from grokwatch._run import RecordError

CHUNK = 4_000_000  # bytes
_MATRIX = b"%%MatrixMarket matrix array real general\n"
_PLAIN = b"0123456789+-.eE,\n"

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass
class Column:
    """One column: its numbers, the rows they stand in, and the first text among them.

    Attributes:
        rows: index of the row of each number, ascending.
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
        raw = file.readline(1_000_000)
    try:
        first = raw.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}:1: not a text file ({error}).") from None
    delimiter = next((mark for mark in (",", "\t", ";") if mark in first), ",")
    try:
        header = next(csv.reader([first], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise RecordError(f"{path}:1: {error}.") from None
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
    if len(set(header)) < len(header):
        raise RecordError(f"{path}:1: a column name occurs twice: {brief(header)}.")
    parts = _Parts(path, header, delimiter)
    with path.open("rb") as file:
        file.seek(start)
        rest = b""
        while block := file.read(CHUNK):
            block = rest + block
            # A quoted cell may go over several lines: then the rest of the file is one chunk.
            if b'"' in block:
                block += file.read()
            end = block.rfind(b"\n") + 1
            rest = block[end:]
            parts.add(block[:end])
        if rest and not growing:
            parts.add_last(rest)
    return parts.table()


class _Parts:
    """Collects chunks of rows."""

    def __init__(self, path: Path, header: list[str], delimiter: str) -> None:
        self.path, self.header, self.delimiter = path, header, delimiter
        self._row, self._line = 0, 2
        self._rows: list[list[IntArray]] = [[] for _ in header]
        self._values: list[list[FloatArray]] = [[] for _ in header]
        self._text: list[tuple[int, str] | None] = [None for _ in header]
        self._lines: list[IntArray] = []

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
        n = len(filled)
        for index in range(len(self.header)):
            here = filled[:, index]
            if here.all():
                self._rows[index].append(np.arange(self._row, self._row + n))
                self._values[index].append(numbers[:, index].copy())
            elif here.any():
                rows = np.flatnonzero(here)
                self._rows[index].append(rows + self._row)
                self._values[index].append(numbers[rows, index])
        self._lines.append(np.arange(self._line, self._line + n))
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
        rows: list[list[int]] = [[] for _ in self.header]
        values: list[list[float]] = [[] for _ in self.header]
        lines: list[int] = []
        try:
            text = chunk.decode("utf-8")
        except UnicodeDecodeError as error:
            line = self._line + chunk.count(b"\n", 0, error.start)
            raise RecordError(f"{self.path}:{line}: not a text file ({error}).") from None
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, strict=True)
        before = self._line - 1
        try:
            for cells in reader:
                if not cells:
                    continue
                line = before + reader.line_num
                if len(cells) != len(self.header):
                    raise RecordError(
                        f"{self.path}:{line}: {len(cells)} cells, but the header has "
                        f"{len(self.header)}."
                    )
                for index, cell in enumerate(cells):
                    if not cell or cell.isspace():
                        continue
                    try:
                        number = float(cell)
                    except ValueError:
                        if self._text[index] is None:
                            self._text[index] = (line, cell)
                        continue
                    rows[index].append(self._row + len(lines))
                    values[index].append(number)
                lines.append(line)
        except csv.Error as error:
            raise RecordError(f"{self.path}:{before + reader.line_num}: {error}.") from None
        for index in range(len(self.header)):
            if rows[index]:
                self._rows[index].append(np.array(rows[index], dtype=np.int64))
                self._values[index].append(np.array(values[index], dtype=np.float64))
        self._lines.append(np.array(lines, dtype=np.int64))
        self._row += len(lines)
        self._line = before + reader.line_num + 1

    def table(self) -> Table:
        """Everything taken so far."""
        columns = {}
        for index, name in enumerate(self.header):
            rows = np.concatenate([np.empty(0, dtype=np.int64), *self._rows[index]])
            values = np.concatenate([np.empty(0), *self._values[index]])
            columns[name] = Column(rows, values, self._text[index])
        return Table(
            self.header, columns, np.concatenate([np.empty(0, dtype=np.int64), *self._lines])
        )


def parse_plain(chunk: bytes, width: int) -> tuple[npt.NDArray[np.bool_], FloatArray] | None:
    r"""Which cells are filled and their numbers (NaN where not), each (rows, width).

    Returns:
        None if the chunk is not plain: then it has to be looked at cell by cell.

    >>> filled, numbers = parse_plain(b"1,.5,\n2,,1e-3\n", 3)
    >>> filled.tolist(), numbers[filled].tolist()
    ([[True, True, False], [True, False, True]], [1.0, 0.5, 2.0, 0.001])
    >>> parse_plain(b"1,high\n", 2), parse_plain(b"1,2-3\n", 2), parse_plain(b"1\n", 2)
    (None, None, None)
    """
    if chunk.translate(None, _PLAIN) or not _signs_in_place(chunk):
        return None
    if not _marks_in_order(chunk.translate(None, b"0123456789")):
        return None
    letters = np.frombuffer(chunk, dtype=np.uint8)
    ends = np.flatnonzero((letters == 44) | (letters == 10))
    if len(ends) % width or not len(ends):
        return None
    new_line = (letters[ends] == 10).reshape(-1, width)
    if new_line[:, :-1].any() or not new_line[:, -1].all():
        return None
    filled = (np.diff(ends, prepend=-1) > 1).reshape(-1, width)
    count = int(np.count_nonzero(filled))
    if width == 1 and count < len(filled):
        return None  # an empty line is no row
    from scipy.io import mmread  # half of what importing grokwatch would cost

    lines = b"%d 1\n" % max(count, 1) + chunk.replace(b",", b"\n")
    try:
        flat: FloatArray = np.asarray(mmread(io.BytesIO(_MATRIX + lines))).ravel()
    except ValueError:
        return None
    if len(flat) != count:
        return None
    if b"-0" in chunk or b"-." in chunk:  # the parser drops the sign of zero
        begins = np.concatenate([[0], ends[:-1] + 1])[filled.ravel()]
        flat[(flat == 0.0) & (letters[begins] == 45)] = -0.0
    if count == filled.size:
        return filled, flat.reshape(filled.shape)
    numbers = np.full(filled.shape, np.nan)
    numbers[filled] = flat
    return filled, numbers


def _marks_in_order(marks: bytes) -> bool:
    """Whether a chunk without its digits holds only what numbers may hold, such as ``-.e-,``.

    The parser stops at what it does not understand without saying so.
    """
    letters = np.frombuffer(marks, dtype=np.uint8)
    point = letters == 46
    power = (letters | 32) == 101
    sign = (letters == 43) | (letters == 45)
    wrong = point[:-1] & (point | sign)[1:]
    if power.any():
        wrong |= power[:-1] & (point | power)[1:]
        wrong[1:] |= power[:-2] & sign[1:-1] & (point | power)[2:]
    if sign.any():
        wrong |= sign[:-1] & sign[1:]
    return not wrong.any()


def _signs_in_place(chunk: bytes) -> bool:
    """Whether every sign begins a number or an exponent, and every exponent has digits."""
    if not any(mark in chunk for mark in (b"-", b"+", b"e", b"E")):
        return True
    letters = np.frombuffer(b"\n" + chunk + b"\n\n", dtype=np.uint8)
    signs = np.flatnonzero((letters == 45) | (letters == 43))
    if signs.size:
        before, after = letters[signs - 1], letters[signs + 1]
        exponent = (before == 101) | (before == 69)
        starts = (before == 44) | (before == 10)
        if not (exponent | starts).all() or not (_digit(after) | (after == 46)).all():
            return False
        if not _digit(after[exponent]).all():
            return False
    powers = np.flatnonzero((letters == 101) | (letters == 69))
    if powers.size:
        after = letters[powers + 1]
        before = letters[powers - 1]
        good = (_digit(after) | (after == 45) | (after == 43)) & (_digit(before) | (before == 46))
        return bool(good.all())
    return True


def _digit(letters: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    return (letters >= 48) & (letters <= 57)
