"""A sweep trained in one process: a batch of runs that advance together, come and go.

A run that is over leaves the batch and the next one takes its place. Each is watched by its own
monitor and leaves a record that grokwatch reads (`NAME.csv` with its sidecar `NAME.json`, written
last); what has a sidecar is not run again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from phase_net import AdamW, Net, symmetric_split
from phase_run import Cell, Task, Trainee, sidecars
from torch import Tensor
from torch.nn import functional as F

from grokwatch.records import Run

EVERY = 10  # steps between validations


class Batch:
    """Runs that advance together; all on the same share of the data.

    Args:
        task: what they share.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.net = Net(task.p, task.width)
        self.runs: list[Trainee] = []
        self._data: list[Tensor] = []  # codes and answers, of training and validation
        self._optimizer: AdamW

    def admit(self, runs: Sequence[Trainee]) -> None:
        """Take new runs in."""
        if not runs:
            return
        weights = torch.stack([self.net.start(run.cell.seed) for run in runs])
        tuning = ([getattr(r.cell, k) for r in runs] for k in ("rate", "decay", "clip"))
        optimizer = AdamW(weights, *(torch.tensor(one, dtype=torch.float64) for one in tuning))
        splits = [symmetric_split(self.task.p, r.cell.fraction, r.cell.seed) for r in runs]
        coded = [(self.net.code(x), y, self.net.code(u), v) for x, y, u, v in splits]
        data = [torch.stack(part) for part in zip(*coded, strict=True)]
        if self.runs:
            self._optimizer.join(optimizer)
            data = [torch.cat(pair) for pair in zip(self._data, data, strict=True)]
        else:
            self._optimizer = optimizer
        self._data = data
        self.runs = [*self.runs, *runs]

    def leave(self, over: Callable[[Trainee], bool]) -> list[Trainee]:
        """Let go of the runs that are over."""
        gone = [run for run in self.runs if over(run)]
        if gone:
            rows = torch.tensor([i for i, run in enumerate(self.runs) if run not in gone])
            self.runs = [run for run in self.runs if run not in gone]
            if self.runs:
                self._optimizer.keep(rows)
                self._data = [one[rows] for one in self._data]
        return gone

    def advance(self) -> None:
        """Measure, then take the steps to the next measurement."""
        code, answers, val_code, val_answers = self._data
        weights, losses = self._optimizer.weights, []
        for step in range(EVERY):
            weights.requires_grad_(True)
            logits = self.net(weights, code)
            loss = _cross_entropy(logits, answers)
            (gradient,) = torch.autograd.grad(loss.sum(), weights)
            weights.requires_grad_(False)
            losses.append(loss.detach())
            if step == 0:
                val_logits = self.net(weights, val_code)
                measured = {
                    "train_accuracy": _margins(logits.detach(), answers).gt(0).float().mean(1),
                    "val_loss": _cross_entropy(val_logits, val_answers),
                    "val_accuracy": _margins(val_logits, val_answers).gt(0).float().mean(1),
                    "val_margin": _margins(val_logits, val_answers).mean(1),
                    "grad_norm": gradient.norm(dim=1),
                    "weight_norm": weights.norm(dim=1),
                }
            self._optimizer.step(gradient)
        rows = torch.stack(list(measured.values()), 1).tolist()
        for run, curve, row in zip(self.runs, torch.stack(losses, 1).tolist(), rows, strict=True):
            run.see(curve, dict(zip(measured, row, strict=True)))


def _cross_entropy(logits: Tensor, answers: Tensor) -> Tensor:
    each = F.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none")
    return each.view(answers.shape).mean(1)


def _margins(logits: Tensor, answers: Tensor) -> Tensor:
    right = logits.gather(2, answers[..., None])
    others = logits.scatter(2, answers[..., None], -math.inf)
    return right[..., 0] - others.amax(2)


class Watch(Protocol):
    """What decides over the runs of a sweep; see `phase_watch`."""

    def begin(self, cell: Cell) -> Trainee:
        """A new run."""

    def stops(self, run: Trainee) -> bool:
        """Whether a run is to be ended before it is over."""

    def end(self, run: Trainee, record: Run) -> None:
        """Told of every run that ended, in whatever way."""


def train(
    cells: Iterable[Cell],
    task: Task,
    folder: Path,
    together: int,
    finished: Callable[[Trainee, Run], None],
    watch: Watch | None = None,
) -> None:
    """Train what the folder does not hold yet, in the order given.

    Args:
        cells: runs; those of one share of data should follow each other.
        task: what they share.
        folder: of the records.
        together: runs in the batch.
        finished: told of each run and its record.
        watch: what may end runs early; None lets each go on until it is over.

    Raises:
        ValueError: if the folder holds runs of another task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = sidecars(folder)
    for name, run in done.items():
        task.check(name, run)
    queue = [cell for cell in cells if cell.name not in done]
    batch = Batch(task)
    while queue or batch.runs:
        arriving: list[Trainee] = []
        share = batch.runs[0].cell.fraction if batch.runs else queue[0].fraction
        while queue and queue[0].fraction == share and len(batch.runs) + len(arriving) < together:
            cell = queue.pop(0)
            arriving.append(watch.begin(cell) if watch else Trainee(cell, task))
        batch.admit(arriving)
        batch.advance()
        for run in batch.leave(lambda run: run.over or (watch is not None and watch.stops(run))):
            record = run.record(folder)
            if watch:
                watch.end(run, record)
            finished(run, record)
