"""A sweep that grokwatch stops runs of, with a forecast that learns from those that ended."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from phase_run import Cell, Task, Trainee, sidecars

from grokwatch.records import Run, read_run
from grokwatch.sweeps import SweepForecast
from grokwatch.verdict import STOPS, Verdict

#: Note of a sidecar: what the sweep decided of the run.
DECISION = "sweep"


class Watching(NamedTuple):
    """How grokwatch watches a sweep.

    Attributes:
        seed: of the control arm.
        control_fraction: share of the runs that are never stopped.
    """

    seed: int = 0
    control_fraction: float = 0.1


class Overseer:
    """Decides over the runs of a local sweep; its state is on disk after each that ends.

    A run of the control arm is never stopped; the verdict that would have ended it is noted.

    Args:
        task: what the runs share.
        folder: of the records.
        watch: seed and size of the control arm.
    """

    def __init__(self, task: Task, folder: Path, watch: Watching) -> None:
        self.task = task
        self.sweep = SweepForecast(budget=task.budget, chance=1 / task.p, **watch._asdict())
        self._state = folder.with_name(f"{folder.name}-forecast.json")
        known: set[str] = set()
        if self._state.exists():
            saved = json.loads(self._state.read_text())
            self.sweep.load_state_dict(saved)
            known = {*saved["keys"], *saved["left_out"]}
        for name, run in sidecars(folder).items():  # what ended after the state was saved
            if name not in known:
                self._learn(read_run(folder / f"{name}.csv"), run[DECISION])

    def begin(self, cell: Cell) -> Trainee:
        """A run, judged by the forecast of this moment to its end."""
        run = Trainee(cell, self.task, forecast=self.sweep.forecast)
        run.notes[DECISION] = {
            "control": self.sweep.is_control(cell.name),
            "forecast": self.sweep.version,
            "stopped": None,
            "would_stop": None,
        }
        return run

    def stops(self, run: Trainee) -> bool:
        """Whether to end the run now."""
        verdict, decision = run.opinion.monitor.verdict, run.notes[DECISION]
        if verdict.recommendation not in STOPS:
            return False
        if decision["control"]:
            unpromising = verdict.recommendation == "stop_unpromising"
            if unpromising and decision["would_stop"] is None:
                decision["would_stop"] = verdict.as_dict()
            return False
        decision["stopped"] = verdict.as_dict()
        return True

    def end(self, run: Trainee, record: Run) -> None:
        """Learn from a run that ended, and save what is known."""
        self._learn(record, run.notes[DECISION])
        beside = self._state.with_suffix(".new")
        beside.write_text(json.dumps(self.sweep.state_dict()))
        os.replace(beside, self._state)

    def _learn(self, record: Run, decision: Mapping[str, Any]) -> None:
        verdicts = {
            key: None if decision[key] is None else Verdict.from_dict(decision[key])
            for key in ("stopped", "would_stop")
        }
        self.sweep.add(record, name=record.name, **verdicts)


def unpromising(run: Mapping[str, Any]) -> bool:
    """Whether a run was ended as unpromising."""
    stopped = run[DECISION]["stopped"]
    return stopped is not None and stopped["recommendation"] == "stop_unpromising"


def agreement(
    watched: Sequence[Mapping[str, Any]], full: Sequence[Mapping[str, Any]], budget: int
) -> dict[str, Any]:
    """A sweep with stops beside the same sweep without.

    Args:
        watched: sidecars of the sweep with stops.
        full: those without, in the same order.
        budget: steps a run may take.

    Returns:
        Share of runs and of cells with the same outcome; would-be generalisers that were stopped;
        share of the compute of those that never generalise which was saved, in all and without
        the control arm.
    """
    cells: dict[Any, list[tuple[bool, bool]]] = {}
    killed, barren, spent, arm_barren, arm_spent = [], 0, 0, 0, 0
    for one, other in zip(watched, full, strict=True):
        cell = (one["learning_rate"], one["weight_decay"])
        cells.setdefault(cell, []).append((one["t4"] is not None, other["t4"] is not None))
        if other["t4"] is not None and unpromising(one):
            killed.append([*cell, one["seed"]])
        if other["t4"] is None:
            barren += other["steps"]
            spent += one["steps"]
            if not one[DECISION]["control"]:
                arm_barren += other["steps"]
                arm_spent += one["steps"]
    runs = [pair for pairs in cells.values() for pair in pairs]
    shares = [np.mean(pairs, axis=0) > 0.5 for pairs in cells.values()]
    return {
        "runs with the same outcome": float(np.mean([a == b for a, b in runs])),
        "cells with the same outcome": float(np.mean([a == b for a, b in shares])),
        "generalisers in the full sweep": sum(b for _, b in runs),
        "generalisers stopped": killed,
        "compute saved of those that never generalise": 1 - spent / max(1, barren),
        "... without the control arm": 1 - arm_spent / max(1, arm_barren),
        "steps of both": [sum(r["steps"] for r in watched), sum(r["steps"] for r in full)],
        "budget": budget,
    }
