"""What stopping saves in a sweep, and what it loses: the tables of docs/scaling.md.

    python -m benchmarks.sweep                              # every sweep; an hour of one core
    python -m benchmarks.sweep --sweeps grid times --orders 10
    python -m benchmarks.sweep --engines Ray                # its own schedulers alone
    python -m benchmarks.sweep --records FOLDER             # of examples/phase_diagram.py

Each recorded sweep is run again in random launch orders by eight workers, through
``SweepForecast`` (three trials an order are judged by a real ``Monitor`` as well and must be
stopped at the same step) and through Optuna's pruners and Ray's schedulers. Figures are for trials
that begin after thirty have ended, the control arm excluded.

saved: mean of 1 - stop / budget over trials that neither generalise nor diverge, [least, most] of
the orders. killed: trials that generalise, stopped before they had, of all such in all orders, and
how many different ones that are. diagram: cells with the same number of seeds that generalised as
without stopping, over the whole sweep; without cells, trials with the same outcome.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.sweep.pruners import PRUNERS, pruned
from benchmarks.sweep.recorded import SWEEPS, Recorded, from_folder, recorded_sweep
from benchmarks.sweep.simulate import Prepared, first_stop, prepare, run_sweep

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
CHECKED = 3
DEAR = 0.4


class Score:
    """Adds up one way of stopping over the orders."""

    def __init__(self, trials: list[Recorded]) -> None:
        self.late = np.array([trial.t4 is not None for trial in trials])
        self.t4 = np.array([np.inf if t.t4 is None else t.t4 for t in trials])
        self.never = np.array([trial.never for trial in trials])
        self.budget = np.array([trial.own.budget for trial in trials], dtype=float)
        cells = {trial.cell: i for i, trial in enumerate(trials)}
        self.cell = np.array([cells[trial.cell] for trial in trials])
        self.saved: list[float] = []
        self.equal: list[float] = []
        self.kills, self.of, self.who = 0, 0, set[int]()
        self.cost = np.zeros((2, len(trials)))  # sum over the orders, and how many

    def add(self, stop: Floats, counts: Bools) -> None:
        """One order; ``stop`` = inf for trials that went on."""
        killed = self.late & (stop < self.t4)
        here = counts & self.late
        self.kills += int((killed & here).sum())
        self.of += int(here.sum())
        self.who |= set(np.flatnonzero(killed & here).tolist())
        share = np.where(np.isfinite(stop), 1.0 - np.minimum(stop / self.budget, 1.0), 0.0)
        judged = counts & self.never
        self.saved.append(float(share[judged].mean()))
        self.cost += np.array([np.where(judged, 1.0 - share, 0.0), judged])
        changed = np.unique(self.cell[killed])
        self.equal.append(1.0 - len(changed) / len(np.unique(self.cell)))

    def rest(self) -> str:
        """Which trials that never generalise cost most of what was not saved."""
        mean = self.cost[0] / np.maximum(self.cost[1], 1.0)
        dear = (self.cost[1] > 0) & (mean > DEAR)
        some = (self.cost[1] > 0).sum()
        return (
            f"      not saved: {mean.sum() / some:.1%}; of this {mean[dear].sum() / some:.1%} by "
            f"{dear.sum()} of {some} trials, each stopped after {DEAR:.0%} of its budget or never"
        )

    def line(self, name: str) -> str:
        """A line of the table."""
        low, high = min(self.saved), max(self.saved)
        return (
            f"  {name:34s} saved {np.mean(self.saved):6.1%} [{low:.0%}, {high:.0%}]   killed "
            f"{self.kills} of {self.of} ({self.kills / max(self.of, 1):.1%}; {len(self.who)} "
            f"different)   diagram {np.mean(self.equal):.1%} [{min(self.equal):.1%}]"
        )


def earliest(prepared: Prepared) -> Floats:
    """The second verdict of each trial: no rule that looks at curves stops before."""
    own = [trial.own for trial in prepared.trials]
    return np.array([float(run.steps[1]) if len(run.steps) > 1 else np.inf for run in own])


def table(name: str, trials: list[Recorded], orders: int) -> None:
    """Print one sweep's table."""
    prepared = prepare(trials)
    count = len(trials)
    late = sum(trial.t4 is not None for trial in trials)
    print(f"\n{name}: {count} trials, {late} generalise; {orders} launch orders", flush=True)
    shipped = np.array([first_stop(prepared, k, None) for k in range(count)])
    everything = np.ones(count, dtype=bool)
    for label, stop in (("the shipped forecast, all trials", shipped),
                        ("bound: at the second verdict", earliest(prepared))):  # fmt: skip
        score = Score(trials)
        score.add(np.where(score.late, np.inf, stop) if "bound" in label else stop, everything)
        print(score.line(label), flush=True)
    for thresholds in ("inherited", "sweep"):
        score, good, killed = Score(trials), 0, 0
        rules: list[str] = []
        for seed in range(orders):
            found = run_sweep(prepared, seed, check=CHECKED, thresholds=thresholds)
            score.add(found.stop, found.counts & ~found.control)
            report = found.sweep.report()
            good, killed = good + report.control_generalised, killed + report.killed_in_control
            rules.append(report.rule)
        print(score.line(f"a forecast that learns, {thresholds}"))
        print(score.rest())
        print(f"      control arms: {killed} of {good} that generalised would have been stopped")
        for rule in sorted(set(rules)):
            print(f"      at the end: {rules.count(rule)} x {rule}", flush=True)


def engines(trials: list[Recorded], orders: int, wanted: list[str]) -> None:
    """Print the lines of the engines' own pruners."""
    for label, make in PRUNERS.items():
        if not label.startswith(tuple(wanted)):
            continue
        score = Score(trials)
        for seed in range(orders):
            score.add(*pruned(trials, make, seed))
        print(score.line(label), flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", nargs="*", default=list(SWEEPS), choices=list(SWEEPS))
    parser.add_argument("--records", type=Path, help="a folder of CSV files with sidecars")
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument(
        "--engines", nargs="+", metavar="NAME", help="only pruners of these engines"
    )
    options = parser.parse_args()
    for name in options.sweeps if options.records is None else [options.records.name]:
        trials = recorded_sweep(name) if options.records is None else from_folder(options.records)
        if options.engines:
            print(f"\n{name}: {len(trials)} trials; {options.orders} launch orders", flush=True)
        else:
            table(name, trials, options.orders)
        engines(trials, options.orders, options.engines or ["Optuna", "Ray"])


if __name__ == "__main__":
    main()
