"""Trials for sweeps: real recorded runs, reported again row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from grokwatch import Verdict
from tests.curves import recorded

BUDGET, CHANCE = 6000, 1 / 23
CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


@cache
def rows(kind: str, every: int = 4) -> list[tuple[int, dict[str, float]]]:
    """Every n-th validation of a recorded run within the budget, and what came with it."""
    found = [
        (step, {name: row[name] for name in CURVES if name in row})
        for step, row in recorded(kind).rows()
        if "val_accuracy" in row and step <= BUDGET
    ]
    return found[::every]


def reported(config: dict[str, Any]) -> Iterator[tuple[int, dict[str, float]]]:
    """The rows of a trial: ``kind`` says of which run, ``every`` how many of them."""
    return iter(rows(config["kind"], config.get("every", 4)))


def without_fits(verdict: Verdict) -> Verdict:
    """A monitor's verdict as a sweep gives it: nothing is fitted to the jump, all else is equal."""
    fitted = ("transition_", "train_transition_", "relative_", "absolute_")
    signals = {k: v for k, v in verdict.signals.items() if not k.startswith(fitted)}
    return replace(verdict, signals=signals)
