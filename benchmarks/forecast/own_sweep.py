"""A user's sweep, trained for real: one net and task, a grid of learning rate and weight decay.

    python -m benchmarks.forecast.own_sweep            # minutes; kept in benchmarks/forecast/out
    python -m benchmarks.forecast.own_replay --kind sweep

128 one-hidden-layer nets on a + b mod 23 (quadratic, cross-entropy, AdamW, full batch), eight
learning rates by eight decays by two train fractions, 8,000 steps, trained by the corpus's kernels.
None of it is in the corpus, and no forecast is fitted on it.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.corpus.encoding import to_arrays, write
from benchmarks.corpus.load import Run, load_shard
from benchmarks.corpus.plan import tagged
from benchmarks.corpus.runs import execute

SHARD = Path(__file__).resolve().parent / "out" / "sweep.npz"
CONFIG = {
    "architecture": "mlp", "operator": "+", "p": 23, "k": 0, "width": 48, "activation": "quadratic",
    "loss": "cross_entropy", "optimiser": "adamw", "beta1": 0.9, "beta2": 0.98, "eps": 1e-8,
    "batch_size": 0, "warmup": 10, "init_scale": 1.0, "dtype": "float32", "horizon": 8000,
    "to_horizon": False,
}  # fmt: skip
RATES = np.geomspace(5e-4, 2e-2, 8).round(6).tolist()
DECAYS = [0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 4.0]
FRACTIONS = [0.45, 0.65]


def sweep() -> list[Run]:
    """The runs; trained once."""
    if not SHARD.exists():
        records = []
        for seed, (rate, decay, fraction) in enumerate(product(RATES, DECAYS, FRACTIONS)):
            told = {"lr": rate, "weight_decay": decay, "r": fraction, "seed": seed}
            record = execute({**CONFIG, **told})
            record["meta"] = tagged(record["meta"], "sweep", 0, seed)
            records.append(record)
            print(seed, told, record["meta"]["t2"], record["meta"]["t4"], flush=True)
        write(SHARD, to_arrays(records, {"kind": "sweep", "unit": 0}))
    return load_shard(SHARD)


if __name__ == "__main__":
    runs = sweep()
    late = sum(run.meta["generalised"] for run in runs)
    print(f"{len(runs)} runs, {late} generalise")
