"""A user's finished runs, replayed: what a forecast would have seen of them, and how they ended."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from grokwatch.forecast.base import Evidence, Outlook, Settings
from grokwatch.forecast.features import NAMES, features
from grokwatch.forecast.learned import LEAST_VALIDATIONS, Forecast
from grokwatch.monitor import Monitor
from grokwatch.records import Run, read_runs
from grokwatch.replay import replay

Outcome = Literal["generalised", "never", "diverged", "cut short"]

_VALIDATIONS = NAMES.index("log_validations")
_ENOUGH = math.log10(LEAST_VALIDATIONS) - 1e-9
_FIRST_STEP = 20  # before it there is next to nothing to see
_FINISHED = 0.9  # of the budget: the last measurement rarely falls on the last step


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        name: for messages.
        settings: what was known of it beforehand.
        chance: accuracy of guessing; None = nobody told.
        t2, t4: milestones, None = not reached.
        last: the last step recorded.
        outcome: how it ended; "cut short" = neither generalised nor diverged, nor near its budget.
    """

    name: str
    settings: Settings
    chance: float | None
    t2: float | None
    t4: float | None
    last: int
    outcome: Outcome

    @property
    def known_to(self) -> int:
        """The step up to which the outcome is known."""
        return min(self.last, self.budget) if self.outcome == "cut short" else self.budget

    @property
    def budget(self) -> int:
        """Steps the run was allowed."""
        return self.settings.budget


@dataclass(frozen=True)
class OwnRun(Ended):
    """One replayed run.

    Attributes:
        steps: of the verdicts before t4, shape (n,).
        x: features at them, shape (n, features).
    """

    steps: npt.NDArray[np.int64]
    x: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Seen(Ended):
    """What a fit needs of an ended run: what the shipped forecast said of it.

    Attributes:
        steps: of the verdicts before t4, shape (n,).
        log_odds: of generalising by the step up to which the outcome is known, shape (n,).
        quantiles: of log10(t4 / now), shape (n, 3).
    """

    steps: npt.NDArray[np.int64]
    log_odds: npt.NDArray[np.float64]
    quantiles: npt.NDArray[np.float64]


def seen_by(base: Forecast, run: OwnRun) -> Seen:
    """What a forecast, not adapted to anything, says of a run."""
    reach = np.log10((run.known_to + 1.0) / (run.steps + 1.0))
    probability, quantiles = base.judge(run.x, np.maximum(reach, 0.0))
    with np.errstate(divide="ignore"):
        odds = np.clip(np.log(probability) - np.log1p(-probability), -30.0, 30.0)
    return Seen(
        name=run.name,
        settings=run.settings,
        chance=run.chance,
        t2=run.t2,
        t4=run.t4,
        last=run.last,
        outcome=run.outcome,
        steps=run.steps,
        log_odds=odds,
        quantiles=quantiles,
    )


def ranges(
    rows: Iterable[npt.NDArray[np.float64]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The lowest and highest of each feature over rows of features; NaN = never measured."""
    x = np.concatenate([np.full((1, len(NAMES)), math.nan), *rows])
    return np.fmin.reduce(x, axis=0), np.fmax.reduce(x, axis=0)


class Recorder:
    """A forecast that only writes down what a forecast would see.

    Attributes:
        rows: step and features of each verdict.
        evidence: the last evidence seen, or None.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[int, npt.NDArray[np.float64]]] = []
        self.evidence: Evidence | None = None

    def outlook(self, evidence: Evidence) -> Outlook:
        """Write down, and say nothing."""
        if self.rows and self.rows[-1][0] == evidence.step:
            self.rows.pop()
        self.rows.append((evidence.step, features(evidence)))
        self.evidence = evidence
        return Outlook(None, None, "recording")


def as_runs(runs: Iterable[Run | str | Path]) -> list[Run]:
    """The runs, those given as paths read."""
    found: list[Run] = []
    for run in runs:
        found += [run] if isinstance(run, Run) else read_runs(run)
    return found


def replay_all(runs: list[Run], settings: Mapping[str, Any]) -> list[OwnRun | str]:
    """Replay finished runs, in their order; what is wrong with those that cannot be used.

    Settings override the runs' own. Runs without a budget are taken to have been allowed as many
    steps as the longest of them all took.
    """
    told = [{**run.settings, **settings} for run in runs]
    longest = max((run.last_step for run in runs), default=0)
    without = [run.name for run, own in zip(runs, told, strict=True) if "budget" not in own]
    if without:
        warnings.warn(
            f"{len(without)} of {len(runs)} runs record no budget; taking the longest run's last "
            f"step, {longest}. Pass budget=... if they were allowed more.",
            UserWarning,
            stacklevel=4,
        )
    return [
        replay_one(run, {"budget": max(longest, 1), **own})
        for run, own in zip(runs, told, strict=True)
    ]


def replay_one(run: Run, settings: dict[str, Any]) -> OwnRun | str:
    """The run replayed, or what is wrong with it."""
    if not any(steps.size for steps, _ in run.columns.values()):
        return f"{run.name}: holds no observations"
    recorder = Recorder()
    monitor = Monitor(**{**settings, "forecast": recorder})
    monitor._analyzer.fits_jumps = False  # no feature looks at them
    final = replay(run, monitor).final
    known = monitor.settings
    t2, t4 = final.signals.get("t2"), final.signals.get("t4")
    if "val_accuracy" not in run.columns or not run.columns["val_accuracy"][0].size:
        return f"{run.name}: has no validation accuracy"
    side = monitor._analyzer.phases.val
    if t4 is None and side.done.pending and side.progress >= side.done.level:
        t4 = side.done.touched  # the run was ended as soon as it had generalised
    seen = [
        (step, x)
        for step, x in recorder.rows
        if _FIRST_STEP <= step < known.budget and x[_VALIDATIONS] >= _ENOUGH
    ]
    if t4 is not None:
        seen = [(step, x) for step, x in seen if step < t4]
    outcome: Outcome = "never"
    if t4 is not None and t4 <= known.budget:
        outcome = "generalised"
    elif final.phase == "diverged":
        outcome = "diverged"
    elif run.last_step < _FINISHED * known.budget:
        outcome = "cut short"
    evidence = recorder.evidence
    chance = known.chance
    if chance is None and evidence is not None and not evidence.chance_is_guess:
        chance = evidence.chance
    return OwnRun(
        name=run.name,
        settings=known,
        chance=chance,
        steps=np.array([step for step, _ in seen], dtype=np.int64),
        x=np.array([x for _, x in seen]).reshape(len(seen), len(NAMES)),
        t2=t2,
        t4=t4 if outcome == "generalised" else None,
        last=run.last_step,
        outcome=outcome,
    )
