"""Finds loss and accuracy in what a Lightning module returns and logs; reads only what is new."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from grokwatch.integrations._keys import find_key

log = logging.getLogger("grokwatch")

_TRAIN = {"loss": "train_loss", "accuracy": "train_accuracy"}


class Metrics:
    """Reads one trainer's metrics.

    Args:
        keys: measurement -> key that the user named; what is missing here is looked for.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._named = dict(keys)
        self._keys = dict(keys)  # grows as keys are found
        self._in_outputs: dict[str, str] | None = None  # likewise, in what training_step returns
        self.by_step: list[str] = []  # training measurements logged step by step
        self._seen: dict[str, Any] = {}  # the last value read: if it is still there, it is stale

    def batch(self, outputs: Any, scale: int) -> dict[str, Any]:
        """Loss and accuracy in the outputs of a batch; ``scale`` undoes Lightning's division."""
        if isinstance(outputs, torch.Tensor):
            outputs = {"loss": outputs}
        if not isinstance(outputs, Mapping) or not outputs:
            return {}
        if self._in_outputs is None:
            self._in_outputs = self._find_in(outputs)
        found = {name: outputs.get(key) for name, key in self._in_outputs.items()}
        if scale != 1 and self._in_outputs.get("loss") == "loss" and found["loss"] is not None:
            found["loss"] = found["loss"] * scale
        return found

    def _find_in(self, outputs: Mapping[str, Any]) -> dict[str, str]:
        scalars = [key for key, value in outputs.items() if _is_scalar(value)]
        found: dict[str, str] = {}
        for quantity, name in _TRAIN.items():
            named = self._named.get(name)
            key = find_key(scalars, "train", quantity) if named is None else named
            if quantity == "loss" and named is None and "loss" in scalars:
                key = "loss"  # what is optimised, whatever else there is
            if key in scalars:
                found[quantity] = key
                log.info("%s = %r, returned by training_step.", name, key)
        return found

    def logged_by_step(self, metrics: Mapping[str, Any], have: Mapping[str, Any]) -> dict[str, Any]:
        """What the outputs do not have but the module logged for this very step."""
        found = {}
        for quantity, name in _TRAIN.items():
            if have.get(quantity) is None:
                value = self._fresh(metrics, name)
                if value is not None:
                    found[quantity] = value
                    if name not in self.by_step:
                        self.by_step.append(name)
        return found

    def logged_by_epoch(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Training measurements that exist only as means over an epoch."""
        have = self._in_outputs or {}
        return {
            name: self._fresh(metrics, name)
            for quantity, name in _TRAIN.items()
            if quantity not in have and name not in self.by_step
        }

    def validation(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Validation loss and accuracy, under the monitor's names.

        Raises:
            ValueError: a key that the user named is missing, or none can be found.
        """
        found = {name: self._fresh(metrics, name) for name in ("val_loss", "val_accuracy")}
        missing = [key for name, key in self._named.items() if self._lacks(name, key, metrics)]
        there = ", ".join(sorted(map(repr, metrics))) or "none"
        if missing:
            raise ValueError(
                f"{', '.join(map(repr, missing))} is not among the logged metrics; there are: "
                f"{there}."
            )
        if not self._keys.keys() & {"val_loss", "val_accuracy"}:
            raise ValueError(
                f"found neither a validation loss nor a validation accuracy among the logged "
                f"metrics; there are: {there}. Name them, as in "
                f"GrokWatchCallback(val_loss='...', val_accuracy='...')."
            )
        return found

    def _lacks(self, name: str, key: str, metrics: Mapping[str, Any]) -> bool:
        in_outputs = (self._in_outputs or {}).values()
        return name not in self._seen and key not in metrics and key not in in_outputs

    def _fresh(self, metrics: Mapping[str, Any], name: str) -> Any:
        """The value of a measurement, unless it is the very object read before."""
        key = self._keys.get(name)
        if key is None:
            side, quantity = name.split("_")
            key = find_key(metrics, side, quantity)
            if key is None:
                return None
            self._keys[name] = key
            log.info("%s = %r, logged by the module.", name, key)
        value = metrics.get(key)
        if value is None or value is self._seen.get(name):
            return None
        self._seen[name] = value
        return value


def _is_scalar(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, (int, float)) and not isinstance(value, bool)
