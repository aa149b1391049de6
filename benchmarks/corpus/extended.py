"""Negatives run on, to 3 to 5 times their horizon: which of them only needed longer?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.corpus.bases import config_of, finished, negatives
from benchmarks.corpus.plan import generator
from benchmarks.corpus.runs import execute

RUNS_PER_UNIT = 12


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
    pool = [r for r in negatives(finished(folder)) if r.meta["id"][:7] in shards]
    near = [r for r in pool if r.columns["val_accuracy"][1][-1] > 0.5]
    far = [r for r in pool if r.columns["val_accuracy"][1][-1] <= 0.5]
    picked = []
    for part, count in ((near, RUNS_PER_UNIT // 2), (far, RUNS_PER_UNIT)):
        order = rng.permutation(len(part))
        picked += [part[i] for i in order[: min(count, RUNS_PER_UNIT - len(picked))]]
    records = []
    for run in picked:
        factor = int(rng.choice([3, 4, 5]))
        config = config_of(run.meta) | {
            "horizon": factor * run.meta["horizon"],
            "to_horizon": False,
            "extends": run.meta["id"],
        }
        records.append(execute(config))
        tick()
    return records
