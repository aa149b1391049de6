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
)  # fmt: skip
_LARGEST_TRAINING_SET = 420


def config_of(meta: dict[str, Any]) -> Config:
    """The configuration a record was made from."""
    return {key: meta[key] for key in CONFIG_KEYS if key in meta}


def finished(folder: Path, kind: str = "mlp") -> list[Run]:
    """The runs of one kind that are cheap enough to repeat many times."""
    runs = load(folder, kinds=(kind,))
    return [run for run in runs if run.meta["n_train"] <= _LARGEST_TRAINING_SET]


def boundary_bases(runs: list[Run]) -> list[Run]:
    """Runs near the phase boundary: late and slow, or negative with validation half learnt."""
    chosen = []
    for run in runs:
        meta = run.meta
        if meta["diverged"] or meta["dtype"] != "float32" or meta["operator"] == PARITY:
            continue
        level = float(run.columns["val_accuracy"][1][-1])
        slow = meta["late"] and meta["t4"] > 0.4 * meta["horizon"]
        if slow or (meta["censored"] and 0.3 <= level < 0.95):
            chosen.append(run)
    return chosen


def negatives(runs: list[Run]) -> list[Run]:
    """Runs that reached their horizon without generalising."""
    return [run for run in runs if run.meta["censored"]]
