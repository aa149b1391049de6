"""Choose, from finished random MLP runs, where to look closer: boundary and long negatives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.corpus.load import Run, load
from benchmarks.corpus.runs import PARITY, Config

CONFIG_KEYS = (
    "architecture", "operator", "p", "k", "r", "width", "activation", "loss", "optimiser", "lr",
    "weight_decay", "beta1", "beta2", "eps", "warmup", "init_scale", "batch_size", "dtype",
    "seed", "horizon", "to_horizon", "d_model", "heads", "layer_norm",
    "embedding_std",
)  # fmt: skip
_LARGEST_TRAINING_SET = 420
_LARGEST_CELL = 340
# A base has passed this share of its horizon at t4, or this validation accuracy at the end.
_SLOW, _PARTLY = 0.08, 0.6


def config_of(meta: dict[str, Any]) -> Config:
    """The configuration a record was made from."""
    return {key: meta[key] for key in CONFIG_KEYS if key in meta}


def finished(folder: Path, kind: str = "mlp") -> list[Run]:
    """The runs of one kind that are cheap enough to repeat many times."""
    runs = load(folder, kinds=(kind,))
    return [run for run in runs if run.meta["n_train"] <= _LARGEST_TRAINING_SET]


def boundary_bases(runs: list[Run]) -> list[Run]:
    """Cheap runs near the phase boundary, nearest first.

    Those that generalised slowly, then negatives that had learnt most of the validation set.
    """
    ranked = []
    for run in runs:
        meta = run.meta
        if meta["diverged"] or meta["dtype"] != "float32" or meta["operator"] == PARITY:
            continue
        if meta["n_train"] > _LARGEST_CELL or not 0.35 <= meta["r"] <= 0.8:
            continue
        level = float(run.columns["val_accuracy"][1][-1])
        if meta["late"] and meta["t4"] > _SLOW * meta["horizon"]:
            ranked.append((meta["t4"] / meta["horizon"], run))
        elif meta["censored"] and _PARTLY <= level < 0.95:
            ranked.append((level - 1, run))
    return [run for _, run in sorted(ranked, key=lambda pair: -pair[0])]


def negatives(runs: list[Run]) -> list[Run]:
    """Runs that reached their horizon without generalising."""
    return [run for run in runs if run.meta["censored"]]
