"""Where the parameters and the scratch of a one-layer transformer lie in flat arrays."""

from __future__ import annotations

import numpy as np
from numba import njit

from benchmarks.corpus.kernels import CLASSES, D_MODEL, HEADS, ROWS, WIDTH


def transformer_sizes(shape: np.ndarray) -> list[int]:
    """Lengths of the parameter blocks: tokens, places, q, k, v, out, in, bias, out, bias, head."""
    p, d, width = int(shape[ROWS]) // 2, int(shape[D_MODEL]), int(shape[WIDTH])
    square = d * d
    return [
        (p + 1) * d, 3 * d, square, square, square, square,
        d * width, width, width * d, d, d * int(shape[CLASSES]),
    ]  # fmt: skip


def transformer_work(shape: np.ndarray, n: int) -> int:
    """Size of the scratch buffer for a batch of n equations."""
    d, width, classes = int(shape[D_MODEL]), int(shape[WIDTH]), int(shape[CLASSES])
    rows, heads = int(shape[ROWS]) + 1, int(shape[HEADS])
    tables = rows * (8 * d + 2 * heads + 1) + 4 * d
    return tables + n * (3 * heads + 9 * d + 2 + 4 * width + 2 * classes + 1)


def transformer_init(shape: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Normal weights: unit fan-in variance times scale for matrices, .5·scale for embeddings."""
    d, width = int(shape[D_MODEL]), int(shape[WIDTH])
    deviation = [0.5, 0.5, *[d**-0.5] * 4, d**-0.5, 0.0, width**-0.5, 0.0, d**-0.5]
    sizes = transformer_sizes(shape)
    parts = [rng.standard_normal(n) * s * scale for n, s in zip(sizes, deviation, strict=True)]
    return np.concatenate(parts)


@njit(cache=True)
def carve(flat, start, rows, columns):  # type: ignore[no-untyped-def]
    """A matrix at `start`, and where it ends."""
    end = start + rows * columns
    return flat[start:end].reshape(rows, columns), end


@njit(cache=True)
def blocks(shape, flat):  # type: ignore[no-untyped-def]
    """Parameters (or their gradients) as matrices."""
    p, d, width, classes = shape[ROWS] // 2, shape[D_MODEL], shape[WIDTH], shape[CLASSES]
    tokens, at = carve(flat, 0, p + 1, d)
    places, at = carve(flat, at, 3, d)
    query, at = carve(flat, at, d, d)
    key, at = carve(flat, at, d, d)
    value, at = carve(flat, at, d, d)
    mix, at = carve(flat, at, d, d)
    up, at = carve(flat, at, d, width)
    up_bias, at = carve(flat, at, 1, width)
    down, at = carve(flat, at, width, d)
    down_bias, at = carve(flat, at, 1, d)
    head, at = carve(flat, at, d, classes)
    return tokens, places, query, key, value, mix, up, up_bias, down, down_bias, head


@njit(cache=True)
def table_scratch(shape, work):  # type: ignore[no-untyped-def]
    """Scratch that has one row for each of the 2p + 1 table entries, and where it ends."""
    rows, d, heads = shape[ROWS] + 1, shape[D_MODEL], shape[HEADS]
    raw, at = carve(work, 0, rows, d)
    normed, at = carve(work, at, rows, d)
    inverse, at = carve(work, at, 1, rows)
    keys, at = carve(work, at, rows, d)
    values, at = carve(work, at, rows, d)
    scores, at = carve(work, at, rows, heads)
    q, at = carve(work, at, 1, d)
    d_keys, at = carve(work, at, rows, d)
    d_values, at = carve(work, at, rows, d)
    d_scores, at = carve(work, at, rows, heads)
    d_normed, at = carve(work, at, rows, d)
    d_q, at = carve(work, at, 1, d)
    spare, at = carve(work, at, rows, d)
    at += 2 * d
    return (
        raw, normed, inverse, keys, values, scores, q,
        d_keys, d_values, d_scores, d_normed, d_q, spare, at,
    )  # fmt: skip


@njit(cache=True)
def example_scratch(shape, work, at, n):  # type: ignore[no-untyped-def]
    """Scratch that has one row for each of n equations."""
    d, width, classes, heads = shape[D_MODEL], shape[WIDTH], shape[CLASSES], shape[HEADS]
    weights, at = carve(work, at, n, 3 * heads)
    context, at = carve(work, at, n, d)
    middle, at = carve(work, at, n, d)
    middle_normed, at = carve(work, at, n, d)
    middle_inverse, at = carve(work, at, 1, n)
    pre, at = carve(work, at, n, width)
    hidden, at = carve(work, at, n, width)
    gate, at = carve(work, at, n, width)
    final, at = carve(work, at, n, d)
    final_normed, at = carve(work, at, n, d)
    final_inverse, at = carve(work, at, 1, n)
    logits, at = carve(work, at, n, classes)
    slope, at = carve(work, at, n, classes)
    d_hidden, at = carve(work, at, n, width)
    d_final, at = carve(work, at, n, d)
    d_middle, at = carve(work, at, n, d)
    d_context, at = carve(work, at, n, d)
    other, at = carve(work, at, 1, n)
    return (
        weights, context, middle, middle_normed, middle_inverse, pre, hidden, gate, final,
        final_normed, final_inverse, logits, slope, d_hidden, d_final, d_middle, d_context,
        other[0],
    )  # fmt: skip
