"""One-layer transformers on `a b =` in compiled code: loss and gradient on flat arrays.

Only the last token is read out, so there is one query, and keys and values take just 2p + 1
distinct values: p for a in the first place, p for b in the second, one for `=`. Attention is thus
computed on tables; only the feed-forward part sees every equation.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from benchmarks.corpus.attention import attend, attend_back, normalise, normalise_back
from benchmarks.corpus.heads import activate, deactivate, loss_head
from benchmarks.corpus.kernels import ACTIVATION, D_MODEL, HEADS, LOSS, NORM, ROWS
from benchmarks.corpus.transformer_layout import blocks, example_scratch, table_scratch


@njit(cache=True)
def transformer_forward(shape, theta, work, bits, a, b, x, targets):  # type: ignore[no-untyped-def]
    """Loss, correct count and margin; same arguments as `mlp_forward` (x is ignored)."""
    p, on = shape[ROWS] // 2, shape[NORM]
    d, heads, n = shape[D_MODEL], shape[HEADS], targets.size
    tokens, places, query, key, value, mix, up, up_bias, down, down_bias, head = blocks(
        shape, theta
    )
    raw, normed, inverse, keys, values, scores, q, _, _, _, _, _, _, at = table_scratch(shape, work)
    (
        weights, context, middle, middle_normed, middle_inverse, pre, hidden, gate, final,
        final_normed, final_inverse, logits, slope, _, _, _, _, other,
    ) = example_scratch(shape, work, at, n)  # fmt: skip
    raw[:p] = tokens[:p] + places[0]
    raw[p : 2 * p] = tokens[:p] + places[1]
    raw[2 * p] = tokens[p] + places[2]
    normalise(on, raw, normed, inverse[0])
    np.dot(normed, key, keys)
    np.dot(normed, value, values)
    np.dot(normed[2 * p :], query, q)
    size = d // heads
    scale = theta.dtype.type(size**-0.5)
    scores[:] = 0
    for t in range(2 * p + 1):
        for j in range(d):
            scores[t, j // size] += scale * q[0, j] * keys[t, j]
    attend(scores, values, a, b, weights, context)
    np.dot(context, mix, middle)
    for i in range(n):
        for j in range(d):
            middle[i, j] += raw[2 * p, j]
    normalise(on, middle, middle_normed, middle_inverse[0])
    np.dot(middle_normed, up, pre)
    for i in range(n):
        for j in range(pre.shape[1]):
            pre[i, j] += up_bias[0, j]
    activate(shape[ACTIVATION], pre.reshape(-1), hidden.reshape(-1), gate.reshape(-1), bits)
    np.dot(hidden, down, final)
    for i in range(n):
        for j in range(d):
            final[i, j] += middle[i, j] + down_bias[0, j]
    normalise(on, final, final_normed, final_inverse[0])
    np.dot(final_normed, head, logits)
    return loss_head(shape[LOSS], logits, targets, slope, other, bits)


@njit(cache=True)
def transformer_backward(shape, theta, grad, work, a, b, x):  # type: ignore[no-untyped-def]
    """Fill `grad` from the state `transformer_forward` left in `work`."""
    p, on = shape[ROWS] // 2, shape[NORM]
    d, heads, n = shape[D_MODEL], shape[HEADS], a.size
    _, _, query, key, value, mix, up, _, down, _, head = blocks(shape, theta)
    (
        d_tokens, d_places, d_query, d_key, d_value, d_mix, d_up, d_up_bias, d_down, d_down_bias,
        d_head,
    ) = blocks(shape, grad)  # fmt: skip
    (
        _, normed, inverse, keys, values, _, q,
        d_keys, d_values, d_scores, d_normed, d_q, spare, at,
    ) = table_scratch(shape, work)  # fmt: skip
    (
        weights, context, _, middle_normed, middle_inverse, pre, hidden, gate, _,
        final_normed, final_inverse, _, slope, d_hidden, d_final, d_middle, d_context, _,
    ) = example_scratch(shape, work, at, n)  # fmt: skip
    np.dot(final_normed.T, slope, d_head)
    np.dot(slope, head.T, d_final)
    normalise_back(on, final_normed, final_inverse[0], d_final)
    np.dot(hidden.T, d_final, d_down)
    np.dot(d_final, down.T, d_hidden)
    deactivate(shape[ACTIVATION], pre.reshape(-1), gate.reshape(-1), d_hidden.reshape(-1))
    np.dot(middle_normed.T, d_hidden, d_up)
    np.dot(d_hidden, up.T, d_middle)
    normalise_back(on, middle_normed, middle_inverse[0], d_middle)
    d_up_bias[:] = 0
    d_down_bias[:] = 0
    for i in range(n):
        for j in range(d_hidden.shape[1]):
            d_up_bias[0, j] += d_hidden[i, j]
        for j in range(d):
            d_down_bias[0, j] += d_final[i, j]
            d_middle[i, j] += d_final[i, j]
    np.dot(context.T, d_middle, d_mix)
    np.dot(d_middle, mix.T, d_context)
    d_values[:] = 0
    d_scores[:] = 0
    attend_back(values, a, b, weights, d_context, d_values, d_scores)
    size = d // heads
    scale = theta.dtype.type(size**-0.5)
    d_q[:] = 0
    for t in range(2 * p + 1):
        for j in range(d):
            share = scale * d_scores[t, j // size]
            d_q[0, j] += share * keys[t, j]
            d_keys[t, j] = share * q[0, j]
    np.dot(normed.T, d_keys, d_key)
    np.dot(normed.T, d_values, d_value)
    np.dot(normed[2 * p :].T, d_q, d_query)
    np.dot(d_keys, key.T, d_normed)
    np.dot(d_values, value.T, spare)
    d_normed += spare
    np.dot(d_q, query.T, spare[:1])
    d_normed[2 * p] += spare[0]
    normalise_back(on, normed, inverse[0], d_normed)
    for i in range(n):
        for j in range(d):
            d_normed[2 * p, j] += d_middle[i, j]
    d_tokens[:] = 0
    d_places[:] = 0
    for t in range(2 * p + 1):
        place = 2 if t == 2 * p else t // p
        token = p if t == 2 * p else t % p
        for j in range(d):
            d_tokens[token, j] += d_normed[t, j]
            d_places[place, j] += d_normed[t, j]
