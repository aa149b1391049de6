"""What is run: seeded work units of configurations, and the split decided beforehand.

A unit is one shard. Its configurations are a function of its kind and number alone, except for
cells and extended runs, which start from finished MLP shards.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from benchmarks.corpus import deep_plan
from benchmarks.corpus.drawing import BETAS, SIDES, fraction, log_uniform, pick
from benchmarks.corpus.runs import PARITY, Config

SALT = "grokwatch-corpus-1"
RUNS_PER_UNIT = {"mlp": 25, "transformer": 8, "deep": deep_plan.RUNS_PER_UNIT}
# Units at which the plan was rebalanced, because too few runs generalised late (16 % of the first
# 100 MLPs, 21 % of the first 600, 10 of the first 48 transformers, 14 of the first 48 deep runs):
# larger fractions, wider nets, stronger decay; then fewer of the operators that never did; for
# transformers and deep runs longer horizons. The last stages draw fewer large p, for want of time;
# the last of the transformers also fewer of the operators they hardly learnt. No run was discarded.
# The tuples below have one entry for each stage of the plan.
REBALANCED_FROM = {"mlp": (6, 30), "transformer": (6, 12, 20, 34), "deep": (3,)}
_R_SLOPE = (3.0, 5.0, 7.0)
_WIDTHS = (
    {24: 0.1, 32: 0.25, 48: 0.35, 64: 0.2, 96: 0.1},
    {24: 0.05, 32: 0.15, 48: 0.3, 64: 0.3, 96: 0.15, 128: 0.05},
    {24: 0.05, 32: 0.15, 48: 0.3, 64: 0.3, 96: 0.15, 128: 0.05},
)
_LEAST_DECAY = (0.1, 0.2, 0.2)
_HARD_SHARE = (1.0, 1.0, 0.4)
_HARD = ("x^3+xy", "x^2+y^2+xy", "mix", "s4", "s4_conjugate")
_KINDS = ("mlp", "transformer", "cells", "extended", "ordinary", "deep")

_MLP_OPERATORS = {
    "+": 3, "-": 2.5, "*": 1.5, "/": 1.5, "x^2+y^2": 2, "x^2+y^2+xy": 0.7, "a^2+b": 1.5,
    "x^3+xy": 1, "mix": 0.3, "s4": 0.6, "s4_conjugate": 0.6, "dihedral": 1.2, PARITY: 1.5,
}  # fmt: skip
_TRANSFORMER_OPERATORS = {
    "+": 3, "-": 2, "*": 2.5, "/": 1.5, "x^2+y^2": 0.8, "x^3+xy": 0.3, "a^2+b": 1, "dihedral": 1,
    "s4_conjugate": 0.3,
}  # fmt: skip
_COMMON_PRIMES = {17: 0.12, 19: 0.16, 23: 0.3, 29: 0.16, 31: 0.14, 37: 0.07, 43: 0.03, 59: 0.02}
_FEWER_LARGE = {17: 0.12, 19: 0.2, 23: 0.4, 29: 0.16, 31: 0.08, 37: 0.03, 43: 0.01}
_PRIMES = (_COMMON_PRIMES, _COMMON_PRIMES, _FEWER_LARGE)
_SMALL_PRIMES = {17: 0.05, 19: 0.1, 23: 0.4, 29: 0.3, 31: 0.15}
_FEW_PRIMES = {19: 0.1, 23: 0.7, 29: 0.2}
_FEWEST_PRIMES = {19: 0.25, 23: 0.7, 29: 0.05}
_TRANSFORMER_PRIMES = (_SMALL_PRIMES, _SMALL_PRIMES, _FEW_PRIMES, _FEW_PRIMES, _FEWEST_PRIMES)
_HORIZONS = ([8_000, 12_000, 20_000], [12_000, 20_000], [8_000, 12_000], [12_000], [12_000])
_TRANSFORMER_SLOPE = (5.0, 5.0, 5.0, 20.0, 20.0)
_TRANSFORMER_DECAY = (0.25, 0.5, 0.5, 0.8, 0.8)
_RARE_SHARE = (1.0, 1.0, 1.0, 1.0, 0.4)
_RARE = ("-", "/", "a^2+b", "dihedral", "x^3+xy", "s4_conjugate")


def group_key(operator: str, p: int, r: float) -> str:
    """Runs that share it are never split: operator, p, and r to the nearest .05."""
    return f"{operator}|{p}|{round(round(r * 20) / 20, 2)}"


def split_of(group: str) -> str:
    """`fit`, `calibrate` or `test` (about 60 / 20 / 20), by a salted hash of the group alone."""
    digest = hashlib.sha256(f"{SALT}|{group}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "fit" if share < 0.6 else "calibrate" if share < 0.8 else "test"


def generator(kind: str, unit: int) -> np.random.Generator:
    """The random source of a unit."""
    return np.random.default_rng([2026, _KINDS.index(kind), unit])


def _task(
    rng: np.random.Generator, operators: dict[str, float], primes: dict[int, float], slope: float
) -> dict[str, Any]:
    operator = pick(rng, operators)
    r = fraction(rng, slope)
    if operator == PARITY:
        k = int(rng.choice([2, 3]))
        bits = int(rng.choice([16, 20, 24, 30, 36]))
        return {"operator": operator, "p": bits, "k": k, "r": r}
    p = pick(rng, SIDES if operator == "dihedral" else primes)
    if operator.startswith("s4"):
        p = 24
    return {"operator": operator, "p": p, "k": 0, "r": r}


def _optimiser(rng: np.random.Generator, loss: str, stage: int) -> dict[str, Any]:
    kind = pick(rng, {"adamw": 0.7, "adam": 0.17, "sgd": 0.13})
    beta1, beta2 = pick(rng, BETAS)
    lr = log_uniform(rng, 3e-4, 3e-2)
    if kind == "adamw":
        decay = 0.0 if rng.random() < 0.1 else log_uniform(rng, _LEAST_DECAY[stage], 3.0)
    elif kind == "adam":
        decay = 0.0 if rng.random() < 0.6 else log_uniform(rng, 1e-5, 1e-3)
    else:
        lr = log_uniform(rng, 1, 100) if loss == "mse" else log_uniform(rng, 0.02, 2)
        decay = 0.0 if rng.random() < 0.3 else log_uniform(rng, 1e-5, 1e-3)
    return {
        "optimiser": kind,
        "lr": lr,
        "weight_decay": decay,
        "beta1": beta1,
        "beta2": beta2 if kind != "sgd" else 0.0,
        "eps": 1e-5 if rng.random() < 0.1 else 1e-8,
        "warmup": 10 if rng.random() < 0.3 else 0,
    }


def mlp_config(rng: np.random.Generator, stage: int) -> Config:
    """One random MLP run."""
    operators = {
        name: weight * (_HARD_SHARE[stage] if name in _HARD else 1)
        for name, weight in _MLP_OPERATORS.items()
    }
    loss = pick(rng, {"cross_entropy": 0.65, "mse": 0.35})
    task = _task(rng, operators, _PRIMES[stage], _R_SLOPE[stage])
    return {
        "architecture": "mlp",
        **task,
        "width": pick(rng, _WIDTHS[stage]),
        "activation": pick(rng, {"relu": 0.4, "quadratic": 0.38, "gelu": 0.22}),
        "loss": loss,
        **_optimiser(rng, loss, stage),
        "init_scale": 1.0 if rng.random() < 0.5 else log_uniform(rng, 0.5, 4),
        "batch_size": 0 if rng.random() < 0.85 else int(rng.choice([32, 64, 128])),
        "dtype": "float64" if rng.random() < 0.04 else "float32",
        "seed": int(rng.integers(2**31)),
        "horizon": 20_000,
        "to_horizon": bool(rng.random() < 0.12),
    }


def transformer_config(rng: np.random.Generator, stage: int) -> Config:
    """One random one-layer transformer run."""
    operators = {
        name: weight * (_RARE_SHARE[stage] if name in _RARE else 1)
        for name, weight in _TRANSFORMER_OPERATORS.items()
    }
    task = _task(rng, operators, _TRANSFORMER_PRIMES[stage], _TRANSFORMER_SLOPE[stage])
    kind = pick(rng, {"adamw": 0.9, "adam": 0.1} if stage else {"adamw": 0.85, "adam": 0.15})
    beta1, beta2 = pick(rng, BETAS)
    d_model = pick(rng, {24: 0.25, 32: 0.55, 48: 0.2})
    no_decay = kind == "adam" or rng.random() < 0.08
    return {
        "architecture": "transformer",
        **task,
        "d_model": d_model,
        "heads": int(rng.choice([1, 2, 4])),
        "layer_norm": int(rng.random() < 0.5),
        "width": d_model * (int(rng.choice([2, 2, 3])) if stage < 2 else 2),
        "activation": pick(rng, {"relu": 0.7, "gelu": 0.3}),
        "loss": "cross_entropy",
        "optimiser": kind,
        "lr": log_uniform(rng, 7e-4, 1e-2),
        "weight_decay": 0.0 if no_decay else log_uniform(rng, _TRANSFORMER_DECAY[stage], 4.0),
        "beta1": beta1,
        "beta2": beta2,
        "eps": 1e-8,
        "warmup": 10,
        "init_scale": 1.0 if rng.random() < 0.6 else log_uniform(rng, 0.5, 2),
        "batch_size": 0 if rng.random() < 0.9 else 128,
        "dtype": "float32",
        "seed": int(rng.integers(2**31)),
        "horizon": int(rng.choice(_HORIZONS[stage])),
        "to_horizon": bool(rng.random() < 0.06),
    }


def random_unit(kind: str, unit: int) -> list[Config]:
    """The configurations of one unit of random MLPs, transformers or deep runs."""
    rng = generator(kind, unit)
    stage = sum(unit >= first for first in REBALANCED_FROM[kind])
    draws = {"mlp": mlp_config, "transformer": transformer_config, "deep": deep_plan.deep_config}
    return [draws[kind](rng, stage) for _ in range(RUNS_PER_UNIT[kind])]


def tagged(meta: dict[str, Any], kind: str, unit: int, place: int) -> dict[str, Any]:
    """Add what names a record: id, kind, group and split."""
    group = meta.get("group") or group_key(meta["operator"], meta["p"], meta["r"])
    identity = f"{kind}-{unit:03d}-{place:02d}"
    return {**meta, "id": identity, "kind": kind, "group": group, "split": split_of(group)}
