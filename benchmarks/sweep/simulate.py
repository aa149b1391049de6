"""A recorded sweep run again, in some order, by some workers, under a forecast that learns."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.sweep.recorded import Recorded
from grokwatch import Forecast, Monitor, replay
from grokwatch._sweep_record import Trial, reduced
from grokwatch.forecast._own_record import OwnRun, ranges
from grokwatch.forecast.learned import (
    STRETCH,
    may_give_up,
    may_stop,
    shipped,
    worth_it,
)
from grokwatch.forecast.prior import OwnPrior
from grokwatch.sweeps import SweepForecast

Floats = npt.NDArray[np.float64]
SETTLED = 30  # trials that have ended before one counts


@dataclass(frozen=True)
class Prepared:
    """A recorded sweep with what the shipped forecast says of every verdict of each trial."""

    trials: list[Recorded]
    log_odds: list[Floats]
    reach: list[Floats]
    kept: list[Any]  # what a sweep keeps of each when it is left to its end


@dataclass(frozen=True)
class Result:
    """What became of each trial, in the sweep's own order; arrays of shape (trials,).

    Attributes:
        stop: step at which it was stopped as unpromising; inf = not.
        would: the same for the control arm, which went on.
        control: whether it was in the control arm.
        counts: whether it began when enough had ended.
        sweep: the forecast at the end.
    """

    stop: Floats
    would: Floats
    control: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.bool_]
    sweep: SweepForecast


def prepare(trials: list[Recorded]) -> Prepared:
    """Ask the shipped forecast, once."""
    base = shipped()
    odds, reaches = [], []
    for trial in trials:
        own = trial.own
        reach = np.log10((own.budget + 1.0) / (own.steps + 1.0))
        p = base.judge(own.x, np.maximum(reach, 0.0))[0] if len(reach) else np.empty(0)
        odds.append(np.log(p) - np.log1p(-p))
        reaches.append(reach)
    return Prepared(trials, odds, reaches, [reduced(base, trial.own) for trial in trials])


def first_stop(prepared: Prepared, k: int, forecast: Forecast | None) -> float:
    """The step at which a monitor with this forecast stops trial k; inf = never."""
    parameters = (shipped() if forecast is None else forecast).parameters
    own, odds, reach = prepared.trials[k].own, prepared.log_odds[k], prepared.reach[k]
    if len(odds) < 2:
        return np.inf
    x = own.x
    threshold = parameters["kill_below"]["0.02"]
    certified = 1.0 / (1.0 + np.exp(-odds))
    learnt = parameters.get("own")
    if learnt is None:
        low, ripe = certified < threshold, may_stop(x, reach)
    else:
        prior = OwnPrior.from_dict(learnt)
        p = prior.slope * odds + prior.intercept + prior.log_odds(own.settings)
        below = 1.0 / (1.0 + np.exp(-p)) < threshold
        stretch = 1.0 if prior.estimated else STRETCH
        low = certified < np.where(below, stretch * threshold, threshold)
        ripe = may_stop(x, reach)
        if prior.memorised_by is not None:
            ripe |= may_give_up(x, reach, prior.memorised_by)
        if not prior.waits:
            ripe = worth_it(reach)
    with np.errstate(invalid="ignore"):
        strange = (x < np.array(parameters["support_low"])).any(axis=1)
        strange |= (x > np.array(parameters["support_high"])).any(axis=1)
    fewest, most = parameters["classes"]
    known = fewest - 0.5 < 1.0 / (own.chance or 1.0) < most + 0.5
    if not known or own.budget > parameters["horizon"]:
        return np.inf
    hit = low & ripe & ~strange
    twice = np.flatnonzero(hit[1:] & hit[:-1])
    return float(own.steps[twice[0] + 1]) if twice.size else np.inf


def monitored(trial: Recorded, forecast: Forecast | None) -> float:
    """The same, by a real monitor; slow."""
    monitor = Monitor(**trial.run.settings, forecast=forecast)
    for verdict in replay(trial.run, monitor).verdicts:
        if verdict.recommendation == "stop_unpromising":
            return float(verdict.step)
    return np.inf


def run_sweep(
    prepared: Prepared, seed: int, workers: int = 8, check: int = 0, **options: Any
) -> Result:
    """Run the sweep in the order of ``seed``; time is counted in optimiser steps.

    ``check`` trials are judged by a real monitor too, and must be stopped at the same step.
    """
    sweep = SweepForecast(seed=seed, **options)
    count = len(prepared.trials)
    order = np.random.default_rng(seed).permutation(count).tolist()
    stop, would = np.full(count, np.inf), np.full(count, np.inf)
    control, counts = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    checked = set(np.random.default_rng(seed + 1).permutation(count)[:check].tolist())
    running: list[tuple[int, int, int]] = []
    ended = 0

    def end() -> None:
        nonlocal ended
        k = heapq.heappop(running)[2]
        name = prepared.trials[k].run.name
        sweep._take(name, taken(sweep, prepared, k, name, stop[k], would[k]))
        ended += 1

    now = 0
    for turn, k in enumerate(order):
        if len(running) >= workers:
            now = running[0][0]
            end()
        trial = prepared.trials[k]
        control[k] = sweep.is_control(trial.run.name)
        counts[k] = ended >= SETTLED
        at = first_stop(prepared, k, sweep.forecast)
        # One that flickers about .95 may count as generalised here and be judged on by a monitor.
        if k in checked and (trial.own.t4 is None) == (trial.t4 is None):
            real = monitored(trial, sweep.forecast)
            if real != at:
                raise AssertionError(f"{trial.run.name}: a monitor stops at {real}, not {at}.")
        if control[k]:
            would[k] = at
        else:
            stop[k] = at
        heapq.heappush(running, (now + int(min(stop[k], trial.end)), turn, k))
    while running:
        end()
    return Result(stop, would, control, counts, sweep)


def taken(
    sweep: SweepForecast, prepared: Prepared, k: int, name: str, stop: float, would: float
) -> Trial:
    """What a sweep keeps of a trial that ended so: :meth:`SweepForecast.add` without the replay."""
    trial = prepared.trials[k]
    stopped = bool(np.isfinite(stop))
    own = until(trial.own, int(stop)) if stopped else trial.own
    if own.outcome != "cut short":
        sweep._box = ranges([np.stack(sweep._box), own.x])
    seen, lowest = reduced(sweep._base, own) if stopped else prepared.kept[k]
    return Trial(
        replace(seen, name=name),
        lowest,
        sweep.is_control(name),
        int(stop) if stopped else None,
        int(would) if np.isfinite(would) else None,
    )


def until(own: OwnRun, step: int) -> OwnRun:
    """A run as it is known when it is stopped at a step."""
    seen = own.steps <= step
    t2 = own.t2 if own.t2 is not None and own.t2 <= step else None
    return replace(own, steps=own.steps[seen], x=own.x[seen], t2=t2, t4=None, last=step,
                   outcome="cut short")  # fmt: skip
