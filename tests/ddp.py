"""What the ranks of a distributed run do; each leaves what it saw in ``<folder>/<rank>.json``."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel

import grokwatch
from tests.process_group import leave

torch.set_num_threads(1)

GOOD = {"loss": 0.1, "accuracy": 1.0}


class Loop:
    """A rank's network, its share of the data, and a watch that rank 0 lets generalise."""

    def __init__(self, rank: int, parallel: bool = True, **settings) -> None:
        torch.manual_seed(0)
        self.rank = rank
        self.inner = torch.nn.Sequential(
            torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)
        )
        self.model = DistributedDataParallel(self.inner) if parallel else self.inner
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.x = torch.randn(8, 4, generator=torch.Generator().manual_seed(rank))
        self.y = self.x[:, 0].gt(0).long()
        self.watch = grokwatch.watch(
            self.model, self.optimizer, budget=10_000, chance=0.5, **settings
        )

    def step(self, micro_batches: int = 1) -> None:
        self.optimizer.zero_grad()
        for part in range(micro_batches):
            last = part == micro_batches - 1
            with nullcontext() if last else self.model.no_sync():
                logits = self.model(self.x)
                loss = torch.nn.functional.cross_entropy(logits, self.y)
                loss.backward()
            if last:
                self.optimizer.step()
            self.watch.train(loss=loss, accuracy=1.0)

    def validate(self, good: bool) -> None:
        if self.rank == 0:
            self.watch.validate(**(GOOD if good else {"loss": 1.0, "accuracy": 0.5}))

    def until(self, steps: int, good_from: int, micro_batches: int = 1) -> int | None:
        """Train; the step of the stop."""
        for step in range(1, steps + 1):
            self.step(micro_batches)
            self.validate(step >= good_from)
            if self.watch.should_stop:
                return step
        return None


def even(rank: int, folder: Path) -> dict:
    loop = Loop(rank, log_dir=folder / "even", norms_every=1, on_stop="checkpoint")
    with loop.watch as watch:
        stopped = loop.until(300, good_from=40)
        weights = torch.cat([p.detach().flatten() for p in loop.inner.parameters()])
        return {
            "stopped": stopped,
            "judged": watch._outlet.monitor.verdict.recommendation,
            "verdict": watch.verdict.as_dict(),
            "weight_norm": weights.double().norm().item(),
            "again": watch.should_stop,
        }


def accumulating(rank: int, folder: Path) -> dict:
    called = []
    loop = Loop(rank, on_stop=lambda verdict: called.append(verdict.recommendation))
    with loop.watch:
        stopped = loop.until(300, good_from=10, micro_batches=4)
        return {"stopped": stopped, "called": called}


def join(rank: int, folder: Path) -> dict:
    """Rank 1 has data for 12 steps only."""
    loop = Loop(rank)
    with loop.watch, Join([loop.model]):
        return {"stopped": loop.until(12 if rank else 300, good_from=40)}


def join_epochs(rank: int, folder: Path) -> dict:
    """Rank 1 takes 7 steps an epoch, rank 0 takes 10; they meet after the epoch."""
    loop = Loop(rank)
    with loop.watch:
        for epoch in range(1, 60):
            with Join([loop.model]):
                for _ in range(7 if rank else 10):
                    loop.step()
                loop.validate(epoch >= 6)
            if loop.watch.should_stop:
                return {"stopped": epoch}
    return {"stopped": None}


def two_watches(rank: int, folder: Path) -> dict:
    never = grokwatch.watch(torch.nn.Linear(1, 1), budget=10_000)
    loop = Loop(rank)
    answers = []
    with loop.watch, never:
        for step in range(1, 200):
            loop.step()
            loop.validate(step >= 30)
            never.train(loss=1.0)
            answers.append(never.should_stop)
            if loop.watch.should_stop:
                return {"stopped": step, "never": any(answers)}
    return {"stopped": None}


def apart(rank: int, folder: Path) -> dict:
    """No gradients are exchanged: rank 1 is 333 turns ahead when rank 0 decides."""
    loop = Loop(rank, parallel=False)
    with loop.watch:
        if rank:
            early = loop.until(333, good_from=1)
            dist.barrier()
            late = loop.until(2000, good_from=1)
            return {"early": early, "stopped": late and 333 + late}
        dist.barrier()
        return {"stopped": loop.until(2000, good_from=1)}


def ends_early(rank: int, folder: Path) -> dict:
    loop = Loop(rank, parallel=False)
    with loop.watch:
        return {"stopped": loop.until(25 if rank else 500, good_from=60)}


def broken_monitor(rank: int, folder: Path) -> dict:
    loop = Loop(rank)
    with loop.watch, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loop.step()
        if rank == 0:
            loop.watch._outlet.monitor._judge.policy = None  # whatever asks it, fails
        stopped = loop.until(60, good_from=1)
    return {"stopped": stopped, "told": [str(warning.message) for warning in told]}


def split_weights(rank: int, folder: Path) -> dict:
    """Weights and losses that no rank has whole must not be read by one alone."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7):
        return {"skipped": "fully_shard of this torch needs a GPU"}
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh
    from torch.distributed.tensor.debug import _clear_sharding_prop_cache

    mesh = init_device_mesh("cpu", (2,))
    model = torch.nn.Linear(4, 2)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    split = distribute_tensor(torch.ones(2), mesh, [Shard(0)]).mean()
    whole = distribute_tensor(torch.tensor(0.5), mesh, [Replicate()])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with grokwatch.watch(model, optimizer, budget=100, norms_every=1) as watch:
            for _ in range(3):
                model(torch.ones(1, 4)).sum().backward()
                optimizer.step()
                watch.train(loss=whole, grad_norm=split)
    mine = [str(w.message) for w in told if "grokwatch" in str(w.message)]
    _clear_sharding_prop_cache()  # it holds the mesh, and the mesh the process group
    return {"told": mine, "signals": sorted(watch.verdict.signals), "step": watch.verdict.step}


def lost_store(rank: int, folder: Path) -> dict:
    """The process that keeps the store ends in the middle of the run."""
    loop = Loop(rank)
    with loop.watch, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        before = loop.until(20, good_from=1000)
        dist.barrier()
        if rank == 0:
            (folder / "take").touch()
        while not (folder / "taken").exists():
            time.sleep(0.01)
        after = loop.until(200, good_from=1)
    return {"stopped": [before, after], "told": [str(warning.message) for warning in told]}


SCENARIOS = (
    even, accumulating, join, join_epochs, two_watches, apart, ends_early, broken_monitor,
    split_weights, lost_store,
)  # fmt: skip


def spawned(rank: int, port: int, folder: str) -> None:
    """One of two processes that know their rank only from the process group."""
    assert "RANK" not in os.environ
    store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=60))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    seen = {}
    for scenario in SCENARIOS:
        seen[scenario.__name__] = scenario(rank, Path(folder))
        if scenario is not lost_store:
            dist.barrier()
    Path(folder, f"{rank}.json").write_text(json.dumps(seen))
    leave()


def spawn(folder: str) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ranks = mp.spawn(spawned, args=(store.port, folder), nprocs=2, join=False)
    while not Path(folder, "take").exists():
        if ranks.join(timeout=0.05):
            return
    del store
    Path(folder, "taken").touch()
    while not ranks.join():
        pass


def launched(folder: str) -> None:
    """One of the processes of ``torchrun``; the watch is older than the process group."""
    rank = int(os.environ["RANK"])
    watch = grokwatch.watch(
        torch.nn.Linear(1, 1), budget=9, log_dir=Path(folder, "before"), tensorboard=False
    )
    dist.init_process_group("gloo")
    with watch:
        for step in range(9):
            watch.train(loss=1.0 / (step + 1))
            assert not watch.should_stop
        judged = watch.flush().step
    seen = {"before": judged, "accelerate": accelerated(Path(folder))}
    Path(folder, f"{rank}.json").write_text(json.dumps(seen))
    leave()


def accelerated(folder: Path) -> dict:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    assert accelerator.num_processes == 2
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    x = torch.randn(64, 4)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, x[:, 0].gt(0).long()), batch_size=8
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    watch = grokwatch.watch(
        model, optimizer, budget=10_000, chance=0.5, log_dir=folder / "run", norms_every=1
    )
    accelerator.register_for_checkpointing(watch)
    steps, stopped = 0, None
    with watch:
        while stopped is None and steps < 400:
            for inputs, targets in loader:
                with accelerator.accumulate(model):
                    logits = model(inputs)
                    loss = torch.nn.functional.cross_entropy(logits, targets)
                    accelerator.backward(loss)
                    optimizer.step()
                    optimizer.zero_grad()
                watch.train(loss=loss, accuracy=1.0)
                steps += accelerator.sync_gradients
                if accelerator.is_main_process and accelerator.sync_gradients:
                    watch.validate(**(GOOD if steps >= 20 else {"loss": 1.0, "accuracy": 0.5}))
                if watch.should_stop:
                    stopped = steps
                    break
        accelerator.save_state(str(folder / "checkpoint"))
        accelerator.wait_for_everyone()
        accelerator.load_state(str(folder / "checkpoint"))
    return {
        "stopped": stopped,
        "step": watch._clock.step,
        "verdict": watch.verdict.as_dict(),
        "loaded": watch._outlet.monitor.last_step,
        "learning_rate": watch._outlet.monitor.settings.learning_rate,
    }


if __name__ == "__main__":
    {"spawn": spawn, "launched": launched}[sys.argv[1]](sys.argv[2])
