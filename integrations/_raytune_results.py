"""Finds step, losses and accuracies in what a trial reports to Ray Tune."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from grokwatch._readers.names import STEPS, plain
from grokwatch.ingest import MEASUREMENTS, check_step
from grokwatch.integrations._keys import find_key
from grokwatch.integrations._sweep_trials import Faults

log = logging.getLogger("grokwatch")

ITERATION = "training_iteration"
_GUESSED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
_BY_NAME = tuple(name for name in MEASUREMENTS if name not in (*_GUESSED, "learning_rate"))
_LOOKED_ENOUGH = 10  # results after which a key that was named should have come


class Results:
    """Reads the results of one experiment's trials.

    Args:
        step: key of the optimiser step; None = looked for, else ``training_iteration``.
        metrics: measurement -> key; the others are looked for.
        faults: told, once, of what is missing.

    Raises:
        ValueError: ``metrics`` names a measurement that grokwatch does not know.
    """

    def __init__(self, step: str | None, metrics: Mapping[str, str] | None, faults: Faults) -> None:
        named = dict(metrics or {})
        unknown = sorted(named.keys() - MEASUREMENTS.keys())
        if unknown:
            raise ValueError(
                f"metrics knows {list(MEASUREMENTS)}, but got {unknown}; it maps a measurement to "
                f"the key under which it is reported."
            )
        self._named, self._faults = named, faults
        self._step, self._step_named = step, step is not None
        self._keys = dict(named)  # grows as keys are found
        self._never_seen = set(named.values())
        self._looked = 0

    def read(self, result: Mapping[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Step and measurements of a result; None if it holds none."""
        flat = {k: v for k, v in flatten(result).items() if not k.startswith("config/")}
        self._look(flat)
        measured = {name: flat[key] for name, key in self._keys.items() if key in flat}
        if not measured:
            self._faults.once(
                "no measurement",
                f"no loss or accuracy was found in a result; its keys are: {_names(flat)}. Name "
                f"them, as in metrics={{'val_loss': '...', 'val_accuracy': '...'}}.",
            )
            return None
        step = self._step_of(flat)
        return None if step is None else (step, measured)

    def _look(self, flat: Mapping[str, Any]) -> None:
        for name in MEASUREMENTS:
            if name in self._keys:
                continue
            key = None
            if name in _GUESSED:
                side, quantity = name.split("_")
                key = find_key(flat, side, quantity)
            elif name in _BY_NAME:
                key = next((key for key in flat if plain(key) == name), None)
            if key is not None:
                self._keys[name] = key
                log.info("%s = %r, reported by the trials.", name, key)
        self._never_seen -= flat.keys()
        self._looked += 1
        if self._never_seen and self._looked >= _LOOKED_ENOUGH:
            wrong = sorted(self._never_seen)
            self._faults.once(
                "metrics",
                f"metrics names {', '.join(map(repr, wrong))}, which no trial has reported in "
                f"{self._looked} results; the last one's keys are: {_names(flat)}.",
            )

    def _step_of(self, flat: Mapping[str, Any]) -> int | None:
        if self._step is None:
            known = {plain(key): key for key in flat}
            self._step = next((known[name] for name in STEPS if name in known), ITERATION)
            if self._step == ITERATION:
                log.warning(
                    "no optimiser step is reported: taking %r, so the budget counts these. "
                    "Report it, or name it: step='...'.", ITERATION,
                )  # fmt: skip
            else:
                log.info("step = %r, reported by the trials.", self._step)
        wrong = "is missing"
        if self._step in flat:
            value = flat[self._step]
            whole = hasattr(value, "is_integer") and value.is_integer()  # 10.0 will do
            try:
                return check_step(int(value) if whole else value)
            except (TypeError, ValueError) as error:
                wrong = f"is wrong: {error}"
        self._faults.once(
            "step",
            f"a result is left out, its step, {self._step!r}, {wrong.rstrip('.')}. Its keys are: "
            f"{_names(flat)}.",
        )
        return None


def flatten(nested: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings by ``a/b`` path.

    >>> flatten({"val": {"loss": 1.0}, "done": False})
    {'val/loss': 1.0, 'done': False}
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{above}{key}/")
        else:
            flat[f"{above}{key}"] = value
    return flat


def _names(flat: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(repr, flat))) or "none"
