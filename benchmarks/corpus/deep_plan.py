"""Which runs there are of kind `deep`: nets with an embedding that mostly memorise long before.

Drawn around the two nets that grok after their validation loss has first risen far: p = 53,
embedding 32, 128 quadratic units, learning rate .001, weight decay 1; and p = 23, width 64,
learning rate .003.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.corpus.drawing import BETAS, SIDES, fraction, log_uniform, pick

RUNS_PER_UNIT = 16
_OPERATORS = {
    "+": 3, "-": 2, "*": 2, "/": 1.5, "x^2+y^2": 1.6, "a^2+b": 1.2, "dihedral": 1,
    "x^2+y^2+xy": 0.2, "x^3+xy": 0.15, "s4_conjugate": 0.15, "mix": 0.15,
}  # fmt: skip
# One entry for each stage of the plan: the second has larger fractions, more of the large p, longer
# horizons and stronger decay.
_PRIMES = (
    {17: 0.1, 19: 0.14, 23: 0.3, 29: 0.16, 31: 0.13, 37: 0.06, 41: 0.02, 43: 0.03, 53: 0.05,
     59: 0.02},
    {17: 0.08, 19: 0.12, 23: 0.3, 29: 0.16, 31: 0.13, 37: 0.06, 41: 0.03, 43: 0.04, 53: 0.06,
     59: 0.02},
)  # fmt: skip
_SLOPE = (2.0, 6.0)
_LEAST_DECAY = (0.1, 0.15)
_HORIZONS = (
    {20_000: 0.7, 12_000: 0.15, 8_000: 0.15},
    {20_000: 0.85, 12_000: 0.1, 8_000: 0.05},
)
# Above this p a step costs so much that the training sets are kept small.
_LARGE, _LARGEST_FRACTION = 37, 0.6


def deep_config(rng: np.random.Generator, stage: int) -> dict[str, Any]:
    """One random run of an MLP with an embedding."""
    operator = pick(rng, _OPERATORS)
    p = pick(rng, SIDES if operator == "dihedral" else _PRIMES[stage])
    if operator.startswith("s4"):
        p = 24
    r = fraction(rng, _SLOPE[stage])
    d_model = pick(rng, {16: 0.25, 24: 0.2, 32: 0.4, 48: 0.15})
    width = pick(rng, {48: 0.25, 64: 0.4, 96: 0.2, 128: 0.15})
    if p > _LARGE:
        r = min(r, _LARGEST_FRACTION)
    loss = pick(rng, {"cross_entropy": 0.92, "mse": 0.08})
    kind = pick(rng, {"adamw": 0.88, "adam": 0.09, "sgd": 0.03})
    beta1, beta2 = pick(rng, BETAS)
    lr = log_uniform(rng, 3e-4, 1e-2)
    decay = 0.0 if rng.random() < 0.1 else log_uniform(rng, _LEAST_DECAY[stage], 3.0)
    if kind != "adamw":
        decay = 0.0 if rng.random() < 0.4 else log_uniform(rng, 1e-5, 1e-3)
    if kind == "sgd":
        lr = log_uniform(rng, 1, 50) if loss == "mse" else log_uniform(rng, 0.02, 1)
    return {
        "architecture": "embedding_mlp",
        "operator": operator,
        "p": p,
        "k": 0,
        "r": r,
        "d_model": d_model,
        "embedding_std": 1.0 if rng.random() < 0.4 else round(d_model**-0.5, 4),
        "width": width,
        "activation": pick(rng, {"quadratic": 0.5, "relu": 0.3, "gelu": 0.2}),
        "loss": loss,
        "optimiser": kind,
        "lr": lr,
        "weight_decay": decay,
        "beta1": beta1,
        "beta2": beta2 if kind != "sgd" else 0.0,
        "eps": 1e-8,
        "warmup": 10 if rng.random() < 0.2 else 0,
        "init_scale": 1.0 if rng.random() < 0.65 else log_uniform(rng, 0.6, 3),
        "batch_size": 0 if rng.random() < 0.9 else int(rng.choice([64, 128])),
        "dtype": "float32",
        "seed": int(rng.integers(2**31)),
        "horizon": pick(rng, _HORIZONS[stage]),
        "to_horizon": bool(rng.random() < 0.12),
    }
