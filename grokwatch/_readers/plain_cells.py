"""Whole chunks of a CSV file at once, where they hold nothing but numbers and gaps.

The numbers go through :func:`scipy.io.mmread`, whose array format is one number a line, read by a
correctly rounding parser: they are those of ``float(text)``. It stops at what it does not
understand without saying so; what it may be given is therefore checked here.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Letters = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_MATRIX = b"%%MatrixMarket matrix array real general\n"
_DIGITS = b"0123456789"
_OF_NUMBERS = b".+-eE"
_COMMA, _LINE, _PLUS, _MINUS, _POINT = b",\n+-."
_GAP = 0x80  # set in the mark that ends an empty cell


def parse_plain(chunk: bytes, width: int) -> tuple[Mask | None, FloatArray] | None:
    r"""Which cells are filled (None: all of them) and their numbers, each (rows, width).

    Args:
        chunk: whole lines, the last one ended.
        width: cells a line must have.

    Returns:
        NaN where a cell is empty; None if the chunk has to be looked at cell by cell.

    >>> parse_plain(b"1,.5\n2,1e2\n", 2)
    (None, array([[  1. ,   0.5],
           [  2. , 100. ]]))
    >>> filled, numbers = parse_plain(b"1,.5,\n2,,1e-3\n", 3)
    >>> filled.tolist(), numbers[filled].tolist()
    ([[True, True, False], [True, False, True]], [1.0, 0.5, 2.0, 0.001])
    >>> parse_plain(b"1,high\n", 2), parse_plain(b"1,2-3\n", 2), parse_plain(b"1\n", 2)
    (None, None, None)
    """
    if not chunk.isascii():  # such a letter could be taken for a marked end
        return None
    letters = np.frombuffer(chunk, dtype=np.uint8)
    comma = letters == _COMMA
    end = comma | (letters == _LINE)
    gap = np.empty_like(end)
    gap[0] = end[0]
    np.logical_and(end[1:], end[:-1], out=gap[1:])
    gaps = bool(gap.any())
    flagged = (letters ^ (gap.view(np.uint8) * np.uint8(_GAP))).tobytes() if gaps else chunk
    marks = flagged.translate(None, _DIGITS)
    told = marks.translate(None, _OF_NUMBERS)
    ends = np.frombuffer(told, dtype=np.uint8)
    rows, cells = len(ends) // width, b"," * (width - 1) + b"\n"
    if len(ends) % width or (gaps and width == 1):  # an empty line is no row
        return None
    if ((ends & (_GAP - 1)).tobytes() if gaps else told) != cells * rows:
        return None
    if len(ends) < len(marks) and not (_in_order(marks) and _in_place(letters, marks)):
        return None
    filled = (ends < _GAP).reshape(rows, width) if gaps else None
    count = len(ends) if filled is None else int(np.count_nonzero(filled))
    flat = _numbers(letters, comma, count, signed=b"-" in marks) if count else None
    if flat is None:
        return None
    if filled is None:
        return None, flat.reshape(rows, width)
    numbers = np.full((rows, width), np.nan)
    numbers[filled] = flat
    return filled, numbers


class _OneThread:
    """Keeps the parser to one thread as long as anybody reads: the limit is the process's."""

    def __init__(self) -> None:
        self._lock, self._readers = threading.Lock(), 0
        self._limit: Any = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        from threadpoolctl import threadpool_limits

        parse_plain(b"0\n", 1)  # a library can be limited once it is loaded
        with self._lock:
            self._readers += more
            if self._readers and self._limit is None:
                with suppress(ValueError):  # a scipy that cannot be limited
                    self._limit = threadpool_limits(limits=1, user_api="scipy")
            elif not self._readers and self._limit is not None:
                self._limit.restore_original_limits()
                self._limit = None


#: Within it the parser starts no threads for every chunk: less work in the same time.
one_thread = _OneThread()


def _numbers(letters: Letters, comma: Mask, count: int, signed: bool) -> FloatArray | None:
    """The numbers of so many cells that are not empty; None if one of them holds none."""
    from scipy.io import mmread  # half of what importing grokwatch would cost

    head = b"%b%d 1\n" % (_MATRIX, count)
    text = np.empty(len(head) + len(letters), dtype=np.uint8)
    text[: len(head)] = np.frombuffer(head, dtype=np.uint8)
    lines = text[len(head) :]
    # A cell a line; the parser skips the lines that are empty.
    np.bitwise_xor(letters, comma.view(np.uint8) * np.uint8(_COMMA ^ _LINE), out=lines)
    try:
        flat: FloatArray = np.asarray(mmread(io.BytesIO(text.data))).ravel()
    except ValueError:
        return None
    if len(flat) != count:
        return None
    if signed and (zero := flat == 0.0).any():  # the parser drops the sign of zero
        ended = lines == _LINE
        begins = ~ended
        begins[1:] &= ended[:-1]
        flat[zero & (lines[begins] == _MINUS)] = -0.0
    return flat


def _in_order(marks: bytes) -> bool:
    """Whether a chunk without its digits holds only what numbers may hold, such as ``-.e-,``."""
    letters = np.frombuffer(marks, dtype=np.uint8)
    point = letters == _POINT
    if not any(mark in marks for mark in (b"-", b"+", b"e", b"E")):
        return not (point[:-1] & point[1:]).any()
    power = (letters | 32) == ord("e")
    sign = (letters == _PLUS) | (letters == _MINUS)
    wrong = point[:-1] & (point | sign)[1:]
    if power.any():
        wrong |= power[:-1] & (point | power)[1:]
        wrong[1:] |= power[:-2] & sign[1:-1] & (point | power)[2:]
    if sign.any():
        wrong |= sign[:-1] & sign[1:]
    return not wrong.any()


def _in_place(letters: Letters, marks: bytes) -> bool:
    """Whether every sign begins a number or an exponent, and every exponent has digits."""
    # Before the first letter is the last one, which ends a line.
    if b"-" in marks or b"+" in marks:
        signs = np.flatnonzero((letters == _MINUS) | (letters == _PLUS))
        before, after = letters[signs - 1], letters[signs + 1]
        exponent = (before | 32) == ord("e")
        starts = (before == _COMMA) | (before == _LINE)
        if not ((exponent | starts) & (_digit(after) | (starts & (after == _POINT)))).all():
            return False
    if b"e" in marks or b"E" in marks:
        powers = np.flatnonzero((letters | 32) == ord("e"))
        before, after = letters[powers - 1], letters[powers + 1]
        followed = _digit(after) | (after == _MINUS) | (after == _PLUS)
        return bool((followed & (_digit(before) | (before == _POINT))).all())
    return True


def _digit(letters: Letters) -> Mask:
    return (letters >= ord("0")) & (letters <= ord("9"))
