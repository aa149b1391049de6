"""Two processes train in step, with a curvature probe and without; ``<folder>/<rank>.json``."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import grokwatch
from grokwatch.geometry.probe import CurvatureProbe
from tests.process_group import leave

torch.set_num_threads(1)


class EveryThird(CurvatureProbe):
    """Measures at every third step: the clock may not decide what a test sees."""

    asked = 0

    def due(self, now=None):
        super().due(now)
        self.asked += 1
        return self.batch is not None and self.asked % 3 == 0


def train(rank: int, folder: Path, curvature: CurvatureProbe | bool) -> dict:
    """Until rank 0's verdict stops both; what this rank saw, and a digest of all it holds."""
    torch.manual_seed(0)
    inner = nn.Sequential(
        nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2)
    )
    model = DistributedDataParallel(inner)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    torch.manual_seed(rank + 1)
    x = torch.randn(64, 4)
    y = x[:, 0].gt(0).long()
    settings = {"budget": 10_000, "chance": 0.5, "log_dir": folder, "tensorboard": False}
    stopped = None
    with grokwatch.watch(model, optimizer, curvature=curvature, **settings) as watch:
        for step in range(1, 400):
            chosen = torch.randint(64, (32,))
            logits = model(x[chosen])
            loss = cross_entropy(logits, y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.train(loss=loss, logits=logits, targets=y[chosen], accuracy=1.0)
            if rank == 0:
                good = {"loss": 0.1, "accuracy": 1.0}
                watch.validate(**(good if step >= 20 else {"loss": 1.0, "accuracy": 0.5}))
            if watch.should_stop:
                stopped = step
                break
        probe = watch._prober.probe
        verdict = watch.verdict
    held = [*inner.state_dict().values(), *(p.grad for p in inner.parameters())]
    digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in held))
    digest.update(torch.get_rng_state().numpy().tobytes())
    return {
        "stopped": stopped,
        "bits": digest.hexdigest(),
        "recommendation": verdict.recommendation,
        "hessian_max": verdict.signals.get("hessian_max"),
        "batch": probe is not None and probe.batch is not None,
    }


def ranked(rank: int, folder: str) -> None:
    """One of the two."""
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(50, 4, generator=generator)
    batch = x, x[:, 0].gt(0).long()
    seen = {
        "off": train(rank, Path(folder, "off"), False),
        "batch": train(rank, Path(folder, "batch"), EveryThird(batch=batch)),
        "caught": train(rank, Path(folder, "caught"), EveryThird()),
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(seen))
    dist.barrier()
    leave()


if __name__ == "__main__":
    mp.spawn(ranked, args=(sys.argv[1],), nprocs=2)
