"""One-hidden-layer nets in compiled code: loss and gradient on flat arrays.

The operands of an equation are one-hot, so the first layer is two embedding look-ups and its
gradient a scatter-add; inputs that are not one-hot (parity bits) take a matrix product.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from benchmarks.corpus.heads import activate, deactivate, loss_head

MLP, TRANSFORMER, EMBEDDING = 0, 1, 2
# Places in the integer vector `shape` that describes a net to the compiled code.
MODEL, ROWS, WIDTH, CLASSES, ACTIVATION, LOSS, DENSE, D_MODEL, HEADS, NORM = range(10)


def mlp_work(shape: np.ndarray, n: int) -> int:
    """Size of the scratch buffer for a batch of n examples."""
    return n * (4 * int(shape[WIDTH]) + 2 * int(shape[CLASSES]) + 1)


def mlp_init(shape: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Normal weights of standard deviation scale / sqrt(fan-in), zero biases."""
    rows, width, classes = int(shape[ROWS]), int(shape[WIDTH]), int(shape[CLASSES])
    first = rng.standard_normal(rows * width) * scale / np.sqrt(rows)
    last = rng.standard_normal(width * classes) * scale / np.sqrt(width)
    return np.concatenate([first, np.zeros(width), last, np.zeros(classes)])


@njit(cache=True)
def mlp_forward(shape, theta, work, bits, a, b, x, targets):  # type: ignore[no-untyped-def]
    """Loss, correct count and margin; leaves in `work` what the backward pass needs.

    Args:
        shape: Integer description of the net.
        theta: Flat parameters.
        work: Flat scratch, `mlp_work` long.
        bits: int32 scratch.
        a: Shape (n,), row of the first operand.
        b: Shape (n,), row of the second operand.
        x: Shape (n, rows), dense inputs, or (0, 0).
        targets: Shape (n,).
    """
    rows, width, classes = shape[ROWS], shape[WIDTH], shape[CLASSES]
    n = targets.size
    cut = rows * width
    first = theta[:cut].reshape(rows, width)
    first_bias = theta[cut : cut + width]
    cut += width
    last = theta[cut : cut + width * classes].reshape(width, classes)
    last_bias = theta[cut + width * classes :]
    size = n * width
    pre = work[:size].reshape(n, width)
    hidden = work[size : 2 * size].reshape(n, width)
    gate = work[2 * size : 3 * size]
    logits = work[4 * size : 4 * size + n * classes].reshape(n, classes)
    slope = work[4 * size + n * classes : 4 * size + 2 * n * classes].reshape(n, classes)
    other = work[4 * size + 2 * n * classes :]
    if shape[DENSE]:
        np.dot(x, first, pre)
        for i in range(n):
            for j in range(width):
                pre[i, j] += first_bias[j]
    else:
        for i in range(n):
            left, right, out = first[a[i]], first[b[i]], pre[i]
            for j in range(width):
                out[j] = left[j] + right[j] + first_bias[j]
    activate(shape[ACTIVATION], pre.reshape(-1), hidden.reshape(-1), gate, bits)
    np.dot(hidden, last, logits)
    for i in range(n):
        for j in range(classes):
            logits[i, j] += last_bias[j]
    return loss_head(shape[LOSS], logits, targets, slope, other, bits)


@njit(cache=True)
def mlp_backward(shape, theta, grad, work, a, b, x):  # type: ignore[no-untyped-def]
    """Fill `grad` from the state `mlp_forward` left in `work`."""
    rows, width, classes = shape[ROWS], shape[WIDTH], shape[CLASSES]
    n = a.size
    cut = rows * width
    d_first = grad[:cut].reshape(rows, width)
    d_first_bias = grad[cut : cut + width]
    cut += width
    last = theta[cut : cut + width * classes].reshape(width, classes)
    d_last = grad[cut : cut + width * classes].reshape(width, classes)
    d_last_bias = grad[cut + width * classes :]
    size = n * width
    pre = work[:size]
    hidden = work[size : 2 * size].reshape(n, width)
    gate = work[2 * size : 3 * size]
    d_hidden = work[3 * size : 4 * size].reshape(n, width)
    slope = work[4 * size + n * classes : 4 * size + 2 * n * classes].reshape(n, classes)

    np.dot(hidden.T, slope, d_last)
    d_last_bias[:] = 0
    for i in range(n):
        for j in range(classes):
            d_last_bias[j] += slope[i, j]
    np.dot(slope, last.T, d_hidden)
    deactivate(shape[ACTIVATION], pre, gate, d_hidden.reshape(-1))
    d_first_bias[:] = 0
    for i in range(n):
        for j in range(width):
            d_first_bias[j] += d_hidden[i, j]
    if shape[DENSE]:
        np.dot(x.T, d_hidden, d_first)
        return
    d_first[:] = 0
    for i in range(n):
        left, right, change = d_first[a[i]], d_first[b[i]], d_hidden[i]
        for j in range(width):
            left[j] += change[j]
            right[j] += change[j]
