"""Feature rows, made only by replaying corpus runs through ``Monitor``: no train/serve skew.

A run is replayed once as recorded ("full": every row, nothing missing, except what a cheap logger
leaves out) and several times as users log: validation at a random cadence, measurements missing.
Each verdict before t4 is one row.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import grokwatch
from benchmarks.corpus.load import Run
from grokwatch import Monitor, Verdict, replay
from grokwatch.forecast.base import Evidence, Forecaster, Outlook
from grokwatch.forecast.features import NAMES, features
from grokwatch.ingest import MEASUREMENTS

VALIDATION = ("val_loss", "val_accuracy", "val_margin")
NORMS = ("grad_norm", "weight_norm")


@dataclass(frozen=True)
class Rows:
    """Feature rows of many runs.

    Attributes:
        x: features, shape (n, len(NAMES)).
        step: step of the verdict, shape (n,).
        run: index into ``metas``, shape (n,).
        metas: labels and settings of each run.
    """

    x: npt.NDArray[np.float32]
    step: npt.NDArray[np.int64]
    run: npt.NDArray[np.int64]
    metas: list[dict[str, Any]]


class _Recorder:
    """A forecast that only writes down what a forecast would see."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, npt.NDArray[np.float32]]] = []

    def outlook(self, evidence: Evidence) -> Outlook:
        if self.rows and self.rows[-1][0] == evidence.step:
            self.rows.pop()
        self.rows.append((evidence.step, features(evidence).astype(np.float32)))
        return Outlook(None, None, "recording")


def thin(run: Run, variant: int) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """The run's columns as somebody might have logged them; variant 0 leaves nothing out."""
    columns = {name: column for name, column in run.columns.items() if name in MEASUREMENTS}
    if variant == 0:
        return columns
    rng = np.random.default_rng([hash_of(run.meta["id"]), variant])
    every = int(rng.choice([1, 10, 20, 50, 100, 200, 400], p=[0.1, 0.2, 0.2, 0.2, 0.15, 0.1, 0.05]))
    missing: set[str] = set()
    if rng.random() < 0.3:
        missing.add("val_margin")
    if rng.random() < 0.3:
        missing.update(NORMS)
    if rng.random() < 0.1:
        missing.add("train_accuracy")
    if rng.random() < 0.05:
        missing.add("val_loss")
    kept = {}
    for name, (steps, values) in columns.items():
        if name in missing:
            continue
        if name in VALIDATION:
            slot = steps // every
            first = np.concatenate([[True], np.diff(slot) > 0])
            steps, values = steps[first], values[first]
        kept[name] = (steps, values)
    return kept


def hash_of(text: str) -> int:
    """A stable number for a name."""
    return int.from_bytes(text.encode()[-8:], "big") % 2**31


def verdicts(
    run: Run, forecast: Forecaster | None, variant: int, told: bool = False
) -> list[Verdict]:
    """Every verdict of one replay, at most one a step; ``told`` = hyper-parameters are given."""
    classes = run.meta.get("n_classes")
    monitor = Monitor(
        budget=max(1, int(run.meta["horizon"])),
        chance=1.0 / classes if classes else None,
        forecast=forecast,
        **(hyper_parameters(run.meta) if told else {}),
    )
    monitor._analyzer.transition.refit = lambda: None  # costly, and no forecast looks at it
    return replay(grokwatch.Run(thin(run, variant), name=run.meta["id"]), monitor).verdicts


def hyper_parameters(meta: dict[str, Any]) -> dict[str, float]:
    """What a user could tell a monitor beforehand."""
    told = {"learning_rate": "lr", "weight_decay": "weight_decay", "train_fraction": "r"}
    if meta.get("operator") == "parity":  # r stands for a number of examples there
        del told["train_fraction"]
    return {name: float(meta[key]) for name, key in told.items() if meta.get(key) is not None}


def replay_rows(job: tuple[Run, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Steps and features of every verdict of one replay."""
    run, variant = job
    recorder = _Recorder()
    verdicts(run, recorder, variant, told=True)
    if not recorder.rows:
        return np.empty(0, np.int64), np.empty((0, len(NAMES)), np.float32)
    steps, x = zip(*recorder.rows, strict=True)
    return np.array(steps), np.stack(x)


def make_rows(runs: list[Run], variants: tuple[int, ...], processes: int = 2) -> Rows:
    """Replay every run in every variant."""
    jobs = [(run, variant) for run in runs for variant in variants]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(processes) as pool:
        done = list(pool.map(replay_rows, jobs, chunksize=8))
    metas = [{**run.meta, "variant": variant} for run, variant in jobs]
    sizes = [len(steps) for steps, _ in done]
    return Rows(
        x=np.concatenate([x for _, x in done]),
        step=np.concatenate([steps for steps, _ in done]),
        run=np.repeat(np.arange(len(jobs)), sizes),
        metas=metas,
    )


def join(parts: list[Rows]) -> Rows:
    """Rows of several lots of runs as one."""
    offsets = np.cumsum([0, *(len(part.metas) for part in parts)])[:-1]
    return Rows(
        x=np.concatenate([part.x for part in parts]),
        step=np.concatenate([part.step for part in parts]),
        run=np.concatenate([part.run + o for part, o in zip(parts, offsets, strict=True)]),
        metas=[meta for part in parts for meta in part.metas],
    )
