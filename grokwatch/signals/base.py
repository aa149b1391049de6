"""The contract of a signal, built in or a user's own.

A signal takes measurements one at a time and is read at any moment::

    class Drop:                                    # how far the training loss is below its start
        name = "drop"
        inputs = ("train_loss",)                   # the measurements it wants
        def __init__(self): self.first = self.last = None
        def update(self, step, name, value):
            self.first = value if self.first is None else self.first
            self.last = value
        def values(self): return {} if self.first is None else {"drop": self.first - self.last}
        def state_dict(self): return {"first": self.first, "last": self.last}
        def load_state_dict(self, state): self.first, self.last = state["first"], state["last"]

``Monitor(signals=[Drop()])`` adds what ``values`` returns to ``verdict.signals``. An input that
grokwatch does not know (``"embedding_fourier"``) becomes a measurement that ``Monitor.update``
accepts, records and replays. ``grokwatch.checks.check_signal`` tells whether a signal keeps the
contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Signal(Protocol):
    """What ``Monitor(signals=[...])`` accepts."""

    name: str
    inputs: tuple[str, ...]

    def update(self, step: int, name: str, value: float) -> None:
        """Take one measurement; steps never fall; measurements of one step come in any order."""

    def values(self) -> Mapping[str, float]:
        """What is known now, without changing anything; unknown or non-finite values left out."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as plain JSON-able Python."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
