"""What ``watch(curvature=...)`` costs: the share of the time that probes took, at two model sizes.

    python benchmarks/curvature_overhead.py [--seconds 60]

Each size is trained for that long with the budget that is usual. Printed are the share of the
run's wall-clock time and of its processor time that went into probes, from before the step's hook
to after it, and how many probes that bought. The bar is 5.5 % of the wall-clock time.

The processor share is what a busy machine does not distort: other processes stretch training and
probes alike, but not evenly.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import grokwatch
from grokwatch.geometry.probe import CurvatureProbe

P, EXAMPLES = 59, 512
BAR = 0.055


class Transformer(nn.Module):
    """One layer, on pairs of residues and an equals sign."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.tokens = nn.Embedding(P + 1, width)
        self.places = nn.Parameter(0.02 * torch.randn(3, width))
        self.layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True)
        self.head = nn.Linear(width, P)

    def forward(self, pairs: Tensor) -> Tensor:
        """Logits of shape (n, P) for pairs of shape (n, 2)."""
        equals = torch.full_like(pairs[:, :1], P)
        logits: Tensor = self.head(
            self.layer(self.tokens(torch.cat([pairs, equals], 1)) + self.places)[:, -1]
        )
        return logits


def mlp() -> nn.Module:
    embedding = nn.Embedding(P, 64)
    return nn.Sequential(embedding, nn.Flatten(), nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, P))


def train(make: Callable[[], nn.Module], seconds: float) -> dict[str, float]:
    """Train with a watch for that long; the times are seconds."""
    torch.manual_seed(0)
    pairs = torch.cartesian_prod(torch.arange(P), torch.arange(P))
    pairs = pairs[torch.randperm(len(pairs))]
    targets = pairs.sum(1) % P
    pairs, targets = pairs[:EXAMPLES], targets[:EXAMPLES]
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1.0)
    watch = grokwatch.watch(model, optimizer, budget=10**6, curvature=True)
    spent = {"wall": 0.0, "processor": 0.0, "probes": 0.0, "hook": 0.0}
    if watch._prober.probe is not None:
        _count(watch._prober.probe, spent)
    began, processor, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        logits = model(pairs)
        loss = cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.train(loss=loss, logits=logits, targets=targets)
        steps += 1
    wall, processor = time.perf_counter() - began, time.process_time() - processor
    watch.close()
    size = float(sum(p.numel() for p in model.parameters()))
    return {
        "parameters": size,
        "steps": float(steps),
        "step": (wall - spent["wall"]) / steps,
        "probes": spent["probes"],
        "wall": (spent["wall"] + spent["hook"]) / wall,
        "processor": spent["processor"] / processor,
    }


def _count(probe: CurvatureProbe, spent: dict[str, float]) -> None:
    """Book the time of every question and every measurement of a probe."""
    due, measure = probe.due, probe.measure

    def timed_due(now: float | None = None) -> bool:
        began = time.perf_counter()
        answer = due(now)
        spent["hook"] += time.perf_counter() - began
        return answer

    def timed_measure() -> object:
        wall, processor = time.perf_counter(), time.process_time()
        found = measure()
        spent["wall"] += time.perf_counter() - wall
        spent["processor"] += time.process_time() - processor
        spent["probes"] += 1
        return found

    probe.due, probe.measure = timed_due, timed_measure  # type: ignore[method-assign,assignment]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    print(
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {seconds:.0f} s each\n"
    )
    columns = ("parameters", "steps", "ms a step", "probes", "wall-clock", "processor", "bar")
    print("".join(f"{name:>13}" for name in ("model", *columns)))
    makers: dict[str, Callable[[], nn.Module]] = {"MLP": mlp, "transformer": Transformer}
    for name, make in makers.items():
        found = train(make, seconds)
        met = "no probe" if not found["probes"] else "met" if found["wall"] <= BAR else "MISSED"
        print(
            f"{name:>13}{found['parameters']:13,.0f}{found['steps']:13,.0f}"
            f"{1e3 * found['step']:13.2f}{found['probes']:13.0f}{100 * found['wall']:11.2f} %"
            f"{100 * found['processor']:11.2f} %{met:>13}"
        )


if __name__ == "__main__":
    main()
