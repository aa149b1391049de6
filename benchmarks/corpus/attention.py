"""Layer norm and three-token attention on tables, forward and backward, in compiled code."""

from __future__ import annotations

import numpy as np
from numba import njit

_EPSILON = np.float32(1e-5)


@njit(cache=True, fastmath={"contract", "reassoc"})
def normalise(on, x, out, inverse):  # type: ignore[no-untyped-def]
    """Layer norm without gain or bias, row by row; a plain copy when not `on`."""
    n, d = x.shape
    share = x.dtype.type(1.0 / d)
    for i in range(n):
        if not on:
            for j in range(d):
                out[i, j] = x[i, j]
            continue
        mean = share * 0
        for j in range(d):
            mean += x[i, j]
        mean *= share
        square = share * 0
        for j in range(d):
            square += (x[i, j] - mean) * (x[i, j] - mean)
        scale = x.dtype.type(1.0 / np.sqrt(square * share + _EPSILON))
        inverse[i] = scale
        for j in range(d):
            out[i, j] = (x[i, j] - mean) * scale


@njit(cache=True, fastmath={"contract", "reassoc"})
def normalise_back(on, normed, inverse, slope):  # type: ignore[no-untyped-def]
    """Turn the gradient of the normalised rows into that of the rows, in place."""
    if not on:
        return
    n, d = normed.shape
    share = normed.dtype.type(1.0 / d)
    for i in range(n):
        mean, along = share * 0, share * 0
        for j in range(d):
            mean += slope[i, j]
            along += slope[i, j] * normed[i, j]
        mean *= share
        along *= share
        for j in range(d):
            slope[i, j] = inverse[i] * (slope[i, j] - mean - normed[i, j] * along)


@njit(cache=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def attend(scores, values, a, b, weights, context):  # type: ignore[no-untyped-def]
    """Mix the three value rows of each equation by the softmax of its three scores."""
    heads = scores.shape[1]
    size = values.shape[1] // heads
    equals = scores.shape[0] - 1
    for i in range(a.size):
        for h in range(heads):
            x, y, z = scores[a[i], h], scores[b[i], h], scores[equals, h]
            top = max(x, y, z)
            x, y, z = np.exp(x - top), np.exp(y - top), np.exp(z - top)
            total = x + y + z
            x, y, z = x / total, y / total, z / total
            weights[i, 3 * h], weights[i, 3 * h + 1], weights[i, 3 * h + 2] = x, y, z
            for j in range(h * size, (h + 1) * size):
                context[i, j] = x * values[a[i], j] + y * values[b[i], j] + z * values[equals, j]


@njit(cache=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def attend_back(values, a, b, weights, slope, d_values, d_scores):  # type: ignore[no-untyped-def]
    """Add the gradients of values and scores, given `slope`, that of the context."""
    heads = d_scores.shape[1]
    size = values.shape[1] // heads
    equals = d_scores.shape[0] - 1
    for i in range(a.size):
        for h in range(heads):
            x, y, z = weights[i, 3 * h], weights[i, 3 * h + 1], weights[i, 3 * h + 2]
            dx, dy, dz = x * 0, x * 0, x * 0
            for j in range(h * size, (h + 1) * size):
                s = slope[i, j]
                dx += s * values[a[i], j]
                dy += s * values[b[i], j]
                dz += s * values[equals, j]
                d_values[a[i], j] += x * s
                d_values[b[i], j] += y * s
                d_values[equals, j] += z * s
            mean = x * dx + y * dy + z * dz
            d_scores[a[i], h] += x * (dx - mean)
            d_scores[b[i], h] += y * (dy - mean)
            d_scores[equals, h] += z * (dz - mean)
