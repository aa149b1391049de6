"""A real network memorises, waits and groks, watched: what `grokwatch demo` runs.

The task is (a + b) mod 53, with 45 % of the table to learn from. The network knows those sums by
heart after some 260 optimiser steps, stays at chance on the rest until step 1500 to 5000, and has
generalised by step 3000 to 7000, depending on the seed. Quadratic units keep the network small:
one hidden layer of them can hold the trigonometric solution of this task (Gromov 2023,
arXiv:2301.02679).
"""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

import grokwatch
from grokwatch.integrations.pytorch import Watch
from grokwatch.records import RecordError
from grokwatch.replay import Replay
from grokwatch.report.demo_figure import draw_run
from grokwatch.report.demo_table import summary_table

P = 53
TRAIN_FRACTION = 0.45
EMBEDDING = 32
HIDDEN = 128
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1.0
BUDGET = 20_000
VALIDATE_EVERY = 20


class Square(nn.Module):
    """The activation x²."""

    def forward(self, x: Tensor) -> Tensor:
        """Square every entry."""
        return x * x


def make_data(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split the addition table modulo P at random.

    Args:
        seed: seed of the split.

    Returns:
        Training pairs of shape (n, 2) and their answers of shape (n,), then the same for
        validation.

    >>> [len(part) for part in make_data(seed=0)]
    [1264, 1264, 1545, 1545]
    """
    pairs = torch.cartesian_prod(torch.arange(P), torch.arange(P))
    pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))]
    answers = pairs.sum(1) % P
    n_train = round(TRAIN_FRACTION * len(pairs))
    return pairs[:n_train], answers[:n_train], pairs[n_train:], answers[n_train:]


def make_model() -> nn.Sequential:
    """Build the network: embed both numbers, one layer of quadratic units, P answers."""
    embedding = nn.Embedding(P, EMBEDDING)
    # PyTorch's own start, entries of size 1, delays generalisation several times over.
    nn.init.normal_(embedding.weight, std=EMBEDDING**-0.5)
    hidden = nn.Linear(2 * EMBEDDING, HIDDEN)
    return nn.Sequential(
        embedding, nn.Flatten(), hidden, Square(), nn.Linear(HIDDEN, P, bias=False)
    )


def train(seed: int, device: torch.device, out: Path, stop: bool) -> Watch:
    """Train the network and watch it.

    Args:
        seed: seed of the split and of the weights.
        device: where to train.
        out: folder of the record and of the TensorBoard events.
        stop: end when the monitor recommends it, rather than when the budget is spent.

    Returns:
        The closed watch: its verdict and the folder it wrote to.
    """
    torch.manual_seed(seed)
    x_train, y_train, x_val, y_val = (part.to(device) for part in make_data(seed))
    model = make_model().to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98)
    )
    with grokwatch.watch(
        model,
        optimizer,
        budget=BUDGET,
        log_dir=out,
        chance=1 / P,
        train_fraction=TRAIN_FRACTION,
        console=True,
        notes={"task": f"(a + b) mod {P}", "seed": seed},
    ) as watch:
        for step in range(BUDGET):
            logits = model(x_train)
            loss = nn.functional.cross_entropy(logits, y_train)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            watch.train(loss=loss, logits=logits, targets=y_train)
            if step % VALIDATE_EVERY == 0:
                with torch.no_grad():
                    watch.validate(logits=model(x_val), targets=y_val)
            if stop and watch.should_stop:
                break
    return watch


def run_demo(seed: int = 0, device: str = "cpu", out: Path | None = None, stop: bool = True) -> int:
    """Run the demo and print what came of it.

    Args:
        seed: seed of the split and of the weights.
        device: a torch device.
        out: folder for the record, the TensorBoard events and `demo.png`; None =
            `grokwatch-demo`. If it holds a record already, a sibling is used.
        stop: end when the monitor recommends it, rather than when the budget is spent.

    Returns:
        Exit code: 0 = the network generalised, 1 = it did not, 2 = no such device or folder.
    """
    console = Console()
    out = Path("grokwatch-demo") if out is None else Path(out)
    try:
        torch.zeros(1, device=device)
        out.mkdir(parents=True, exist_ok=True)
    except (RuntimeError, AssertionError, OSError) as error:
        print(f"grokwatch demo: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    console.print(
        f"A network of {HIDDEN} hidden units learns (a + b) mod {P} from {TRAIN_FRACTION:.0%} of "
        f"the table.\nIt will soon know those sums by heart, and for a long while nothing else.\n"
    )
    threads = torch.get_num_threads()
    # Matrices this small gain nothing from a second thread and, on a busy machine, wait for it.
    torch.set_num_threads(1)
    start = time.perf_counter()
    try:
        watch = train(seed, torch.device(device), out, stop)
    finally:
        torch.set_num_threads(threads)
    seconds = time.perf_counter() - start
    out = watch.log_dir or out
    try:
        # The record gives back every verdict of the run, not only the latest.
        replayed = grokwatch.replay(out)
        console.print(summary_table(replayed, seconds))
        _save_figure(replayed, out / "demo.png", console)
    except (RecordError, OSError) as error:
        print(f"grokwatch demo: no table and no figure: {error}", file=sys.stderr)
    console.print(f"\nThe same live, and every signal:\n  tensorboard --logdir {_quoted(out)}")
    return 0 if watch.verdict.phase == "generalised" else 1


def _save_figure(replayed: Replay, path: Path, console: Console) -> None:
    figure = draw_run(
        replayed,
        title=f"A network memorises (a + b) mod {P}, waits, and groks",
        subtitle=(
            f"{HIDDEN} quadratic units, {TRAIN_FRACTION:.0%} of the table, full-batch AdamW, "
            f"learning rate {LEARNING_RATE:g}, weight decay {WEIGHT_DECAY:g}"
        ),
    )
    figure.savefig(path, dpi=150)
    console.print(f"\nThe run as a picture:\n  {path}", highlight=False, markup=False)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
