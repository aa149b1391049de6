"""The sentence a person can act on."""

from __future__ import annotations

from grokwatch.forecast.base import Evidence, Outlook
from grokwatch.verdict import Recommendation


def reason(evidence: Evidence, outlook: Outlook, recommendation: Recommendation) -> str:
    """One sentence: what was seen, and what follows from it."""
    signals, phase = evidence.signals, evidence.phase
    if phase == "diverged":
        since = signals["diverged_step"]
        return (
            f"The training loss is NaN, infinite or a hundred times its first value (noticed at "
            f"step {since:,.0f}): stop, then try a lower learning rate or gradient clipping."
        )
    if phase == "generalised":
        if evidence.by_loss:
            return (
                f"Validation loss has stayed 90 % below its first value since step "
                f"{signals['t4']:,.0f}; whether that is generalisation only an accuracy could tell."
            )
        return (
            f"Validation accuracy has stayed at its goal since step {signals['t4']:,.0f}: "
            f"the run has generalised."
        )
    if phase == "ungrokked":
        return (
            f"The run generalised at step {signals['t4']:,.0f} and lost it again at step "
            f"{signals['ungrokked_step']:,.0f}: go back to a checkpoint from between."
        )
    if phase == "unknown":
        return "Nothing to judge by yet: no accuracy, and no positive loss."
    if evidence.step > evidence.settings.budget:
        return f"The budget of {evidence.settings.budget:,} steps is used up."
    return outlook.reason
