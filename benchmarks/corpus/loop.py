"""The compiled training loop: optimiser steps with measurements along the way."""

from __future__ import annotations

import numpy as np
from numba import njit

from benchmarks.corpus.embedding import embedding_backward, embedding_forward
from benchmarks.corpus.kernels import EMBEDDING, MLP, MODEL, mlp_backward, mlp_forward
from benchmarks.corpus.transformer import transformer_backward, transformer_forward

ADAMW, ADAM, SGD = 0, 1, 2
# Places in the float64 vector `tuning`.
LR, DECAY, BETA1, BETA2, EPSILON, WARMUP = range(6)
# Columns of a dense measurement.
STEP, LOSS_COL, CORRECT, ALL_CORRECT, VAL_LOSS, VAL_CORRECT, VAL_MARGIN, GRAD, WEIGHT, PEAK = range(
    10
)
# Every step up to here is measured, then every tenth.
EVERY_STEP_UNTIL, STRIDE = 50, 10


@njit(cache=True)
def forward(shape, theta, work, bits, a, b, x, targets):  # type: ignore[no-untyped-def]
    """Loss, correct count and margin of whichever net `shape` describes."""
    if shape[MODEL] == MLP:
        return mlp_forward(shape, theta, work, bits, a, b, x, targets)
    if shape[MODEL] == EMBEDDING:
        return embedding_forward(shape, theta, work, bits, a, b, x, targets)
    return transformer_forward(shape, theta, work, bits, a, b, x, targets)


@njit(cache=True)
def backward(shape, theta, grad, work, a, b, x):  # type: ignore[no-untyped-def]
    """Gradient of whichever net `shape` describes."""
    if shape[MODEL] == MLP:
        mlp_backward(shape, theta, grad, work, a, b, x)
    elif shape[MODEL] == EMBEDDING:
        embedding_backward(shape, theta, grad, work, a, b, x)
    else:
        transformer_backward(shape, theta, grad, work, a, b, x)


@njit(cache=True, fastmath={"contract"}, error_model="numpy")
def update(kind, tuning, step, theta, grad, first, second):  # type: ignore[no-untyped-def]
    """One optimiser step as torch.optim does it: AdamW, Adam with L2, SGD with momentum and L2."""
    real = theta.dtype.type
    rate = tuning[LR] * min(1.0, (step + 1) / (tuning[WARMUP] + 1))
    beta1, decay = real(tuning[BETA1]), real(tuning[DECAY])
    if kind == SGD:
        lr = real(rate)
        for i in range(theta.size):
            first[i] = beta1 * first[i] + (grad[i] + decay * theta[i])
            theta[i] -= lr * first[i]
        return
    l2 = decay if kind == ADAM else real(0)
    keep = real(1 - rate * tuning[DECAY]) if kind == ADAMW else real(1)
    beta2, epsilon, one = real(tuning[BETA2]), real(tuning[EPSILON]), real(1)
    lr = real(rate / (1 - tuning[BETA1] ** (step + 1)))
    correction = real(1 / np.sqrt(1 - tuning[BETA2] ** (step + 1)))
    for i in range(theta.size):
        g = grad[i] + l2 * theta[i]
        first[i] = beta1 * first[i] + (one - beta1) * g
        second[i] = beta2 * second[i] + (one - beta2) * g * g
        size = np.sqrt(second[i]) * correction + epsilon
        theta[i] = keep * theta[i] - lr * first[i] / size


@njit(cache=True, fastmath={"contract", "reassoc"})
def _length(x):  # type: ignore[no-untyped-def]
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * x[i]
    return np.sqrt(total)


@njit(cache=True)
def advance(  # type: ignore[no-untyped-def]
    shape, kind, tuning, state, start, stop, batches, train, val, train_work, val_work, bits,
    losses, dense,
):  # fmt: skip
    """Run steps start..stop-1 in place.

    Args:
        shape: Description of the net.
        kind: Optimiser.
        tuning: Learning rate, weight decay, betas, epsilon, warm-up steps.
        state: Parameters, gradient, first and second moments: shape (4, size).
        start: First step, counted from 0.
        stop: Step to stop before.
        batches: Shape (stop - start, batch), training examples of each step; (0, 0) = all.
        train: Arrays a, b, x, targets of the training set.
        val: The same for validation.
        train_work: Scratch.
        val_work: Scratch.
        bits: int32 scratch.
        losses: Receives the training loss of each step.
        dense: Receives one row per measurement, all of it before the step's update.

    Returns:
        Rows written to `dense`, and the step after the last one run (early if not finite).
    """
    theta, grad, first, second = state[0], state[1], state[2], state[3]
    a, b, x, y = train
    val_a, val_b, val_x, val_y = val
    whole = batches.shape[0] == 0
    written = 0
    peak = 0.0
    for step in range(start, stop):
        measured = step <= EVERY_STEP_UNTIL or step % STRIDE == 0
        if whole:
            loss, correct, _ = forward(shape, theta, train_work, bits, a, b, x, y)
            all_correct = correct
            backward(shape, theta, grad, train_work, a, b, x)
        else:
            all_correct = -1
            if measured:
                _, all_correct, _ = forward(shape, theta, train_work, bits, a, b, x, y)
            chosen = batches[step - start]
            part_a, part_b, part_x = a[chosen], b[chosen], x[chosen] if x.size else x
            loss, correct, _ = forward(
                shape, theta, train_work, bits, part_a, part_b, part_x, y[chosen]
            )
            backward(shape, theta, grad, train_work, part_a, part_b, part_x)
        losses[step - start] = loss
        peak = max(peak, loss)
        finite = np.isfinite(loss)
        if measured or not finite:
            row = dense[written]
            val_loss, val_correct, margin = forward(
                shape, theta, val_work, bits, val_a, val_b, val_x, val_y
            )
            row[STEP], row[LOSS_COL], row[CORRECT] = step, loss, correct
            row[ALL_CORRECT] = all_correct
            row[VAL_LOSS], row[VAL_CORRECT], row[VAL_MARGIN] = val_loss, val_correct, margin
            row[GRAD], row[WEIGHT], row[PEAK] = _length(grad), _length(theta), peak
            written += 1
            peak = 0.0
        if not finite:
            return written, step + 1
        update(kind, tuning, step, theta, grad, first, second)
    return written, stop
