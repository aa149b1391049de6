"""Where a sweep stands: what was spent and saved, and what the control arm says of the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import beta

from grokwatch._sweep_record import Trial

_CONFIDENCE = 0.9


@dataclass(frozen=True)
class SweepReport:
    """Where a sweep stands.

    Attributes:
        runs: trials that ended, in whatever way.
        finished: of these, those left to show their outcome.
        stopped: those stopped as unpromising.
        generalised: those that did.
        control: trials of the control arm that ended.
        control_generalised: of these, those that generalised.
        killed_in_control: of these, those that would have been stopped before they had.
        kill_rate: its share, or None without any that generalised.
        kill_interval: 90 % interval of that share (Clopper and Pearson).
        steps_spent: optimiser steps of all trials.
        steps_saved: what the stopped ones would have taken to the end of their budget.
        share_saved: steps_saved / (steps_spent + steps_saved).
        left_out: trials that could not be learnt from.
        rule: how a trial that begins now is stopped, in words.
        version: how often the forecast was refitted.
    """

    runs: int
    finished: int
    stopped: int
    generalised: int
    control: int
    control_generalised: int
    killed_in_control: int
    kill_rate: float | None
    kill_interval: tuple[float, float]
    steps_spent: int
    steps_saved: int
    share_saved: float
    left_out: int
    rule: str
    version: int

    def as_dict(self) -> dict[str, Any]:
        """Plain, JSON-able form."""
        return {**asdict(self), "kill_interval": list(self.kill_interval)}

    def __str__(self) -> str:
        low, high = self.kill_interval
        lines = [
            f"{self.runs:,} trials ended: {self.generalised:,} generalised, {self.stopped:,} "
            f"stopped as unpromising; forecast refitted {self.version} times",
            f"steps: {self.steps_spent:,} spent, {self.steps_saved:,} saved "
            f"({self.share_saved:.0%} of what all would have taken)",
            f"control arm: {self.control:,} trials, {self.control_generalised} generalised, "
            f"{self.killed_in_control} of these would have been stopped "
            f"(90 % interval {low:.0%} to {high:.0%})",
            f"stops: {self.rule}",
        ]
        if self.left_out:
            lines.append(f"left out: {self.left_out} trials that cannot be learnt from")
        return "\n".join(lines)


def report(trials: Sequence[Trial], *, left_out: int, rule: str, version: int) -> SweepReport:
    """Count the trials that ended."""
    control = [t for t in trials if t.control]
    good, killed = sum(t.generalised for t in control), sum(t.killed for t in control)
    spent = sum(t.seen.last for t in trials)
    stopped = [(t.seen.budget, t.stopped_at) for t in trials]
    saved = sum(max(budget - at, 0) for budget, at in stopped if at is not None)
    return SweepReport(
        runs=len(trials) + left_out,
        finished=sum(t.finished for t in trials),
        stopped=sum(at is not None for _, at in stopped),
        generalised=sum(t.generalised for t in trials),
        control=len(control),
        control_generalised=good,
        killed_in_control=killed,
        kill_rate=killed / good if good else None,
        kill_interval=clopper_pearson(killed, good),
        steps_spent=spent,
        steps_saved=saved,
        share_saved=saved / max(spent + saved, 1),
        left_out=left_out,
        rule=rule,
        version=version,
    )


def clopper_pearson(hits: int, of: int) -> tuple[float, float]:
    """The 90 % interval of a share.

    >>> clopper_pearson(0, 0)
    (0.0, 1.0)
    >>> [round(side, 3) for side in clopper_pearson(0, 29)]
    [0.0, 0.098]
    """
    tail = (1.0 - _CONFIDENCE) / 2.0
    low = float(beta.ppf(tail, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1.0 - tail, hits + 1, of - hits)) if hits < of else 1.0
    return low, high
