"""What a forecast gets and gives. ``Monitor(forecast=...)`` takes anything with ``outlook``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from grokwatch.history import History
from grokwatch.verdict import Phase


@dataclass(frozen=True, slots=True)
class Settings:
    """What is known of a run beforehand; None = not told."""

    budget: int
    chance: float | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    train_fraction: float | None = None
    max_kill_rate: float = 0.02


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a forecast may look at: a function of the observations up to ``step``.

    Attributes:
        step: the optimiser step now.
        phase: where the run stands.
        signals: everything measured so far (milestones t1..t4, trends, spectral, spikes, ...).
        history: the whole run in log-time bins, by measurement.
        settings: what is known of the run beforehand.
        chance: accuracy of guessing, as told or as first seen; None before any is known.
        by_loss: no validation accuracy was ever reported; t3 and t4 are guesses from the loss.
    """

    step: int
    phase: Phase
    signals: Mapping[str, float]
    history: History
    settings: Settings
    by_loss: bool
    chance: float | None = None
    chance_is_guess: bool = False


@dataclass(frozen=True, slots=True)
class Outlook:
    """A forecast's answer.

    Attributes:
        probability: P(generalises within the budget), or None for insufficient evidence.
        eta: (low, median, high) step of generalisation, an 80 % interval, or None.
        reason: one sentence.
        unpromising: stopping now keeps within the permitted kill rate.
    """

    probability: float | None
    eta: tuple[float, float, float] | None
    reason: str
    unpromising: bool = False


class Forecaster(Protocol):
    """A pure function of the evidence: same evidence, same outlook."""

    def outlook(self, evidence: Evidence) -> Outlook:
        """Judge a run that has not generalised yet."""
