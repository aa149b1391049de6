"""What a monitor adds to a training step, as a share of the step, beside other monitors.

    python -m benchmarks.step_overhead                   # all, about twenty minutes on an idle core
    python -m benchmarks.step_overhead raw --steps 1 10  # a loop of one's own, steps of 1 and 10 ms

A step trains a small network and then multiplies matrices until it is as long as wanted: the work
is fixed beforehand, so that nothing can hide in a pause. Every contender trains in a process of its
own, and they take turns every hundred steps, so that a processor that is now fast, now slow, is so
for all. What is compared is processor time of the whole process, setting up and closing included,
imports not. The share is the median over the rounds, with the range; "bare, again" shows the noise.
Peers are used as their own front pages say; one that is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
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


class Turns:
    """Lets a process train so many steps and then waits for its next turn.

    Args:
        pipe: to the parent: gets processor seconds, and whether that was all.
        every: steps.
    """

    def __init__(self, pipe: Connection, every: int) -> None:
        self.pipe, self.every, self.left = pipe, every, every
        self.start = 0.0

    def wait(self) -> None:
        """Wait for the parent's word."""
        self.pipe.recv()
        self.start = time.process_time()

    def step(self) -> None:
        """Another step; at the end of a turn tell what it took."""
        self.left -= 1
        if not self.left:
            self.left = self.every
            self.pipe.send((time.process_time() - self.start, False))
            self.wait()


def train(run: Run, filler: int, count: int, pipe: Connection) -> None:
    """In a process of its own: once to import what it needs, then by turns."""
    warnings.simplefilter("ignore")
    importlib.import_module("scipy.optimize")
    work = Work(filler)
    with tempfile.TemporaryDirectory() as folder:
        run(work, 120, Path(folder) / "warm")
        turns = Turns(pipe, max(1, min(100, count // 10)))
        work.done = turns.step
        turns.wait()
        run(work, count, Path(folder) / "run")
        pipe.send((time.process_time() - turns.start, True))


def by_turns(contenders: dict[str, Run], filler: int, count: int) -> dict[str, float]:
    """Processor seconds of each."""
    context = multiprocessing.get_context("fork")
    taken, pipes, processes = dict.fromkeys(contenders, 0.0), dict[str, Connection](), []
    for name, run in contenders.items():
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=train, args=(run, filler, count, theirs)))
        processes[-1].start()
    while pipes:
        for name, pipe in list(pipes.items()):
            pipe.send("go")
            seconds, over = pipe.recv()
            taken[name] += seconds
            if over:
                del pipes[name]
        pipes = dict(reversed(pipes.items()))  # nobody always comes first
    for process in processes:
        process.join()
    return taken


def compare(
    framework: str, milliseconds: float, rounds: int, scale: float, only: list[str]
) -> None:
    """Print one table."""
    filler, count = calibrated(milliseconds).filler, round(scale * COUNTS[milliseconds])
    contenders = {
        name: run
        for name, run in FRAMEWORKS[framework].items()
        if importlib.util.find_spec(PEERS.get(name, "torch")) is not None
        and (not only or name in {"bare", "bare, again", *only})
    }
    found = [by_turns(contenders, filler, count) for _ in range(rounds)]
    step = statistics.median(taken["bare"] for taken in found) / count
    print(f"\n{framework}, steps of {1e3 * step:.2f} ms, {count} steps, {rounds} rounds")
    print(f"{'':44} {'added to a step':>16} {'range':>18} {'µs':>8}")
    for name in list(contenders)[1:]:
        shares = [taken[name] / taken["bare"] - 1 for taken in found]
        added = statistics.median(shares)
        spread = f"{100 * min(shares):.2f} to {100 * max(shares):.2f}"
        print(f"{name:44} {100 * added:14.2f} % {spread:>18} {1e6 * added * step:8.1f}")
    print(f"load average {os.getloadavg()[0]:.1f}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("frameworks", nargs="*", default=list(FRAMEWORKS), metavar="FRAMEWORK")
    parser.add_argument("--steps", nargs="*", type=float, default=list(COUNTS), metavar="MS")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="beside the bare run")
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
                compare(framework, milliseconds, args.rounds, args.scale, args.only)


if __name__ == "__main__":
    main()
