"""Curves that several tests share: invented ones, and ones that gradient descent gave."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from grokwatch.records import Run, read_run

GOLDEN = Path(__file__).parent / "golden"

Curve = tuple[list[int], list[float]]


@cache
def recorded(name: str) -> Run:
    return read_run(GOLDEN / f"{name}.jsonl")


def measured(name: str, column: str, start: int = 0, count: int | None = None) -> Curve:
    """Part of a column of a recorded real run."""
    steps, values = recorded(name).columns[column]
    stop = None if count is None else start + count
    return steps[start:stop].tolist(), values[start:stop].tolist()


def as_curve(steps: np.ndarray, values: np.ndarray) -> Curve:
    return steps.tolist(), values.astype(np.float32).tolist()


def invented_losses() -> dict[str, Curve]:
    noise = np.random.default_rng(7)
    n = np.arange(900)
    falling = 4.6 * np.exp(-n / 150) + 1e-3 * np.exp(noise.normal(0, 0.3, n.size))
    swinging = 1 + 0.5 * np.sin(0.7 * n) + 0.1 * np.cos(2.9 * n) + 0.01 * noise.normal(size=n.size)
    spiky = 1e-4 * np.exp(noise.normal(0, 0.2, n.size))
    for at, decades in ((200, 1.5), (420, 3.0), (433, 2.0), (700, 4.0)):
        spiky[at : at + 60] *= 10 ** (decades * np.exp(-np.arange(60) / 8))
    gaps = np.sort(noise.choice(980, 900, replace=False)) + 5_000  # starts late, steps are missing
    return {
        "falling": as_curve(n, falling),
        "swinging": as_curve(n, swinging),
        "spiky": as_curve(n, spiky),
        "with gaps": as_curve(gaps, falling),
    }


def real_losses() -> dict[str, Curve]:
    return {
        "real, grokking": measured("grokker", "train_loss", 1700, 900),
        "real, slingshots": measured("slingshot", "train_loss", 400, 900),
    }


LOSSES = invented_losses() | real_losses()


def invented_accuracies() -> dict[str, Curve]:
    noise = np.random.default_rng(3)
    late = np.arange(0, 4000, 10)
    sharp = np.arange(0, 900)
    sparse = np.cumsum(noise.integers(20, 200, 120))
    waver = 0.95 + 0.1 * np.sin(sharp / 30) + 0.02 * noise.normal(size=sharp.size)
    return {
        "smooth": as_curve(late, 1 / (1 + np.exp(-(late - 2000) / 150))),
        "sharp": as_curve(sharp, np.where(sharp < 300, 0.1, 1.0)),
        "wavering": as_curve(sharp, np.clip(waver, 0, 1)),
        "sparse": as_curve(sparse, np.clip(sparse / sparse[-1] * 1.3, 0, 1)),
    }


def real_accuracies() -> dict[str, Curve]:
    return {
        "real, grokking": measured("grokker", "val_accuracy"),
        "real, immediate": measured("immediate", "val_accuracy"),
        "real, training": measured("grokker", "train_accuracy", 0, 600),
    }


ACCURACIES = invented_accuracies() | real_accuracies()
