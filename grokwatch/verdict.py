"""What the monitor says: :class:`Verdict` and its two vocabularies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from grokwatch.state import take

Phase = Literal[
    "unknown", "confusion", "memorisation", "transition", "generalised", "ungrokked", "diverged"
]
Recommendation = Literal["continue", "stop_unpromising", "stop_generalised", "stop_diverged"]

#: The recommendations that count as "stop" unless told otherwise.
STOPS: tuple[Recommendation, ...] = ("stop_unpromising", "stop_generalised", "stop_diverged")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The monitor's opinion at one step.

    Attributes:
        step: the optimiser step it was formed at.
        phase: where the run stands; "unknown" before there is anything to judge by.
        probability: P(generalises within the budget | seen so far); None = insufficient evidence.
        eta: (low, median, high) optimiser step of generalisation, an 80 % interval; None = no idea.
        recommendation: what to do; acting on it is up to you.
        reason: one sentence a person can act on.
        signals: everything measured, name to value; only what is known and finite.
    """

    step: int
    phase: Phase
    probability: float | None
    eta: tuple[float, float, float] | None
    recommendation: Recommendation
    reason: str
    signals: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain, JSON-able form; :meth:`from_dict` is its inverse."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        plain["eta"] = None if self.eta is None else list(self.eta)
        plain["signals"] = dict(self.signals)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Verdict:
        """The verdict that :meth:`as_dict` wrote."""
        eta = take(plain, "eta")
        return cls(
            step=take(plain, "step"),
            phase=take(plain, "phase"),
            probability=take(plain, "probability"),
            eta=None if eta is None else (eta[0], eta[1], eta[2]),
            recommendation=take(plain, "recommendation"),
            reason=take(plain, "reason"),
            signals=dict(take(plain, "signals")),
        )


def check_stop_on(stop_on: str | Iterable[str]) -> tuple[Recommendation, ...]:
    """Return ``stop_on`` as a tuple of known stop recommendations, or raise."""
    chosen = (stop_on,) if isinstance(stop_on, str) else tuple(stop_on)
    unknown = [item for item in chosen if item not in STOPS]
    if unknown:
        raise ValueError(f"stop_on knows {list(STOPS)}, but got {unknown}.")
    return tuple(item for item in STOPS if item in chosen)


PHASES: tuple[Phase, ...] = get_args(Phase)
