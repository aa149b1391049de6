"""What a monitor adds to a training step, as a share of the step, beside other monitors.

    python -m benchmarks.step_overhead                   # all, about twenty minutes on an idle core
    python -m benchmarks.step_overhead raw --steps 1 10  # a loop of one's own, steps of 1 and 10 ms

A step trains a small network and then multiplies matrices until it is as long as wanted: the work
is fixed beforehand, so that nothing can hide in a pause. The contenders take turns with a bare run;
what is compared is processor time of the whole process, setting up and closing included. The share
is the median over the rounds, with the range; that of the bare runs shows the noise. Peers are used
as their own front pages say; one that is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch

from benchmarks.step_contenders import FRAMEWORKS, PEERS, Run, Work

ROUNDS = 3
#: Steps of a run, by the milliseconds of a step.
COUNTS = {0.1: 50_000, 1.0: 20_000, 10.0: 2_000, 100.0: 200}


def calibrated(milliseconds: float) -> Work:
    """A step that takes so long, bare."""
    work = Work(0)
    work.run(200)
    start = time.process_time()
    work.run(2_000)
    bare = (time.process_time() - start) / 2_000
    work = Work(200)
    start = time.process_time()
    work.run(50)
    filler = ((time.process_time() - start) / 50 - bare) / 200
    return Work(max(0, round((milliseconds / 1e3 - bare) / filler)))


def processor_seconds(run: Run, work: Work, count: int, folder: Path) -> float:
    """Of the whole process, every thread of it."""
    start = time.process_time()
    run(work, count, folder)
    return time.process_time() - start


def compare(framework: str, milliseconds: float, rounds: int, scale: float) -> None:
    """Print one table."""
    work, count = calibrated(milliseconds), round(scale * COUNTS[milliseconds])
    contenders = {
        name: run
        for name, run in FRAMEWORKS[framework].items()
        if importlib.util.find_spec(PEERS.get(name, "torch")) is not None
    }
    for run in contenders.values():  # imports are paid once, by whoever comes first
        with tempfile.TemporaryDirectory() as folder:
            run(work, 20, Path(folder))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    bare: list[float] = []
    for _ in range(rounds):
        for name, run in contenders.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds = processor_seconds(run, work, count, Path(folder))
            if name == "bare":
                bare.append(seconds)
            else:
                taken[name].append(seconds)
    for name, seconds_of in taken.items():
        taken[name] = [one / base - 1 for one, base in zip(seconds_of, bare, strict=False)]
    middle = statistics.median(bare)
    taken["bare"] = [one / middle - 1 for one in bare]
    step = middle / count
    print(f"\n{framework}, steps of {1e3 * step:.2f} ms, {count} steps, {rounds} rounds")
    print(f"{'':44} {'added to a step':>16} {'range':>18} {'µs':>8}")
    for name, shares in taken.items():
        added = statistics.median(shares)
        spread = f"{100 * min(shares):.2f} to {100 * max(shares):.2f}"
        print(f"{name:44} {100 * added:14.2f} % {spread:>18} {1e6 * added * step:8.1f}")
    sys.stdout.flush()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frameworks", nargs="*", default=list(FRAMEWORKS), metavar="FRAMEWORK")
    parser.add_argument("--steps", nargs="*", type=float, default=list(COUNTS), metavar="MS")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of steps")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print(
        f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, torch {torch.__version__}"
    )
    for framework in args.frameworks:
        for milliseconds in args.steps:
            if framework == "raw" or milliseconds in (1.0, 10.0):
                compare(framework, milliseconds, args.rounds, args.scale)


if __name__ == "__main__":
    main()
