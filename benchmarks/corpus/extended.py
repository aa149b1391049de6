"""Runs run on: negatives to 3 to 5 times their horizon, and grokkers far past t4.

Which negatives only needed longer? And which generalisers lose it again?
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.corpus.bases import config_of, finished, negatives
from benchmarks.corpus.plan import generator
from benchmarks.corpus.runs import execute

RUNS_PER_UNIT = 12
PAST_T4_PER_UNIT = 2
_FAST = 3e-3
# Long runs are kept to small training sets, for want of time (units before 5 went to 420).
_LARGEST_LONG = 230


def extended_records(folder: Path, unit: int, tick: Callable[[], None]) -> list[dict[str, Any]]:
    """Repeat negatives of the random MLP shards, same seed, with a longer horizon.

    Half of them are drawn from those whose validation accuracy was above one half at the end,
    because flips are expected there; the other half from all the rest.

    Args:
        folder: Where the MLP shards are.
        unit: Number of this unit; the candidates are dealt out in turn.
        tick: Called after each run.
    """
    shards = [f"mlp-{i:03d}" for i in range(unit * 4, unit * 4 + 4)]
    rng = generator("extended", unit)
    here = [r for r in finished(folder) if r.meta["id"][:7] in shards]
    pool = [r for r in negatives(here) if r.meta["n_train"] <= _LARGEST_LONG]
    near = [r for r in pool if r.columns["val_accuracy"][1][-1] > 0.5]
    far = [r for r in pool if r.columns["val_accuracy"][1][-1] <= 0.5]
    picked = []
    for part, count in ((near, RUNS_PER_UNIT // 2), (far, RUNS_PER_UNIT)):
        order = rng.permutation(len(part))
        picked += [part[i] for i in order[: min(count, RUNS_PER_UNIT - len(picked))]]
    configs = [
        {"horizon": int(rng.choice([3, 3, 3, 4, 5])) * run.meta["horizon"], "to_horizon": False}
        for run in picked
    ]
    fast = [r for r in here if r.meta["late"] and r.meta["lr"] >= _FAST and r.meta["lr"] < 1]
    for i in rng.permutation(len(fast))[:PAST_T4_PER_UNIT]:
        picked.append(fast[i])
        configs.append({"to_horizon": True})
    records = []
    for run, change in zip(picked, configs, strict=True):
        records.append(execute(config_of(run.meta) | change | {"extends": run.meta["id"]}))
        tick()
    return records
