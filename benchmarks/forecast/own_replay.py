"""Learning from own runs through the public door alone: ``Forecast.fit``, then ``Monitor``.

    python -m benchmarks.forecast.own_replay --kind deep --own 30
    python -m benchmarks.forecast.own_replay --kind sweep             # see own_sweep

Recorded runs of one kind from the ``calibrate`` groups, or a sweep, logged as users log. For the
runs that were not fitted on: how many that generalise were called unpromising before, the compute
of the others saved, and the error of the expected step, before and after the fit. With
``--stopped``, own runs end where the shipped forecast would have stopped them, as in a sweep that
grokwatch watches.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import grokwatch
from benchmarks.corpus.load import Run, load
from benchmarks.forecast.dataset import hyper_parameters, thin
from benchmarks.forecast.own_sweep import sweep
from grokwatch import Forecast, Monitor, Verdict, replay


def recorded(run: Run, until: int | None = None) -> grokwatch.Run:
    """A corpus run as a user would have it, ended after the step ``until``."""
    columns = thin(run, 1)
    if until is not None:
        columns = {name: (s[s <= until], v[s <= until]) for name, (s, v) in columns.items()}
    settings: dict[str, Any] = {
        "budget": int(run.meta["horizon"]),
        "chance": 1.0 / run.meta["n_classes"],
        **hyper_parameters(run.meta),
    }
    return grokwatch.Run(columns, settings, run.meta["id"])


def verdicts(run: grokwatch.Run, forecast: Forecast | None) -> list[Verdict]:
    """Every verdict of a replay."""
    monitor = Monitor(**run.settings, forecast=forecast)
    monitor._analyzer.transition.refit = lambda: None  # costly, and no forecast looks at it
    return replay(run, monitor).verdicts


def stop(said: list[Verdict]) -> int | None:
    """The step at which it was called unpromising."""
    return next((v.step for v in said if v.recommendation == "stop_unpromising"), None)


def report(name: str, runs: list[Run], forecast: Forecast | None) -> None:
    """Print one line."""
    killed, good, saved, errors = 0, 0, [], []
    for run in runs:
        said = verdicts(recorded(run), forecast)
        at, t4 = stop(said), run.meta["t4"]
        if t4 is None:
            saved.append(0.0 if at is None else 1.0 - at / run.meta["horizon"])
            continue
        good += 1
        killed += at is not None and at < t4
        told = [v.eta for v in said if v.step <= 1000 and v.eta is not None]
        if told and t4 > 1000:
            errors.append(abs(np.log10((told[-1][1] + 1) / (t4 + 1))))
    error = f"{np.median(errors):.2f} ({len(errors)} runs)" if errors else "-"
    print(
        f"{name:8s} stopped {killed} of {good} that generalise; compute of the {len(saved)} "
        f"others saved: {np.mean(saved):.1%}; error of t4 at 1000: {error}",
        flush=True,
    )


def main() -> None:
    """Fit and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="deep", choices=("mlp", "deep", "transformer", "sweep"))
    parser.add_argument("--own", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=100, help="runs judged")
    parser.add_argument("--stopped", action="store_true")
    options = parser.parse_args()
    if options.kind == "sweep":
        runs = sweep()
    else:
        runs = [run for run in load(kinds=(options.kind,)) if run.meta["split"] == "calibrate"]
    order = np.random.default_rng(options.seed).permutation(len(runs))
    own, rest = ([runs[i] for i in part] for part in np.split(order, [options.own]))
    ends = [stop(verdicts(recorded(run), None)) if options.stopped else None for run in own]
    given = [recorded(run, end) for run, end in zip(own, ends, strict=True)]
    start = time.perf_counter()
    fitted = Forecast.fit(given)
    print(f"fitted on {len(given)} runs in {time.perf_counter() - start:.1f} s:",
          fitted.parameters["card"]["own_outcomes"], {key: fitted.parameters["own"][key] for key in
          ("slope", "intercept", "weight", "shift", "memorised_by")})  # fmt: skip
    report("before", rest[: options.most], None)
    report("after", rest[: options.most], fitted)


if __name__ == "__main__":
    main()
