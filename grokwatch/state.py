"""Saved state: plain JSON-able Python, arrays as base64; never pickle."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_DTYPES = {"<f4", "<f8", "<i8"}


def encode(values: npt.NDArray[Any] | array[float]) -> str:
    """A one-dimensional array as ``dtype:base64``, little endian.

    >>> encode(np.array([1.0, 2.0], dtype=np.float32))
    '<f4:AACAPwAAAEA='
    """
    numbers = np.asarray(values)
    dtype = numbers.dtype.newbyteorder("<").str
    if dtype not in _DTYPES:
        raise TypeError(f"cannot save an array of {numbers.dtype}; use one of {sorted(_DTYPES)}.")
    return f"{dtype}:{base64.b64encode(numbers.astype(dtype).tobytes()).decode('ascii')}"


def decode(text: object) -> npt.NDArray[Any]:
    """The array that :func:`encode` wrote, native byte order; ValueError for anything else.

    >>> decode('<f4:AACAPwAAAEA=')
    array([1., 2.], dtype=float32)
    """
    if not isinstance(text, str) or text[:3] not in _DTYPES or text[3:4] != ":":
        raise ValueError(f"not a saved array: {str(text)[:40]!r}.")
    dtype = np.dtype(text[:3])
    raw = base64.b64decode(text[4:], validate=True)
    return np.frombuffer(raw, dtype=dtype).astype(dtype.newbyteorder("="))


def take(state: Mapping[str, Any], key: str) -> Any:
    """``state[key]``, or a ValueError that names the missing key."""
    try:
        return state[key]
    except KeyError:
        raise ValueError(
            f"the saved state lacks {key!r} (it has {sorted(state)}); it was not written by this "
            f"version of grokwatch."
        ) from None
    except TypeError:
        raise ValueError(
            f"the saved state should be a mapping but is {type(state).__name__}."
        ) from None
