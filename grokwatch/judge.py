"""From evidence to a verdict: the forecast is asked, the policy decides, the reason is told."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

from grokwatch.analyzer import Analyzer
from grokwatch.forecast.base import Evidence, Forecaster, Outlook, Settings
from grokwatch.policy import Facts, Policy
from grokwatch.reasons import reason
from grokwatch.state import take
from grokwatch.verdict import Verdict


class Judge:
    """Forms verdicts; keeps nothing but the policy's memory.

    Args:
        settings: what is known of the run beforehand.
        forecast: judges a run that has not generalised. One that raises, or answers what no
            forecast can, is told once and left out.
        policy: turns its answer into a recommendation.
    """

    def __init__(self, settings: Settings, forecast: Forecaster, policy: Policy) -> None:
        self.settings, self.forecast, self.policy = settings, forecast, policy
        self._memory: list[Any] = [None, None]  # the policy's, before and after the last verdict
        self._failed = False

    def verdict(self, step: int, analyzer: Analyzer, again: bool) -> Verdict:
        """The verdict at ``step``; judging a step ``again`` starts from the same memory."""
        if not again:
            self._memory[0] = self._memory[1]
        phases = analyzer.phases
        signals = analyzer.signals(step, again)
        evidence = Evidence(
            step=step,
            phase=phases.phase,
            signals=signals,
            history=analyzer.history,
            settings=self.settings,
            by_loss=phases.by_loss,
            chance=phases.val.chance,
            chance_is_guess=phases.val.chance_is_guess,
        )
        outlook = self._outlook(evidence)
        facts = Facts(step, phases.phase, phases.by_loss, outlook)
        choice, self._memory[1] = self.policy.decide(facts, self._memory[0])
        return Verdict(
            step=step,
            phase=phases.phase,
            probability=outlook.probability,
            eta=outlook.eta,
            recommendation=choice,
            reason=reason(evidence, outlook, choice),
            signals=signals,
        )

    def _outlook(self, evidence: Evidence) -> Outlook:
        if evidence.phase == "generalised":
            t4 = evidence.signals["t4"]
            return Outlook(1.0, (t4, t4, t4), "")
        if evidence.phase == "diverged":
            return Outlook(0.0, None, "")
        if evidence.phase in ("ungrokked", "unknown") or evidence.step > self.settings.budget:
            return Outlook(None, None, "")
        if not self._failed:
            try:
                return check_outlook(self.forecast.outlook(evidence))
            except Exception as error:
                self._failed = True
                warnings.warn(
                    f"the forecast failed and is left out: {type(error).__name__}: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return Outlook(None, None, "No forecast: it failed earlier, see the warning.")

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state."""
        return {"memory": copy.deepcopy(self._memory), "failed": self._failed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        memory, failed = take(state, "memory"), take(state, "failed")
        self._memory, self._failed = copy.deepcopy(memory), bool(failed)


def check_outlook(outlook: Outlook) -> Outlook:
    """Return the outlook, or raise a ValueError if no forecast can mean it.

    >>> check_outlook(Outlook(2.0, None, ""))
    Traceback (most recent call last):
    ValueError: a probability must lie in 0..1 but is 2.0.
    """
    probability, eta = outlook.probability, outlook.eta
    if probability is not None and not 0.0 <= probability <= 1.0:
        raise ValueError(f"a probability must lie in 0..1 but is {probability}.")
    if eta is not None:
        low, median, high = eta
        if not (math.isfinite(high) and 0.0 <= low <= median <= high):
            raise ValueError(
                f"eta must be finite and ascending, (low, median, high), but is {eta}."
            )
    return outlook
