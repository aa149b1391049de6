"""What a replay costs: ``grokwatch.replay`` of a CSV beside ``pandas.read_csv`` of the same file.

    python benchmarks/replay.py [--rows 1000000] [--repeats 5]

Prints seconds of processor time (median of the repeats, and their range) and the ratio to
pandas in the same run; pandas is needed by this script only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from grokwatch import Monitor, replay
from grokwatch.records import Run, read_run, write_csv


def grokking_run(rows: int, dense: bool) -> Run:
    """A run that groks: loss and accuracy at every step; validation every 100, or all ``dense``."""
    noise = np.random.default_rng(0)
    step = np.arange(rows)
    learnt = 1 / (1 + np.exp(-(step - rows / 50) / (rows / 400)))
    late = 1 / (1 + np.exp(-(step - rows / 2) / (rows / 40)))
    loss = 4.5 * (1 - learnt) + 1e-3 * np.exp(noise.normal(0, 0.2, rows))
    val = step if dense else step[::100]
    columns = {"train_loss": (step, loss), "train_accuracy": (step, learnt)}
    columns["val_loss"] = (val, 6 * (1 - late[val]) + 0.01)
    columns["val_accuracy"] = (val, 0.01 + 0.98 * late[val])
    if dense:
        columns["grad_norm"] = (step, np.exp(noise.normal(0, 0.3, rows)))
        columns["weight_norm"] = (step, 50 - 20 * late)
    return Run(columns, {"budget": rows, "chance": 0.01})


def seconds(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each, in turns, so that a busy machine disturbs all alike."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats + 1):  # the first turn warms up
        for name, work in works.items():
            start = time.process_time()
            work()
            taken[name].append(time.process_time() - start)
    return {name: times[1:] for name, times in taken.items()}


def row_by_row(run: Run) -> None:
    """What a replay would do without the bulk path."""
    monitor = Monitor(**run.settings)
    for step, row in run.rows():
        monitor.update(step, **row)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    import pandas

    warnings.simplefilter("error")
    print(
        f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores, {options.repeats} repeats"
    )
    for dense in (False, True):
        run = grokking_run(options.rows, dense)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.csv"
            write_csv(run, path)
            size = path.stat().st_size / 1e6
            what = "six columns, all at every step" if dense else "validation every 100 steps"
            print(f"\n{options.rows:,} rows, {size:.0f} MB: {what}")
            taken = seconds(
                {
                    "pandas.read_csv": lambda path=path: pandas.read_csv(path),
                    "read_run": lambda path=path: read_run(path),
                    "replay of the run": lambda run=run: replay(run),
                    "replay of the file": lambda path=path: replay(path),
                },
                options.repeats,
            )
            taken["Monitor.update row by row"] = seconds({"": lambda run=run: row_by_row(run)}, 1)[
                ""
            ]
        base = statistics.median(taken["pandas.read_csv"])
        for name, times in taken.items():
            cost = statistics.median(times)
            spread = f"{min(times):.2f}-{max(times):.2f}"
            print(f"{name:28} {cost:8.2f} s {spread:>12} {cost / base:8.2f} x pandas")


if __name__ == "__main__":
    main()
