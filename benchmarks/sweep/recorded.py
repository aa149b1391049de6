"""Recorded sweeps: what a sweep would have seen of each of its trials.

Every trial is logged alike, as a trial reports to an engine: training and validation loss and
accuracy, validation every 50 steps, budget, classes and hyper-parameters told.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import grokwatch
from benchmarks.corpus.load import Run as CorpusRun
from benchmarks.corpus.load import load
from benchmarks.forecast.dataset import hyper_parameters
from benchmarks.forecast.fit import made_by
from benchmarks.forecast.own_sweep import sweep as plus_grid
from benchmarks.sweep.grids import OUT, grid
from grokwatch.forecast._own_record import OwnRun, replay_one
from grokwatch.records import read_run

EVERY = 50
REPORTED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
#: A run whose recorded t4 is later than what the replay saw of it was ended at once.
_AFTER_T4 = 100

Meta = dict[str, Any]


@dataclass(frozen=True)
class Recorded:
    """One trial of a recorded sweep.

    Attributes:
        run: what it reported.
        own: what a forecast sees of it.
        t4: when it generalised, by the corpus's dense labels; None = not within the budget.
        diverged: whether it did.
        cell: of the phase diagram.
    """

    run: grokwatch.Run
    own: OwnRun
    t4: float | None
    diverged: bool
    cell: tuple[Any, ...]

    @property
    def never(self) -> bool:
        """Neither generalised nor diverged."""
        return self.t4 is None and not self.diverged

    @property
    def end(self) -> int:
        """The step at which it ends if it is not stopped as unpromising."""
        if self.t4 is not None:
            return min(int(self.t4) + _AFTER_T4, self.own.budget)
        return self.own.last if self.diverged else self.own.budget


def _corpus(kind: str, wanted: Callable[[Meta], bool] = lambda meta: True) -> list[Recorded]:
    runs = [run for run in load(kinds=(kind,)) if run.meta["split"] == "calibrate"]
    return [recorded(run) for run in runs if wanted(run.meta)]


def _adamw(meta: Meta) -> bool:
    return bool(meta["optimiser"] == "adamw")


#: Sweeps by name. No rule of a sweep was chosen on those after "grid".
SWEEPS: dict[str, Callable[[], list[Recorded]]] = {
    "random MLPs": lambda: _corpus("mlp"),
    "transformers": lambda: _corpus("transformer", _adamw),
    "deep": lambda: _corpus("deep", _adamw),
    "cells": lambda: _corpus("cells"),
    "grid": lambda: [recorded(run) for run in plus_grid()],
    "times": lambda: [recorded(run) for run in grid("times")],
    "embedded": lambda: [recorded(run) for run in grid("embedded")],
    "long times": lambda: [recorded(run) for run in grid("long times")],
    "long embedded": lambda: [recorded(run) for run in grid("long embedded")],
}


def recorded(run: CorpusRun) -> Recorded:
    """A corpus run as a trial of a sweep."""
    columns = {}
    for name in REPORTED:
        if name in run.columns:
            steps, values = run.columns[name]
            first = np.concatenate([[True], np.diff(steps // EVERY) > 0])
            columns[name] = (steps[first], values[first])
    meta = run.meta
    settings = {"budget": int(meta["horizon"]), "chance": 1.0 / meta["n_classes"]}
    cell = (meta["lr"], meta["weight_decay"], meta["r"], meta.get("cell"))
    return _seen(
        grokwatch.Run(columns, {**settings, **hyper_parameters(meta)}, meta["id"]),
        meta["t4"],
        bool(meta["diverged"]),
        cell,
    )


def from_folder(folder: Path) -> list[Recorded]:
    """The finished runs of ``examples/phase_diagram.py``: CSV files with a sidecar each."""
    found = []
    for sidecar in sorted(folder.glob("*.json")):
        run = read_run(sidecar.with_suffix(".csv"))
        if "clip" in sidecar.stem:
            continue
        columns = {}
        for name in REPORTED:
            steps, values = run.columns[name]
            first = np.concatenate([[True], np.diff(steps // EVERY) > 0])
            columns[name] = (steps[first], values[first])
        settings = run.settings
        cell = (settings["learning_rate"], settings["weight_decay"], settings["train_fraction"])
        t4 = run.notes.get("t4")
        thinned = grokwatch.Run(columns, settings, sidecar.stem)
        found.append(_seen(thinned, t4, False, cell))
    return found


def _seen(run: grokwatch.Run, t4: float | None, diverged: bool, cell: tuple[Any, ...]) -> Recorded:
    own = replay_one(run, run.settings)
    if isinstance(own, str):
        raise ValueError(f"not a trial of a sweep: {own}")
    if t4 is not None and t4 > own.budget:
        t4 = None
    return Recorded(run, own, t4, diverged, cell)


def recorded_sweep(name: str) -> list[Recorded]:
    """One of :data:`SWEEPS`; kept in ``out``, because replaying takes a minute."""
    source = Path(__file__).read_bytes() + made_by().encode()
    OUT.mkdir(parents=True, exist_ok=True)
    mark = hashlib.sha256(source).hexdigest()[:8]
    kept = OUT / f"{name.replace(' ', '-')}-{mark}.pickle"
    if not kept.exists():
        kept.write_bytes(pickle.dumps(SWEEPS[name]()))
    found: list[Recorded] = pickle.loads(kept.read_bytes())
    return found
