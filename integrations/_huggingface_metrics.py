"""Which of a Trainer's metrics are validation loss, accuracy and margin."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

from grokwatch.integrations._keys import find_key

log = logging.getLogger("grokwatch")

_MEASUREMENTS = ("val_loss", "val_accuracy", "val_margin")


class Keys:
    """Finds the keys at the first evaluation and keeps to them.

    Args:
        given: measurement -> key that the user named, or None; with or without ``eval_``.

    >>> keys = Keys({})
    >>> keys.take({"eval_loss": 2.0, "eval_accuracy": 0.5, "eval_runtime": 9.0})
    {'val_loss': 2.0, 'val_accuracy': 0.5}
    >>> keys.take({"eval_other_loss": 3.0})  # a second data set
    {}
    """

    def __init__(self, given: Mapping[str, str | None]) -> None:
        self._given = {name: key for name, key in given.items() if key is not None}
        self.found: dict[str, str] = {}
        self._seen: dict[str, None] = {}  # every key of the evaluation under way, in order
        self._settled = False

    def take(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """What these metrics hold of the three measurements."""
        if not self._settled:
            self._seen.update(dict.fromkeys(map(str, metrics)))
            for name, key in self._choose(metrics).items():
                self.found.setdefault(name, key)
        return {name: metrics[key] for name, key in self.found.items() if key in metrics}

    def _choose(self, metrics: Mapping[str, Any]) -> dict[str, str]:
        chosen: dict[str, str] = {}
        for name in _MEASUREMENTS:
            key: str | None
            if name in self._given:
                wanted = self._given[name]
                key = next((k for k in (wanted, f"eval_{wanted}") if k in metrics), None)
            elif name == "val_margin":
                key = "eval_margin" if "eval_margin" in metrics else None
            else:
                key = find_key(map(str, metrics), "val", name.removeprefix("val_"))
            if key is not None:
                chosen[name] = key
        return chosen

    def settle(self) -> None:
        """End the first evaluation, if there was one; say what was taken.

        Raises:
            LookupError: a key that the user named is not there, or nothing was found.
        """
        if self._settled or not self._seen:
            return
        self._settled = True
        there = ", ".join(self._seen) or "none"
        missing = {n: key for n, key in self._given.items() if n not in self.found}
        if missing:
            raise LookupError(
                f"the evaluation reports no {', '.join(map(repr, missing.values()))} "
                f"(wanted as {', '.join(missing)}); the keys there are: {there}."
            )
        if not self.found:
            raise LookupError(
                f"the evaluation reports neither a loss nor an accuracy; name its keys with "
                f"val_loss=... and val_accuracy=..., or give the Trainer compute_metrics; "
                f"the keys there are: {there}."
            )
        for name, key in self.found.items():
            if name not in self._given:
                log.info("%s = %r, found among the evaluation's metrics.", name, key)
        if "val_accuracy" not in self.found:
            log.info(
                "The evaluation reports no accuracy (keys: %s): the run is judged by its losses "
                "alone, which says little. Give the Trainer compute_metrics.",
                there,
            )


def logged_loss(logs: Mapping[str, Any], filtered: bool) -> float | None:
    """The training loss in a line of the Trainer's log.

    With ``logging_nan_inf_filter`` the Trainer leaves NaN losses out of the mean: a network whose
    weights are NaN reports a loss of exactly 0.0. Its gradient gives it away.

    >>> logged_loss({"loss": 0.0, "grad_norm": float("nan")}, filtered=True)
    nan
    >>> logged_loss({"loss": 0.0, "grad_norm": 0.0}, filtered=True)
    0.0
    """
    loss = logs.get("loss")
    if not isinstance(loss, (int, float)):
        return None
    norm = logs.get("grad_norm", 0.0)
    if filtered and loss == 0.0 and not math.isfinite(norm):
        return math.nan
    return float(loss)


def rows_of(
    history: Iterable[Mapping[str, Any]], keys: Keys, filtered: bool, until: int
) -> dict[int, dict[str, float]]:
    """The measurements in a Trainer's ``log_history`` up to a step, one row a step.

    >>> history = [{"loss": 2.0, "step": 10}, {"eval_loss": 3.0, "eval_acc": 0.1, "step": 10}]
    >>> rows_of(history, Keys({}), filtered=True, until=10)
    {10: {'train_loss': 2.0, 'val_loss': 3.0, 'val_accuracy': 0.1}}
    """
    rows: dict[int, dict[str, float]] = {}
    for line in history:
        step = line.get("step")
        if not isinstance(step, int) or step > until:
            continue
        found: dict[str, float] = {}
        loss = logged_loss(line, filtered)
        if loss is not None:
            found["train_loss"] = loss
        if any(str(key).startswith("eval_") for key in line):
            found.update(keys.take(line))
        for name, value in found.items():
            rows.setdefault(step, {}).setdefault(name, value)
    return dict(sorted(rows.items()))
