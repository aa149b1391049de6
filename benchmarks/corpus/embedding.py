"""One hidden layer on two embedded operands, in compiled code: loss and gradient on flat arrays.

Both operands share one embedding table, and each has its half of the hidden layer's matrix. The
product of table and matrix is the first layer of a net on one-hot operands, so it is formed once
a step (p rows rather than one for each equation) and the rest is left to that net's kernels.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from benchmarks.corpus.kernels import (
    CLASSES,
    D_MODEL,
    ROWS,
    WIDTH,
    mlp_backward,
    mlp_forward,
    mlp_work,
)


def embedding_sizes(shape: np.ndarray) -> list[int]:
    """Lengths of the blocks: table, left and right half of the matrix, bias, output matrix."""
    tokens, d, width = int(shape[ROWS]) // 2, int(shape[D_MODEL]), int(shape[WIDTH])
    return [tokens * d, d * width, d * width, width, width * int(shape[CLASSES])]


def embedding_work(shape: np.ndarray, n: int) -> int:
    """Size of the scratch buffer for a batch of n equations."""
    rows, width, classes = int(shape[ROWS]), int(shape[WIDTH]), int(shape[CLASSES])
    folded = rows * width + width + width * classes + classes
    return 2 * folded + rows // 2 * int(shape[D_MODEL]) + mlp_work(shape, n)


def embedding_init(
    shape: np.ndarray, scale: float, deviation: float, rng: np.random.Generator
) -> np.ndarray:
    """As torch.nn.Embedding and torch.nn.Linear start, the linear layers times `scale`.

    Args:
        shape: Integer description of the net.
        scale: Factor of the linear layers, bias included.
        deviation: Standard deviation of the table's entries (1 in torch).
        rng: Source of the weights.
    """
    table, left, right, bias, last = embedding_sizes(shape)
    hidden_bound = scale / np.sqrt(2 * shape[D_MODEL])
    last_bound = scale / np.sqrt(shape[WIDTH])
    return np.concatenate(
        [
            rng.standard_normal(table) * deviation,
            rng.uniform(-hidden_bound, hidden_bound, left + right + bias),
            rng.uniform(-last_bound, last_bound, last),
        ]
    )


@njit(cache=True)
def _blocks(shape, flat):  # type: ignore[no-untyped-def]
    """Table, left half, right half as matrices; bias and output matrix flat, as one block."""
    tokens, d, width = shape[ROWS] // 2, shape[D_MODEL], shape[WIDTH]
    table = flat[: tokens * d].reshape(tokens, d)
    cut = tokens * d
    left = flat[cut : cut + d * width].reshape(d, width)
    cut += d * width
    right = flat[cut : cut + d * width].reshape(d, width)
    return table, left, right, flat[cut + d * width :]


@njit(cache=True)
def _scratch(shape, work):  # type: ignore[no-untyped-def]
    """Folded parameters, their gradient, a spare table, and what `mlp_forward` needs."""
    rows, width, classes = shape[ROWS], shape[WIDTH], shape[CLASSES]
    size = rows * width + width + width * classes + classes
    cut = 2 * size + rows // 2 * shape[D_MODEL]
    spare = work[2 * size : cut].reshape(rows // 2, shape[D_MODEL])
    return work[:size], work[size : 2 * size], spare, work[cut:]


@njit(cache=True)
def embedding_forward(shape, theta, work, bits, a, b, x, targets):  # type: ignore[no-untyped-def]
    """Loss, correct count and margin; same arguments as `mlp_forward` (x is ignored)."""
    folded, _, _, rest = _scratch(shape, work)
    table, left, right, tail = _blocks(shape, theta)
    tokens, width = shape[ROWS] // 2, shape[WIDTH]
    half = tokens * width
    np.dot(table, left, folded[:half].reshape(tokens, width))
    np.dot(table, right, folded[half : 2 * half].reshape(tokens, width))
    # The net has no output bias: the last entries of `folded` stay zero.
    folded[2 * half : 2 * half + tail.size] = tail
    return mlp_forward(shape, folded, rest, bits, a, b, x, targets)


@njit(cache=True)
def embedding_backward(shape, theta, grad, work, a, b, x):  # type: ignore[no-untyped-def]
    """Fill `grad` from the state `embedding_forward` left in `work`."""
    folded, d_folded, spare, rest = _scratch(shape, work)
    table, left, right, _ = _blocks(shape, theta)
    d_table, d_left, d_right, d_tail = _blocks(shape, grad)
    tokens, width = shape[ROWS] // 2, shape[WIDTH]
    half = tokens * width
    mlp_backward(shape, folded, d_folded, rest, a, b, x)
    from_left = d_folded[:half].reshape(tokens, width)
    from_right = d_folded[half : 2 * half].reshape(tokens, width)
    np.dot(table.T, from_left, d_left)
    np.dot(table.T, from_right, d_right)
    np.dot(from_left, left.T, d_table)
    np.dot(from_right, right.T, spare)
    d_table += spare
    d_tail[:] = d_folded[2 * half : 2 * half + d_tail.size]
