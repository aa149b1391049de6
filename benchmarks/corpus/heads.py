"""Compiled building blocks every small net of the corpus shares: exp, activations, loss heads.

Plain `np.exp` is not vectorised by numba, and it would cost more than all the matrix products of
a step; `exp_into` is a polynomial that is (relative error below 2e-7 in float32).
"""

from __future__ import annotations

import numpy as np
from numba import njit

RELU, QUADRATIC, GELU = 0, 1, 2
CROSS_ENTROPY, MSE = 0, 1

_F = np.float32
_LOG2E, _LN2_HIGH, _LN2_LOW = _F(1.44269504), _F(0.693359375), _F(-2.12194440e-4)
_C2, _C3, _C4, _C5, _C6 = _F(1 / 2), _F(1 / 6), _F(1 / 24), _F(1 / 120), _F(1 / 720)
_LOWEST, _HIGHEST, _HALF, _ONE = _F(-87.0), _F(88.0), _F(0.5), _F(1.0)
_GELU_A, _GELU_B, _GELU_3B = _F(-2 * 0.7978845608), _F(0.044715), _F(3 * 0.044715)


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def exp_into(x, out, bits):  # type: ignore[no-untyped-def]
    """Write exp(x) to `out`; all flat, `bits` an int32 scratch of at least the same size."""
    if x.itemsize == 8:
        for i in range(x.size):
            out[i] = np.exp(x[i])
        return
    for i in range(x.size):
        value = min(max(_F(x[i]), _LOWEST), _HIGHEST)
        k = np.floor(value * _LOG2E + _HALF)
        r = (value - k * _LN2_HIGH) - k * _LN2_LOW
        bits[i] = (np.int32(k) + np.int32(127)) << np.int32(23)
        out[i] = _ONE + r * (_ONE + r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * _C6)))))
    scale = bits.view(np.float32)
    for i in range(x.size):
        out[i] *= scale[i]


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def activate(kind, pre, hidden, gate, bits):  # type: ignore[no-untyped-def]
    """Hidden = f(pre), flat; GELU (tanh form) leaves its gate for the backward pass."""
    if kind == RELU:
        for i in range(pre.size):
            hidden[i] = pre[i] if pre[i] > 0 else pre[i] * 0
    elif kind == QUADRATIC:
        for i in range(pre.size):
            hidden[i] = pre[i] * pre[i]
    else:
        for i in range(pre.size):
            hidden[i] = _GELU_A * pre[i] * (_ONE + _GELU_B * pre[i] * pre[i])
        exp_into(hidden, gate, bits)
        for i in range(pre.size):
            gate[i] = _ONE / (_ONE + gate[i])
            hidden[i] = pre[i] * gate[i]


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def deactivate(kind, pre, gate, slope):  # type: ignore[no-untyped-def]
    """Multiply the flat upstream gradient `slope` by f'(pre), in place."""
    if kind == RELU:
        for i in range(pre.size):
            slope[i] = slope[i] if pre[i] > 0 else slope[i] * 0
    elif kind == QUADRATIC:
        for i in range(pre.size):
            slope[i] *= pre[i] + pre[i]
    else:
        for i in range(pre.size):
            x, s = pre[i], gate[i]
            slope[i] *= s - x * s * (_ONE - s) * _GELU_A * (_ONE + _GELU_3B * x * x)


@njit(cache=True, fastmath=True)
def _best_other(logits, targets, other):  # type: ignore[no-untyped-def]
    lowest = logits.dtype.type(-1e30)
    for i in range(logits.shape[0]):
        row = logits[i]
        c = targets[i]
        kept = row[c]
        row[c] = lowest
        top = lowest
        for j in range(row.size):
            top = max(top, row[j])
        row[c] = kept
        other[i] = top


@njit(cache=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def loss_head(kind, logits, targets, slope, other, bits):  # type: ignore[no-untyped-def]
    """Mean loss over a batch, as torch's cross_entropy or mse_loss against one-hot targets.

    Args:
        kind: CROSS_ENTROPY or MSE.
        logits: Shape (n, classes).
        targets: Shape (n,), the class of each example.
        slope: Shape (n, classes); receives d loss / d logits.
        other: Shape (n,), scratch.
        bits: int32 scratch of n * classes.

    Returns:
        Loss, number of correct examples, mean margin.
    """
    n, classes = logits.shape
    one = logits.dtype.type(1)
    _best_other(logits, targets, other)
    correct = 0
    margin = 0.0
    loss = 0.0
    for i in range(n):
        gap = logits[i, targets[i]] - other[i]
        margin += gap
        if gap > 0:
            correct += 1
    if kind == MSE:
        scale = logits.dtype.type(2.0 / (n * classes))
        for i in range(n):
            logits[i, targets[i]] -= one
            row = one * 0
            for j in range(classes):
                row += logits[i, j] * logits[i, j]
                slope[i, j] = scale * logits[i, j]
            loss += row
        return loss / (n * classes), correct, margin / n
    for i in range(n):
        top = max(other[i], logits[i, targets[i]])
        for j in range(classes):
            logits[i, j] -= top
    exp_into(logits.reshape(-1), slope.reshape(-1), bits)
    share = one / n
    for i in range(n):
        total = one * 0
        for j in range(classes):
            total += slope[i, j]
        loss += np.log(total) - logits[i, targets[i]]
        factor = logits.dtype.type(share / total)
        for j in range(classes):
            slope[i, j] *= factor
        slope[i, targets[i]] -= logits.dtype.type(share)
    return loss / n, correct, margin / n
