"""Phase diagrams, trained for real: learning rate x weight decay, three seeds a cell.

    python -m benchmarks.sweep.grids            # an hour; kept in benchmarks/out/sweep
    python -m benchmarks.sweep.grids times      # some of them

``times``: one hidden layer (quadratic) on a x b mod 23; ``embedded``: ReLU on embeddings of a and
b, a + b mod 23. Six learning rates by seven decays by three seeds, trained by the corpus's kernels.
``long times`` and ``long embedded`` are the same runs, to 40,000 steps: what a budget saves that is
as generous as grokking asks for. No forecast was fitted, and no rule of a sweep chosen, on them.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.encoding import to_arrays, write
from benchmarks.corpus.load import Run, load_shard
from benchmarks.corpus.plan import tagged
from benchmarks.corpus.runs import execute

OUT = Path(__file__).resolve().parents[1] / "out" / "sweep"
_COMMON = {
    "p": 23, "k": 0, "width": 64, "loss": "cross_entropy", "optimiser": "adamw", "beta1": 0.9,
    "beta2": 0.98, "eps": 1e-8, "batch_size": 0, "warmup": 10, "init_scale": 1.0,
    "dtype": "float32", "to_horizon": False,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "times": {"architecture": "mlp", "operator": "*", "activation": "quadratic", "r": 0.6,
              "horizon": 8000},
    "embedded": {"architecture": "embedding_mlp", "operator": "+", "activation": "relu", "r": 0.6,
                 "d_model": 32, "embedding_std": 0.1768, "horizon": 10_000},
}  # fmt: skip
CONFIGS |= {f"long {name}": {**config, "horizon": 40_000} for name, config in CONFIGS.items()}
RATES = {"times": (3e-4, 3e-2), "embedded": (3e-4, 1e-2)}
DECAYS = [0.0, 0.03, 0.1, 0.3, 1.0, 2.0, 4.0]
SEEDS = (1, 2, 3)


def grid(name: str) -> list[Run]:
    """The runs of one of :data:`CONFIGS`; trained once."""
    shard = OUT / f"{name.replace(' ', '-')}.npz"
    if not shard.exists():
        OUT.mkdir(parents=True, exist_ok=True)
        records = []
        rates = np.geomspace(*RATES[name.removeprefix("long ")], 6).round(6).tolist()
        for i, (rate, decay, seed) in enumerate(product(rates, DECAYS, SEEDS)):
            told = {"lr": rate, "weight_decay": decay, "seed": 1000 * seed + i}
            record = execute({**_COMMON, **CONFIGS[name], **told})
            meta = record["meta"] = tagged(record["meta"], name, 0, i)
            records.append(record)
            print(name, i, rate, decay, seed, meta["t2"], meta["t4"], flush=True)
        write(shard, to_arrays(records, {"kind": name, "unit": 0}))
    return load_shard(shard)


if __name__ == "__main__":
    for each in sys.argv[1:] or CONFIGS:
        found = grid(each)
        print(each, len(found), "runs,", sum(run.meta["generalised"] for run in found), "late")
