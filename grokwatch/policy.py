"""From what is known to a recommendation; policies wrap one another.

A policy is a pure function ``decide(facts, memory) -> (recommendation, memory)``; the monitor
keeps the memory (plain JSON-able Python) between steps, so that judging one step twice, as when
validation arrives after training, cannot count twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from grokwatch.forecast.base import Outlook
from grokwatch.verdict import Phase, Recommendation


@dataclass(frozen=True, slots=True)
class Facts:
    """What a policy decides on."""

    step: int
    phase: Phase
    by_loss: bool
    outlook: Outlook


class Policy(Protocol):
    """Decides on a recommendation."""

    def decide(self, facts: Facts, memory: Any) -> tuple[Recommendation, Any]:
        """The recommendation and the memory for the next step; memory starts as None."""


class StandardPolicy:
    """Stop when diverged, when generalised (by accuracy), or when the forecast calls it safe.

    A loss alone cannot show that a run has generalised, so runs without accuracies are never
    recommended for stopping on that ground.

    >>> outlook = Outlook(None, None, "")
    >>> StandardPolicy().decide(Facts(9, "diverged", False, outlook), None)
    ('stop_diverged', None)
    >>> StandardPolicy().decide(Facts(9, "generalised", True, outlook), None)
    ('continue', None)
    """

    def decide(self, facts: Facts, memory: Any) -> tuple[Recommendation, Any]:
        """See :class:`Policy`."""
        if facts.phase == "diverged":
            return "stop_diverged", None
        if facts.phase == "generalised" and not facts.by_loss:
            return "stop_generalised", None
        if facts.outlook.unpromising and facts.phase not in ("generalised", "ungrokked"):
            return "stop_unpromising", None
        return "continue", None


class Confirmed:
    """Lets ``stop_unpromising`` through only after ``evaluations`` verdicts in a row.

    >>> policy = Confirmed(StandardPolicy(), evaluations=2)
    >>> bad = Facts(9, "memorisation", False, Outlook(0.01, None, "", unpromising=True))
    >>> first, memory = policy.decide(bad, None)
    >>> second, memory = policy.decide(bad, memory)
    >>> first, second
    ('continue', 'stop_unpromising')
    """

    def __init__(self, policy: Policy, evaluations: int = 2) -> None:
        if evaluations < 1:
            raise ValueError(f"evaluations must be at least 1 but got {evaluations}.")
        self.policy, self.evaluations = policy, evaluations

    def decide(self, facts: Facts, memory: Any) -> tuple[Recommendation, Any]:
        """See :class:`Policy`."""
        row, inner = memory or (0, None)
        choice, inner = self.policy.decide(facts, inner)
        row = min(row + 1, self.evaluations) if choice == "stop_unpromising" else 0
        if choice == "stop_unpromising" and row < self.evaluations:
            choice = "continue"
        return choice, [row, inner]
