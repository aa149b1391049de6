"""What ``watch(curvature=...)`` adds to the time of training, at two model sizes.

    python benchmarks/curvature_overhead.py [--seconds 60] [--net NAME] [--clock wall|processor]

Three copies of one training take turns in this process, in blocks of half a second: alone, watched,
and watched with a probe of the usual budget; the first takes one turn in four, as nothing rare
happens in it. A copy's clock stands still while the others have their turn, the probe's too.
Printed are three answers. ``charged`` is what the probes took, over the rest of the copy's time.
``within`` is the mean of all its steps over the mean of those that neither hold a probe nor come
soon after one: what is recorded is in it, and what a probe leaves of the processor's caches.
``paired`` is the copy's step over that of the watched one without a probe; the hook is in it too,
and where the memory of the copies happens to lie. The bar for each is 5.5 %.

``wall`` says what a user sees, on a machine with nothing else to do or with real-time priority
(``chrt -r 1``). ``processor`` is the thread's own time, for the pace of the probe as well.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import grokwatch
from grokwatch.geometry.probe import CurvatureProbe

P, EXAMPLES = 59, 512
BAR = 0.055
BLOCK = 0.5  # seconds
AFTER = 5  # steps that may be slower after a probe
CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "processor": time.thread_time,
}


class Transformer(nn.Module):
    """On pairs of residues and an equals sign."""

    def __init__(self, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.tokens = nn.Embedding(P + 1, width)
        self.places = nn.Parameter(0.02 * torch.randn(3, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers)
        self.head = nn.Linear(width, P)

    def forward(self, pairs: Tensor) -> Tensor:
        """Logits of shape (n, P) for pairs of shape (n, 2)."""
        equals = torch.full_like(pairs[:, :1], P)
        hidden = self.layers(self.tokens(torch.cat([pairs, equals], 1)) + self.places)
        logits: Tensor = self.head(hidden[:, -1])
        return logits


def mlp() -> nn.Module:
    embedding = nn.Embedding(P, 32)
    return nn.Sequential(embedding, nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, P))


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "MLP": (mlp, 512),
    "transformer": (Transformer, 128),
}


class Copy:
    """One training that goes on in turns.

    Args:
        make: its network.
        examples: in its batch.
        clock: for its time.
        watched: and recorded, with TensorBoard events.
        probed: with the usual probe.
        folder: for the record.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        examples: int,
        clock: Callable[[], float],
        watched: bool,
        probed: bool,
        folder: Path,
    ) -> None:
        torch.manual_seed(0)
        pairs = torch.cartesian_prod(torch.arange(P), torch.arange(P))
        self.pairs = pairs[torch.randperm(len(pairs))][:examples]
        self.targets = self.pairs.sum(1) % P
        self.model = make()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=1.0)
        self._clock, self._before, self._since = clock, 0.0, clock()
        self.steps, self._seen, self._last = 0, 0, 0
        self.watch: grokwatch.Watch | None = None
        if watched:
            self.probe = Counted(clock=self.seconds)
            curvature = self.probe if probed else False
            self.watch = grokwatch.watch(
                self.model, self.optimizer, budget=10**6, log_dir=folder, curvature=curvature
            )
        self._since, self.taken = clock(), 0.0
        self.times: list[float] = []
        self.plain: list[bool] = []

    def seconds(self) -> float:
        """This copy's own time."""
        return self._before + self._clock() - self._since

    def turn(self) -> None:
        """Train for one block."""
        self._since = began = self._clock()
        last = began
        while last - began < BLOCK:
            logits = self.model(self.pairs)
            loss = cross_entropy(logits, self.targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if self.watch is not None:
                self.watch.train(loss=loss, logits=logits, targets=self.targets)
            self.steps += 1
            now = self._clock()
            self.times.append(now - last)
            last = now
            if self.watch is not None:
                self._note()
        self._before = self.taken = self.seconds()

    def _note(self) -> None:
        """Whether the last step is far enough from a probe."""
        if self.probe.probes != self._seen:
            self._seen, self._last = self.probe.probes, self.steps
        self.plain.append(self.steps > self._last + AFTER)

    def within(self) -> float:
        """Mean time of all steps over that of the plain ones, less 1."""
        chosen = [t for t, plain in zip(self.times, self.plain, strict=True) if plain]
        return statistics.fmean(self.times) / statistics.fmean(chosen) - 1


class Counted(CurvatureProbe):
    """The usual probe; counts and times itself."""

    probes, products, spent = 0, 0, 0.0

    def measure(self):  # type: ignore[no-untyped-def]
        """Measure."""
        began = self._clock()
        found = super().measure()
        self.spent += self._clock() - began
        self.probes += 1
        self.products += found.n_hvp
        return found


def compare(name: str, seconds: float, clock: Callable[[], float]) -> str:
    """Let the copies take turns until the last one has trained for that long; a row."""
    make, examples = NETS[name]
    with tempfile.TemporaryDirectory() as folder:
        alone, watched, probed = (
            Copy(make, examples, clock, k > 0, k > 1, Path(folder, str(k))) for k in range(3)
        )
        turn = 0
        while probed.taken < seconds:
            for copy in (alone, watched, probed) if turn % 4 == 0 else (watched, probed):
                copy.turn()
            turn += 1
        for copy in (watched, probed):
            if copy.watch is not None:
                copy.watch.close()
    step = [copy.taken / copy.steps for copy in (alone, watched, probed)]
    probe = probed.probe
    charged = probe.spent / (probed.taken - probe.spent)
    found = charged, probed.within(), step[2] / step[1] - 1
    size = sum(p.numel() for p in probed.model.parameters())
    met = "no probe" if not probe.probes else "met" if max(found) <= BAR else "MISSED"
    return (
        f"{name:>12}{size:12,}{probed.steps:8,}{1e3 * step[0]:9.2f}{step[1] / step[0] - 1:9.1%}"
        f"{probe.probes:8}{probe.products:10}"
        + "".join(f"{value:9.2%}" for value in found)
        + f"{met:>10}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the copy with a probe")
    parser.add_argument("--net", choices=NETS, action="append")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    print(
        f"{args.clock} time, {args.seconds:.0f} s with a probe, load average {load:.1f} on "
        f"{os.cpu_count()} cores"
    )
    columns = ("parameters", "steps", "ms/step", "watch", "probes", "products", "charged")
    columns += ("within", "paired")
    widths = (12, 8, 9, 9, 8, 10, 9, 9, 9)
    titles = "".join(f"{c:>{w}}" for c, w in zip(columns, widths, strict=True))
    print(f"{'net':>12}{titles}{'bar':>10}")
    for name in args.net or NETS:
        print(compare(name, args.seconds, CLOCKS[args.clock]), flush=True)


if __name__ == "__main__":
    main()
