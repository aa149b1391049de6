"""A chunk of a CSV file cell by cell: all that csv reads, and the line of what is odd."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from grokwatch._run import RecordError

#: What the csv module says begins so -> what that means.
_CLEARER = {
    "unexpected end of data": "a cell begins with a quote but none ends it",
    "new-line character seen in unquoted": "a line ends in a lone carriage return",
    "field larger than field limit": "a cell holds a text of more than 131,072 characters",
}


def told(error: csv.Error) -> str:
    """What is wrong with a file that the csv module refuses.

    >>> told(csv.Error("unexpected end of data"))
    'a cell begins with a quote but none ends it'
    """
    said = str(error)
    return next((clear for begin, clear in _CLEARER.items() if said.startswith(begin)), said)


class Cells(NamedTuple):
    """What a chunk holds.

    Attributes:
        rows: of each column, the index of the row of each number, counted from the chunk's first.
        values: of each column, its numbers.
        text: of each column, (line number, content) of the first cell that is no number.
        lines: the line number of each row.
        end: the number of the line after the chunk.
    """

    rows: list[list[int]]
    values: list[list[float]]
    text: list[tuple[int, str] | None]
    lines: list[int]
    end: int


def parse_cells(
    chunk: bytes, header: Sequence[str], delimiter: str, path: Path, begin: int
) -> Cells:
    """Read a chunk that begins at line ``begin`` of a file.

    Raises:
        RecordError: a row of another length than the header, broken quotes, bytes that are no text.
    """
    try:
        text = chunk.decode("utf-8")
    except UnicodeDecodeError as error:
        line = begin + chunk.count(b"\n", 0, error.start)
        raise RecordError(f"{path}:{line}: not a text file ({error}).") from None
    rows: list[list[int]] = [[] for _ in header]
    values: list[list[float]] = [[] for _ in header]
    texts: list[tuple[int, str] | None] = [None for _ in header]
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if not cells:
                continue
            line = begin - 1 + reader.line_num
            if len(cells) != len(header):
                raise RecordError(
                    f"{path}:{line}: {len(cells)} cells, but the header has {len(header)}."
                )
            for index, cell in enumerate(cells):
                if not cell or cell.isspace():
                    continue
                try:
                    number = float(cell.replace("_", "?"))  # to Python 1_0 is a number
                except ValueError:
                    texts[index] = texts[index] or (line, cell)
                    continue
                rows[index].append(len(lines))
                values[index].append(number)
            lines.append(line)
    except csv.Error as error:
        raise RecordError(f"{path}:{begin - 1 + reader.line_num}: {told(error)}.") from None
    return Cells(rows, values, texts, lines, begin + reader.line_num)
