"""What happened in a run, read off its verdicts: phases, milestones, spikes, stops."""

from __future__ import annotations

from typing import NamedTuple

from grokwatch.replay import Replay
from grokwatch.verdict import Verdict

MILESTONES = ("t1", "t2", "t3", "t4")
_BEGINS = {"memorisation": "t2", "transition": "t3", "generalised": "t4"}


class Strip(NamedTuple):
    """A phase, from one step to another."""

    phase: str
    start: float
    end: float


class Spike(NamedTuple):
    """A slingshot: where it began, and how high the loss rose, in decades (None = not told)."""

    step: int
    decades: float | None


class Stop(NamedTuple):
    """The first recommendation of one kind to stop, and what it would have come to.

    Attributes:
        verdict: that recommended it.
        recorded: steps of the record that came after it.
        budget: steps of the budget that came after it.
        regretted: step at which the run generalised all the same, or None.
        withdrawn: first later step at which to go on was recommended again, or None.
    """

    verdict: Verdict
    recorded: int
    budget: int
    regretted: int | None
    withdrawn: int | None


def strips(replayed: Replay, first: float, last: float) -> list[Strip]:
    """The phases from ``first`` to ``last``; each begins at its milestone, where it has one."""
    starts: list[tuple[str, float]] = []
    for verdict in replayed.verdicts:
        if starts and starts[-1][0] == verdict.phase:
            continue
        begun = float(verdict.step)
        dated = verdict.signals.get(_BEGINS.get(verdict.phase, ""), begun)
        # A milestone is dated to its first touch, which lies before the verdict that declares it.
        if not starts or starts[-1][1] < dated <= begun:
            begun = dated
        starts.append((verdict.phase, begun))
    if starts:
        starts[0] = (starts[0][0], min(starts[0][1], first))
    ends = [start for _, start in starts[1:]] + [last]
    found = []
    for (phase, start), end in zip(starts, ends, strict=True):
        start, end = max(start, first), min(end, last)
        if start < end and phase != "unknown":
            found.append(Strip(phase, start, end))
    return found


def milestones(replayed: Replay) -> dict[str, int]:
    """t1..t4 as far as they were reached."""
    signals = replayed.final.signals
    return {name: int(signals[name]) for name in MILESTONES if name in signals}


def spikes(replayed: Replay) -> list[Spike]:
    """Every slingshot, by the step at which it began; its height is the latest told."""
    heights: dict[int, float | None] = {}
    for verdict in replayed.verdicts:
        if "spike_step" in verdict.signals:
            at = int(verdict.signals["spike_step"])
            heights[at] = verdict.signals.get("spike_amplitude", heights.get(at))
    return [Spike(step, decades) for step, decades in sorted(heights.items())]


def budget_of(replayed: Replay) -> int:
    """The budget the run was judged by; without one, its last step."""
    return int(replayed.run.settings.get("budget", max(replayed.run.last_step, 1)))


def stops(replayed: Replay) -> list[Stop]:
    """The first recommendation of each kind to stop, in step order.

    >>> from grokwatch.records import Run
    >>> run = Run({"train_loss": ([1, 500], [1.0, 1.0])}, {"budget": 1000})
    >>> verdicts = [Verdict(100, "memorisation", .01, None, "stop_unpromising", "Hopeless."),
    ...             Verdict(500, "generalised", 1., None, "stop_generalised", "", {"t4": 450.})]
    >>> [(stop.recorded, stop.budget, stop.regretted) for stop in stops(Replay(run, verdicts))]
    [(400, 900, 450), (0, 500, None)]
    """
    last, budget = replayed.run.last_step, budget_of(replayed)
    found: dict[str, Stop] = {}
    for i, verdict in enumerate(replayed.verdicts):
        kind = verdict.recommendation
        if kind == "continue" or kind in found:
            continue
        after = replayed.verdicts[i + 1 :]
        regretted = next((v for v in after if v.phase == "generalised"), None)
        withdrawn = next((v.step for v in after if v.recommendation == "continue"), None)
        found[kind] = Stop(
            verdict,
            max(last - verdict.step, 0),
            max(budget - verdict.step, 0),
            None
            if regretted is None or kind == "stop_generalised"
            else int(regretted.signals.get("t4", regretted.step)),
            withdrawn,
        )
    return list(found.values())


def step_limits(replayed: Replay) -> tuple[float, float]:
    """First and last step worth showing on a log axis, most of which little happens in."""
    columns = [steps for steps, _ in replayed.run.columns.values() if steps.size]
    last = max(replayed.run.last_step, 2)
    begun = min((int(steps[0]) for steps in columns), default=1)
    first = 10.0 if last > 1000 else 1.0
    first = min([first, *(0.8 * step for step in milestones(replayed).values() if step)])
    return max(first, 0.9 * begun, 1.0), 1.03 * last
