"""What a forecast that learns costs in a sweep of 10^4 trials.

    python -m benchmarks.sweep.scale                 # minutes
    python -m benchmarks.sweep.scale --trials 2000

The trials of the recorded sweep ``grid`` come again and again under other names, with learning
rates moved by up to a tenth, through ``SweepForecast``. Times are processor time of one core; a
trial's own time is measured in the same process, by training some in compiled code (about the
fastest there is) and in PyTorch.
"""

from __future__ import annotations

import argparse
import heapq
import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import grokwatch
from benchmarks.corpus.runs import execute  # puts examples/ on the path
from benchmarks.forecast.own_sweep import CONFIG
from benchmarks.sweep.recorded import Recorded, recorded_sweep
from benchmarks.sweep.simulate import Prepared, first_stop, prepare, taken
from grokwatch import Monitor
from grokwatch.integrations._sweep_options import options
from grokwatch.integrations._sweep_trial import TrialWatch
from grokwatch.sweeps import SweepForecast

WORKERS = 100
VALIDATE = 50  # steps from one validation to the next
_SAMPLE = 24
_WARM_UP = 50  # steps; the first of a process take longest


def repeated(prepared: Prepared, count: int) -> Prepared:
    """The trials again and again, each under a name and with a learning rate of its own."""
    rng = np.random.default_rng(0)
    picks = rng.integers(len(prepared.trials), size=count)
    trials, kept = [], []
    for i, k in enumerate(picks.tolist()):
        trial, (seen, lowest) = prepared.trials[k], prepared.kept[k]
        rate = trial.own.settings.learning_rate or 1e-3
        settings = replace(trial.own.settings, learning_rate=rate * rng.uniform(0.9, 1.1))
        name = f"trial-{i:05d}"
        trials.append(
            replace(
                trial,
                run=grokwatch.Run(trial.run.columns, {}, name),
                own=replace(trial.own, name=name, settings=settings),
            )
        )
        kept.append((replace(seen, name=name, settings=settings), lowest))
    odds = [prepared.log_odds[k] for k in picks.tolist()]
    reach = [prepared.reach[k] for k in picks.tolist()]
    return Prepared(trials, odds, reach, kept)


def simulate(prepared: Prepared, workers: int = WORKERS) -> SweepForecast:
    """Run it, and print what it cost."""
    sweep = SweepForecast()
    count = len(prepared.trials)
    stop, would = np.full(count, np.inf), np.full(count, np.inf)
    refits: list[tuple[int, float]] = []
    running: list[tuple[int, int]] = []
    ended, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def end() -> None:
        nonlocal ended
        k = heapq.heappop(running)[1]
        trial = taken(sweep, prepared, k, prepared.trials[k].run.name, stop[k], would[k])
        start = time.process_time()
        if sweep._take(prepared.trials[k].run.name, trial):
            refits.append((ended, time.process_time() - start))
        ended += 1

    now = 0
    for k in range(count):
        if len(running) >= workers:
            now = running[0][0]
            end()
        at = first_stop(prepared, k, sweep.forecast)
        (would if sweep.is_control(prepared.trials[k].run.name) else stop)[k] = at
        heapq.heappush(running, (now + int(min(stop[k], prepared.trials[k].end)), k))
    while running:
        end()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(sweep.report())
    last, slowest = refits[-1]
    total = sum(seconds for _, seconds in refits)
    print(f"refits: {len(refits)}, {total:.1f} s in all = {1e3 * total / count:.2f} ms a trial; "
          f"the last, on {last:,} trials, {slowest:.2f} s")  # fmt: skip
    print(f"memory: {(after - before) / 1024:.0f} MB more, {(after - before) * 1024 / count:,.0f} "
          f"bytes a trial")  # fmt: skip
    return sweep


def costs(trials: list[Recorded], sweep: SweepForecast) -> float:
    """Print what one trial costs a worker and the shared forecast; seconds for both."""
    forecast, total = sweep.forecast, 0.0
    some = trials[:: max(len(trials) // _SAMPLE, 1)]
    reports = sum(len(t.run.columns["val_accuracy"][0]) for t in some)

    def watch(trial: Recorded) -> None:
        """As the adapters do: report by report, to the end."""
        told = options(trial.run.settings)
        one = TrialWatch("x", told, {}, forecast=forecast, control=True, refuse=never)
        for step, row in trial.run.rows():
            one.take(step, row)

    fresh = SweepForecast()
    jobs: list[tuple[str, Callable[[Recorded], object]]] = [
        ("a stopper's decisions, all to the end", watch),
        ("the shared forecast's add", lambda trial: fresh._trial(trial.run, "x", None, None)),
    ]
    for label, job in jobs:
        start = time.process_time()
        for trial in some:
            job(trial)
        each = (time.process_time() - start) / len(some)
        total += each
        print(f"{label}: {1e3 * each:.1f} ms a trial of {reports / len(some):.0f} validations")
    monitor = Monitor(**some[0].run.settings, forecast=forecast)
    monitor.extend(some[0].run.columns)
    print(f"a trial's verdict state: {len(json.dumps(monitor.state_dict())):,} bytes")
    return total


def state(sweep: SweepForecast, count: int) -> None:
    """Print what saving and loading costs."""
    start = time.process_time()
    text = json.dumps(sweep.state_dict())
    saved = time.process_time() - start
    other = SweepForecast()
    start = time.process_time()
    other.load_state_dict(json.loads(text))
    loaded = time.process_time() - start
    print(f"the sweep's state: {len(text) / 1e6:.1f} MB = {len(text) / count:.0f} bytes a trial; "
          f"saved in {saved:.1f} s, loaded in {loaded:.1f} s")  # fmt: skip
    assert json.dumps(other.state_dict()) == text


def compiled() -> float:
    """Seconds a trial of ``grid`` trains for, in compiled code."""
    told = {"lr": 1e-3, "weight_decay": 0.0, "r": 0.45}
    execute({**CONFIG, **told, "seed": 0, "horizon": 100})  # compiles
    start = time.process_time()
    execute({**CONFIG, **told, "seed": 1})
    return time.process_time() - start


def never(name: str, error: Exception) -> None:
    """No measurement is to be refused."""
    raise error


def in_pytorch(model: Any, x: Any, classes: int, budget: int, steps: int = 500) -> float:
    """Seconds a network trains for ``budget`` steps in PyTorch on one thread, from so many."""
    import torch

    torch.set_num_threads(1)
    y = torch.randint(classes, (len(x),))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    start = 0.0
    for step in range(-_WARM_UP, steps):
        if not step:
            start = time.process_time()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        if step % VALIDATE == 0:
            with torch.no_grad():
                torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.process_time() - start) * budget / steps


def networks() -> Iterator[tuple[str, float]]:
    """What a trial of ``grid`` and one of examples/phase_diagram.py are, and what they take."""
    import torch
    from models import Transformer

    class Toy(torch.nn.Module):
        def __init__(self, p: int) -> None:
            super().__init__()
            self.first = torch.nn.Linear(2 * p, 48, bias=False)
            self.second = torch.nn.Linear(48, p, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x) ** 2)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    p = int(str(CONFIG["p"]))
    x = torch.nn.functional.one_hot(torch.randint(p, (240, 2)), p).flatten(1).float()
    toy = in_pytorch(Toy(p), x, p, 8_000)
    yield f"8,000 steps of grid's two layers (width 48, {len(x)} examples), PyTorch", toy
    pairs = torch.randint(31, (397, 2))
    net = Transformer(31, 31, n_layers=1, width=48)
    seconds = in_pytorch(net, pairs, 31, 5_000)
    yield "5,000 steps of the phase diagram's transformer (397 examples), PyTorch", seconds


def main() -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    args = parser.parse_args()
    trials = recorded_sweep("grid")
    prepared = prepare(trials)
    start = time.process_time()
    sweep = simulate(repeated(prepared, args.trials))
    print(f"(the simulation took {time.process_time() - start:.0f} s)")
    state(sweep, args.trials)
    each = costs(trials, sweep)
    for label, seconds in (("8,000 steps of grid in compiled code", compiled()), *networks()):
        print(f"{label}: {seconds:.1f} s; watching it and learning from it: "
              f"{each / seconds:.2%} (1 % of a trial of {100 * each:.1f} s)")  # fmt: skip


if __name__ == "__main__":
    main()
