"""What a monitor costs: ``Monitor.update`` beside ``SummaryWriter.add_scalar`` in the same run.

    python benchmarks/overhead.py

Prints microseconds per call (median of the repeats, and their range) and the ratio.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable

from grokwatch import Monitor

REPEATS = 7


def grokking_rows(n: int) -> list[tuple[int, dict[str, float]]]:
    """Loss and accuracy at every step, validation at every hundredth: a run that groks."""
    noise = random.Random(0)
    rows = []
    for step in range(n):
        learnt = 1 / (1 + math.exp(-(step - n / 50) / (n / 400)))
        row = {
            "train_loss": 4.5 * (1 - learnt) + 1e-3 * math.exp(noise.gauss(0, 0.2)),
            "train_accuracy": learnt,
        }
        if step % 100 == 0:
            late = 1 / (1 + math.exp(-(step - n / 2) / (n / 40)))
            row.update(val_loss=6 * (1 - late) + 0.01, val_accuracy=0.01 + 0.99 * late)
        rows.append((step, row))
    return rows


def microseconds(run: Callable[[], object], calls: int) -> list[float]:
    """Microseconds of processor time per call, once per repeat; a busy machine matters less so."""
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        taken.append(1e6 * (time.process_time() - start) / calls)
    return taken


def monitor_cost(rows: list[tuple[int, dict[str, float]]], loss_only: bool) -> list[float]:
    """Cost of ``Monitor.update`` over a whole run, evaluations included."""
    if loss_only:
        rows = [(step, {"train_loss": row["train_loss"]}) for step, row in rows]

    def run() -> None:
        monitor = Monitor(budget=len(rows), chance=0.01)
        update = monitor.update
        for step, row in rows:
            update(step, **row)

    return microseconds(run, len(rows))


def add_scalar_cost(calls: int) -> list[float]:
    """Cost of ``SummaryWriter.add_scalar``."""
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        writer = SummaryWriter(folder)

        def run() -> None:
            for step in range(calls):
                writer.add_scalar("loss", 0.5, step)

        taken = microseconds(run, calls)
        writer.close()
    return taken


def main() -> None:
    """Print the table."""
    scalar = add_scalar_cost(10_000)
    base = statistics.median(scalar)
    print(f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores, {REPEATS} repeats\n")
    print(f"{'':52} {'µs per call':>12} {'range':>15} {'of add_scalar':>14}")
    print(f"{'SummaryWriter.add_scalar':52} {base:12.2f} {_range(scalar):>15} {1:14.3f}")
    for n in (10_000, 100_000):
        rows = grokking_rows(n)
        for loss_only in (True, False):
            what = "training loss" if loss_only else "loss and accuracy, validation every 100"
            taken = monitor_cost(rows, loss_only)
            cost = statistics.median(taken)
            name = f"Monitor.update, {n:,} steps, {what}"
            print(f"{name:52} {cost:12.2f} {_range(taken):>15} {cost / base:14.3f}")


def _range(values: list[float]) -> str:
    return f"{min(values):.2f}-{max(values):.2f}"


if __name__ == "__main__":
    main()
