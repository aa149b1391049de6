"""What a loop hands to a watch, as measurements: numbers, or computed from logits and targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from grokwatch.integrations._distributed import whole
from grokwatch.integrations._drain import Refuse
from grokwatch.integrations._evaluate import accuracy as accuracy_of
from grokwatch.integrations._evaluate import evaluate

_LOCAL = (torch.Tensor, float, type(None))  # asking these would cost as much as keeping them


class Given:
    """Names measurements and computes the missing ones; wrong ones are refused, not raised.

    Args:
        percent: accuracies are meant to be 0..100.
        chance_known: the number of classes says nothing new.
        refuse: told the name of a measurement that cannot be had, and the error.
    """

    def __init__(self, percent: bool, chance_known: bool, refuse: Refuse) -> None:
        self._percent, self._chance_known, self._refuse = percent, chance_known, refuse

    def training(
        self, loss: Any, accuracy: Any, logits: Any, targets: Any, others: dict[str, Any]
    ) -> dict[str, Any]:
        """Measurements of a training batch."""
        if accuracy is None and logits is not None and targets is not None:
            computed = self._compute(["train_accuracy"], accuracy_of, logits, targets)
            accuracy = None if computed is None else self._unit(computed)
        measured = {"train_loss": loss}
        if accuracy is not None:
            measured["train_accuracy"] = accuracy
        if others:
            measured.update(others)
        return self.local(measured)

    def validation(
        self, loss: Any, accuracy: Any, margin: Any, logits: Any, targets: Any
    ) -> dict[str, Any]:
        """Measurements of a validation, and chance where the logits tell it."""
        given = {"val_loss": loss, "val_accuracy": accuracy, "val_margin": margin}
        found = self.local(given)
        if logits is not None and targets is not None:
            missing = [name for name, value in given.items() if value is None]
            computed = self._compute(missing, evaluate, logits, targets)
            if computed is not None:
                values = (computed[0], self._unit(computed[1]), computed[2])
                known = dict(zip(given, values, strict=True))
                found = {**found, **{name: known[name] for name in missing}}
                found["chance"] = None if self._chance_known else 1.0 / logits.shape[-1]
        return found

    def local(self, given: dict[str, Any]) -> dict[str, Any]:
        """Without what only all ranks together could read."""
        found = given
        for name, value in given.items():
            if type(value) not in _LOCAL and hasattr(value, "placements"):
                found = {**found, name: None}
                try:
                    found[name] = whole(name, value)
                except Exception as error:
                    self._refuse(name, error)
        return found

    def _compute(self, names: Iterable[str], compute: Callable[..., Any], *of: Any) -> Any:
        """What is computed of logits and targets; None, and these names are off, if it fails."""
        try:
            return compute(*(whole("logits and targets", tensor) for tensor in of))
        except Exception as error:
            for name in names:
                self._refuse(name, error)
            return None

    def _unit(self, fraction: torch.Tensor) -> torch.Tensor:
        return fraction * 100.0 if self._percent else fraction
