"""Judges a forecast on recorded runs, through ``Monitor`` alone.

    python -m benchmarks.forecast.judge --split fit                 # the forecast that is shipped
    python -m benchmarks.forecast.judge --split test --forecast FILE

For each time: how many runs had not generalised yet, how many of these later did, for how many the
forecast had an answer, the area under the ROC curve of its probability (no answer counts as the
mean of the answers), and for those that generalised the median error of the expected step in
decades and the share inside the 80 % interval. Intervals: 90 %, bootstrap over runs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.corpus.load import Run, load
from benchmarks.forecast.dataset import verdicts
from grokwatch.forecast.extrapolation import LogTimeExtrapolation
from grokwatch.forecast.learned import Forecast

TIMES: dict[str, Callable[[dict[str, Any]], float]] = {
    "400": lambda meta: 400.0,
    "1000": lambda meta: 1000.0,
    "t2": lambda meta: float(meta["t2"] or np.nan),
    "5 t2": lambda meta: 5.0 * float(meta["t2"] or np.nan),
    "10 t2": lambda meta: 10.0 * float(meta["t2"] or np.nan),
}


def answers(run: Run, path: str | None, variant: int, told: bool = False) -> dict[str, Any]:
    """What was said of a run at each time, and whether it was ever called unpromising."""
    forecast = Forecast.load(path) if path else LogTimeExtrapolation()
    said = verdicts(run, forecast, variant, told)
    stops = [v.step for v in said if v.recommendation == "stop_unpromising"]
    found: dict[str, Any] = {"meta": run.meta, "stop": stops[0] if stops else None}
    for name, when in TIMES.items():
        if run.meta["kind"] == "ordinary":
            continue
        before = [v for v in said if v.step <= when(run.meta)]
        if before and before[-1].step >= 0.8 * when(run.meta):
            found[name] = (before[-1].step, before[-1].probability, before[-1].eta)
    return found


def table(found: list[dict[str, Any]], time: str) -> str:
    """One line of the table."""
    cases = []
    for case in found:
        t4 = case["meta"]["t4"]
        if time in case and (t4 is None or case[time][0] < t4):
            cases.append((case[time], t4))
    label = np.array([t4 is not None for _, t4 in cases])
    said = np.array([np.nan if a[1] is None else a[1] for a, _ in cases], dtype=float)
    line = f"{time:>6} {len(cases):6d} {label.sum():12d} {np.isfinite(said).mean():9.0%}"
    if not np.isfinite(said).any() or label.all() or not label.any():
        return line
    score = np.where(np.isfinite(said), said, np.nanmean(said))
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(300):
        i = rng.integers(0, len(label), len(label))
        if 0 < label[i].sum() < len(i):
            draws.append(roc_auc_score(label[i], score[i]))
    low, high = np.quantile(draws, [0.05, 0.95])
    line += f" {roc_auc_score(label, score):7.3f} ({low:.3f}-{high:.3f})"
    timed = [(a[2], t4) for a, t4 in cases if t4 is not None and a[2] is not None]
    if timed:
        error = [abs(np.log10((eta[1] + 1) / (t4 + 1))) for eta, t4 in timed]
        inside = [eta[0] <= t4 <= eta[2] for eta, t4 in timed]
        line += f" {len(timed):6d} {np.median(error):8.2f} {np.mean(inside):9.0%}"
    return line


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", default="fit", choices=("fit", "calibrate", "test"))
    parser.add_argument("--forecast", help="a forecast's JSON file; none = log-time extrapolation")
    parser.add_argument("--variant", type=int, default=1, help="0 = all logged; else thinned")
    parser.add_argument("--told", action="store_true", help="learning rate, decay, fraction given")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    runs = [r for r in load() if r.meta["split"] == options.split or r.meta["kind"] == "ordinary"]
    ask = partial(answers, path=options.forecast, variant=options.variant, told=options.told)
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(ask, runs, chunksize=8))
    for kind in ("mlp", "deep", "transformer", "cells"):
        chosen = [case for case in found if case["meta"]["kind"] == kind]
        print(f"\n{kind}: {len(chosen)} runs of the split {options.split!r}")
        print(
            "    at   runs  generalise   answers     AUC (90 % interval)   timed    error    inside"
        )
        for time in TIMES:
            print(table(chosen, time))
        killed = [case for case in chosen if case["stop"] is not None and case["meta"]["t4"]
                  and case["stop"] < case["meta"]["t4"]]  # fmt: skip
        grokkers = sum(case["meta"]["t4"] is not None for case in chosen)
        print(f"stopped before they generalised: {len(killed)} of {grokkers}")
        never = [case for case in chosen if case["meta"]["t4"] is None]
        saved = [1.0 - case["stop"] / case["meta"]["horizon"] if case["stop"] is not None else 0.0
                 for case in never]  # fmt: skip
        print(f"compute of the {len(never)} others saved: {np.mean(saved or [0.0]):.0%}")
    ordinary = [case for case in found if case["meta"]["kind"] == "ordinary"]
    stopped = sum(case["stop"] is not None for case in ordinary)
    for case in ordinary:
        if case["stop"] is not None:
            print("  ", case["meta"]["id"], case["meta"]["scenario"], "at step", case["stop"])
    print(f"\nordinary training: {stopped} of {len(ordinary)} runs called unpromising")


if __name__ == "__main__":
    main()
