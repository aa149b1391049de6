"""What a person would want to hear when one verdict follows another."""

from __future__ import annotations

from grokwatch.verdict import Verdict


def changed(before: Verdict | None, after: Verdict) -> bool:
    """Whether phase, recommendation, number of spikes or the presence of a forecast changed."""
    return (
        before is None
        or before.phase != after.phase
        or before.recommendation != after.recommendation
        or before.signals.get("spikes", 0.0) != after.signals.get("spikes", 0.0)
        or (before.probability is None) != (after.probability is None)
    )


def headline(before: Verdict | None, after: Verdict) -> str | None:
    """One line on what changed, or None if nothing did.

    >>> calm = Verdict(1, "memorisation", None, None, "continue", "Wait.", {})
    >>> spike = Verdict(2, "memorisation", None, None, "continue", "Wait.",
    ...                 {"spikes": 1.0, "spike_amplitude": 2.0})
    >>> headline(calm, spike)
    'spike 1: training loss up 2.0 decades'
    >>> headline(spike, spike) is None
    True
    """
    if not changed(before, after):
        return None
    if before is not None and before.phase == after.phase:
        spikes = after.signals.get("spikes", 0.0)
        if spikes > before.signals.get("spikes", 0.0):
            rise = after.signals.get("spike_amplitude", 0.0)
            return f"spike {spikes:.0f}: training loss up {rise:.1f} decades"
    what = after.phase if after.recommendation == "continue" else after.recommendation
    return f"{what}: {after.reason}"
