"""Whole chunks of a CSV file at once, where they hold nothing but numbers and gaps.

The numbers go through :func:`scipy.io.mmread`, whose array format is one number a line, read by a
correctly rounding parser: they are those of ``float(text)``. It stops at what it does not
understand without saying so; what it may be given is therefore checked here.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Letters = npt.NDArray[np.uint8]

_MATRIX = b"%%MatrixMarket matrix array real general\n"
_DIGITS = b"0123456789"
_OF_NUMBERS = b".+-eE"
_COMMA, _LINE, _PLUS, _MINUS, _POINT = b",\n+-."
_GAP = 0x80  # set in the mark that ends an empty cell
_GAPS = bytes([_COMMA | _GAP, _LINE | _GAP])
_ONE_A_LINE = bytes.maketrans(b",", b"\n")


def parse_plain(chunk: bytes, width: int) -> tuple[npt.NDArray[np.bool_] | None, FloatArray] | None:
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
    letters = np.frombuffer(chunk, dtype=np.uint8)
    # Of all that may stand here only the plus lies below the comma, too.
    end = letters <= _COMMA if b"+" not in chunk else (letters == _COMMA) | (letters == _LINE)
    gap = end[1:] & end[:-1]
    gaps = bool(gap.any() or end[0])
    if gaps:
        flagged = letters.copy()
        flagged[1:] |= gap.view(np.uint8) << 7
        flagged[0] |= end[0] << 7
        chunk = flagged.tobytes()
    marks = chunk.translate(None, _DIGITS)
    ends = np.frombuffer(marks.translate(None, _OF_NUMBERS), dtype=np.uint8)
    shape = (len(ends) // width, width)
    if len(ends) % width or (gaps and width == 1):  # an empty line is no row
        return None
    if ((ends & (_GAP - 1)).reshape(shape) != _row(width)).any():
        return None
    if len(ends) < len(marks) and not (_in_order(marks) and _in_place(letters, marks)):
        return None
    if not gaps:
        flat = _numbers(chunk.translate(_ONE_A_LINE), len(ends))
        return None if flat is None else (None, flat.reshape(shape))
    filled = (ends < _GAP).reshape(shape)
    flat = _numbers(chunk.translate(_ONE_A_LINE, _GAPS), int(np.count_nonzero(filled)))
    if flat is None:
        return None
    numbers = np.full(shape, np.nan)
    numbers[filled] = flat
    return filled, numbers


def _row(width: int) -> Letters:
    """The marks that end the cells of a line."""
    return np.frombuffer(b"," * (width - 1) + b"\n", dtype=np.uint8)


def _numbers(lines: bytes, count: int) -> FloatArray | None:
    """The numbers of so many lines; None if a line holds none."""
    from scipy.io import mmread  # half of what importing grokwatch would cost

    try:
        source = io.BytesIO(b"%b%d 1\n%b" % (_MATRIX, max(count, 1), lines))
        flat: FloatArray = np.asarray(mmread(source)).ravel()
    except ValueError:
        return None
    if len(flat) != count:
        return None
    zero = flat == 0.0
    if zero.any() and b"-" in lines:  # the parser drops the sign of zero
        letters = np.frombuffer(lines, dtype=np.uint8)
        begins = np.concatenate([[0], np.flatnonzero(letters == _LINE)[:-1] + 1])
        flat[zero & (letters[begins] == _MINUS)] = -0.0
    return flat


def _in_order(marks: bytes) -> bool:
    """Whether a chunk without its digits holds only what numbers may hold, such as ``-.e-,``."""
    letters = np.frombuffer(marks, dtype=np.uint8)
    point = letters == _POINT
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


def _digit(letters: Letters) -> npt.NDArray[np.bool_]:
    return (letters >= ord("0")) & (letters <= ord("9"))
