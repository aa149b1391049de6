"""Norms of a small model on a CPU, by numpy: a call of torch would cost more than it computes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

SMALL = 100_000  # entries, of a copy in double precision

_PLAIN = (torch.nn.Parameter, torch.Tensor)
_REAL = (torch.float32, torch.float64)

FloatArray = npt.NDArray[np.float64]


def flat(tensors: Sequence[torch.Tensor]) -> FloatArray | None:
    """All entries as one vector of its own; None if there are none that numpy can read.

    >>> flat([torch.ones(2, 1), torch.zeros(1)])
    array([1., 1., 0.])
    >>> flat([torch.ones(2, dtype=torch.bfloat16)])
    """
    for tensor in tensors:
        readable = tensor.is_cpu and tensor.dtype in _REAL and tensor.layout is torch.strided
        if type(tensor) not in _PLAIN or not readable:
            return None
    if not tensors:
        return None
    # A tensor that numpy looks into can never be resized again: it may only see a copy.
    copy = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
    return copy.to(torch.float64).numpy()


def norm(vector: FloatArray) -> float:
    """Euclidean norm.

    >>> norm(np.array([3.0, 4.0]))
    5.0
    """
    return math.sqrt(vector @ vector)


def cosine_distance(before: FloatArray, after: FloatArray) -> float:
    """``1 - cos`` of the angle between two vectors, with all digits; NaN if one is zero.

    By way of their difference, as :meth:`Move.cosine_distance`, which says why.

    >>> round(2e12 * cosine_distance(np.array([1.0, 0.0]), np.array([1.0, 1e-6])), 9)
    1.0
    """
    move = after - before
    u, v, d = norm(before), norm(after), norm(move)
    if not (u > 0.0 and v > 0.0):
        return math.nan
    r = float(move @ (before + after)) / (u + v)
    return max((d - r) / u * ((d + r) / v) / 2.0, 0.0)
