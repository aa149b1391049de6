"""Programs that a fault test starts, harms and watches; run as  python -m tests.fault_programs ."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import grokwatch
from grokwatch.integrations.pytorch import Watch

torch.set_num_threads(1)

BUDGET = 100_000


def measured(step: int) -> dict[str, float]:
    """What this training measures at a step: a function of the step alone."""
    r = random.Random(step)
    return {"loss": 4.0 / (1 + step / 50) + 0.01 * r.random(), "accuracy": min(1.0, step / 400)}


def validated(step: int) -> dict[str, float]:
    """Likewise, of a validation."""
    return {"loss": 5.0 + step / 1000, "accuracy": 0.01 if step < 3000 else 1.0}


def feed(watch: Watch, step: int) -> None:
    """One step of the training."""
    watch.train(step=step, **measured(step))
    if step % 10 == 0:
        watch.validate(step=step, **validated(step))


def make(folder: Path, **more: Any) -> Watch:
    """The watch of this training."""
    settings = {"budget": BUDGET, "chance": 0.01, "tensorboard": False, "stop_on": (), **more}
    return grokwatch.watch(torch.nn.Linear(1, 1), log_dir=folder / "run", **settings)


def kill(folder: Path) -> None:
    """Train on from the last checkpoint until somebody ends the process."""
    saved = folder / "checkpoint.json"
    watch, step = make(folder), 0
    if saved.exists():
        state = json.loads(saved.read_text())
        watch.load_state_dict(state)
        step = watch._outlet.monitor.last_step or 0
    print("go", flush=True)
    while True:
        step += 1
        feed(watch, step)
        if step % 250 == 0:
            unfinished = folder / "checkpoint.tmp"
            unfinished.write_text(json.dumps(watch.state_dict()))
            os.replace(unfinished, saved)
        if step % 7 == 0:
            (folder / "told").write_text(f"{step} ")  # a step handed over by now


def interrupt(folder: Path, how: str) -> None:
    """Train for a while under a rain of signals, each an exception, as in a notebook."""
    training = False

    def end(*_: object) -> None:
        if training:
            raise KeyboardInterrupt

    signal.signal(getattr(signal, how), end)
    watch, step, caught = make(folder), 0, 0
    print("go", flush=True)
    while caught < 100:
        try:
            training = True
            while True:
                step += 1
                feed(watch, step)
                if step % 20 == 0:
                    watch.flush()
        except KeyboardInterrupt:
            training = False
            caught += 1
    watch.close()
    works = [part for part in ("monitor", "judging", "record") if watch._outlet.works(part)]
    found = {"caught": caught, "step": step, "works": works, "final": watch.verdict.as_dict()}
    (folder / "told").write_text(json.dumps(found))


def share(folder: Path) -> None:
    """Resume the same record as somebody else, at the same time."""
    watch = make(folder)
    watch.load_state_dict(json.loads((folder / "checkpoint.json").read_text()))
    print("go", flush=True)
    step = 1000
    sys.stdin.readline()
    for _ in range(4000):
        step += 1
        feed(watch, step)
    watch.close()
    print(json.dumps(sorted(watch._outlet._off)), flush=True)


def main() -> None:
    """Run one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("program", choices=["kill", "interrupt", "share"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--signal", default="SIGINT")
    options = parser.parse_args()
    if options.program == "kill":
        kill(options.folder)
    elif options.program == "interrupt":
        interrupt(options.folder, options.signal)
    else:
        share(options.folder)


if __name__ == "__main__":
    main()
