"""One run of a sweep: what it is, what it has measured, what its monitor says, its record."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _experiment import Opinion, plain

from grokwatch.records import Run, write_csv
from grokwatch.signals.spectral import signature
from grokwatch.signals.trend import slope

EARLY = 400  # steps of the paper's spectral energy


class Cell(NamedTuple):
    """What one run differs from the others in.

    >>> Cell(1e-3, 0.4, 0.5, 2).name
    'lr0.001_wd0.4_r0.5_seed2'
    """

    rate: float
    decay: float
    fraction: float
    seed: int
    clip: float = math.inf

    @property
    def name(self) -> str:
        """Of the record."""
        clip = "" if math.isinf(self.clip) else f"_clip{self.clip:g}"
        return f"lr{self.rate:g}_wd{self.decay:g}_r{self.fraction:g}{clip}_seed{self.seed}"


class Task(NamedTuple):
    """What all runs share: modulus, width of the network, steps a run may take."""

    p: int
    width: int
    budget: int

    @property
    def words(self) -> str:
        """For the sidecar."""
        return f"a + b mod {self.p}, a <= b"

    def check(self, name: str, run: Mapping[str, Any]) -> None:
        """Raise ValueError if a run on disk was of another task."""
        for key, mine in (("task", self.words), ("width", self.width), ("budget", self.budget)):
            if run[key] != mine:
                raise ValueError(
                    f"{name} was run with {key} {run[key]} and not {mine}; choose another --out."
                )


class Trainee:
    """One run of the batch: its data, its curves so far, its monitor."""

    def __init__(self, cell: Cell, task: Task, **settings: Any) -> None:
        self.cell, self.task = cell, task
        self.step = 0
        self.columns: dict[str, tuple[list[int], list[float]]] = {}
        self.opinion = Opinion(
            task.budget,
            chance=1 / task.p,
            learning_rate=cell.rate,
            weight_decay=cell.decay,
            train_fraction=cell.fraction,
            **settings,
        )
        self.notes: dict[str, Any] = {}  # for the sidecar

    def see(self, losses: Sequence[float], measured: dict[str, float]) -> None:
        """Take the losses of some steps, and what was measured at the first of them."""
        for loss in losses:
            row = {"train_loss": loss, **measured}
            for name, value in row.items():
                steps, values = self.columns.setdefault(name, ([], []))
                steps.append(self.step)
                values.append(value)
            self.opinion.see(self.step, **row)
            self.step += 1
            measured = {}
            if not math.isfinite(loss):
                break

    @property
    def over(self) -> bool:
        """At the budget, diverged, or well past its generalisation."""
        if self.step == 0:
            return False
        if self.step >= self.task.budget or not math.isfinite(self.columns["train_loss"][1][-1]):
            return True
        t4 = self.opinion.monitor.verdict.signals.get("t4")
        return t4 is not None and self.step >= max(1.3 * t4, t4 + 1000)

    def record(self, folder: Path) -> Run:
        """Write the run down; its sidecar holds its notes and settings."""
        monitor = self.opinion.monitor
        settings = {
            "budget": self.task.budget,
            "chance": 1 / self.task.p,
            "learning_rate": self.cell.rate,
            "weight_decay": self.cell.decay,
            "train_fraction": self.cell.fraction,
        }
        beside = self.opinion.beside()
        notes = {
            "seed": self.cell.seed,
            "clip": None if math.isinf(self.cell.clip) else self.cell.clip,
            "task": self.task.words,
            "width": self.task.width,
            "steps": self.step,
            "t2": beside["t2"],
            "t4": beside["t4"],
            "diverged": not math.isfinite(self.columns["train_loss"][1][-1]),
            "probability": monitor.verdict.probability,
            "grokwatch": beside,
            **early_figures(self.columns),
            **{f"last_{name}": values[-1] for name, (_, values) in self.columns.items()},
            **self.notes,
        }
        columns = {
            name: (np.array(steps), np.array(values, np.float32))
            for name, (steps, values) in self.columns.items()
        }
        run = Run(columns, settings, self.cell.name, plain(notes))
        write_csv(run, folder / f"{run.name}.csv")
        return run


def early_figures(columns: dict[str, tuple[list[int], list[float]]]) -> dict[str, float | None]:
    """What the first 400 steps say: energies of the training loss, level and trend of validation.

    "activity" is the variance (the paper's energy, mean removed, over its 400 steps), "energy" the
    plain ∫L²; "fast log energy" is that of log10 L without what is slower than 50 steps. The trend
    is the slope of the logarithm of the validation loss per doubling of the step, from 100 to 400.
    None for what a shorter or diverged run does not have.
    """
    losses = np.array(columns["train_loss"][1][:EARLY])
    names = ("activity", "energy", "fast log energy", "train loss", "val loss", "val loss trend")
    if len(losses) < EARLY or not np.isfinite(losses).all():
        return dict.fromkeys(f"early_{name.replace(' ', '_')}" for name in names)
    steps, values = (np.array(one, float) for one in columns["val_loss"])
    late = (steps >= EARLY // 4) & (steps <= EARLY)
    logs = np.log10(np.maximum(losses, 1e-12))
    figures = (
        signature(losses).activity,
        signature(losses, None).energy,
        signature(logs, "highpass").activity,
        losses[-1],
        values[late][-1],
        slope(steps[late], np.log(values[late])),
    )
    return {f"early_{n.replace(' ', '_')}": float(f) for n, f in zip(names, figures, strict=True)}


def sidecars(folder: Path) -> dict[str, dict[str, Any]]:
    """Finished runs by name; one whose sidecar was cut off by a crash is not among them."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text())
        except ValueError:
            continue
    return found
