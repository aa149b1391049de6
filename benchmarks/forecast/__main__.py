"""Is the forecast any good? Every table, on runs it was not fitted on, through ``Monitor`` alone.

    python -m benchmarks.forecast                        # the groups 'calibrate'
    python -m benchmarks.forecast --split test           # once a release
    python -m benchmarks.forecast --tables if when --forecast mine.json --json out.json

The trees of a forecast never saw the groups ``calibrate``, but its calibration and its kill
thresholds did; ``test`` was seen by nothing. Intervals: 90 %, bootstrap over runs (whole cells for
the cells), or Clopper and Pearson for shares. ``full``: all that the corpus holds; ``thinned``:
validation at a random cadence of 1 to 400 steps, measurements missing; ``told``: learning rate,
weight decay and training fraction given.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.corpus.load import load
from benchmarks.forecast import (
    bar,
    calibration,
    controls,
    guarantee,
    refits,
    spectral_ablation,
    table_if,
    table_stop,
    table_when,
    transfer,
)
from benchmarks.forecast.fit import SHIPPED
from benchmarks.forecast.replays import Ask, replays
from grokwatch.forecast.learned import Forecast

TABLES = (
    "ordinary", "if", "when", "stop", "calibration", "transfer", "unseen", "guarantee", "ablation",
)  # fmt: skip


def main() -> None:
    """Print the tables, then the bar."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.forecast",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--split", default="calibrate", choices=("calibrate", "test"))
    parser.add_argument("--forecast", default=str(SHIPPED), help="JSON file; default: the shipped")
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    parser.add_argument("--json", type=Path, help="keep every figure here")
    parser.add_argument("--every", type=int, default=1, help="quick look: every n-th shard only")
    parser.add_argument("--no-figure", action="store_true", help="leave docs/figures alone")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes to come
    threadpool_limits(1)  # for this one
    started = time.monotonic()
    print(f"split '{options.split}', {datetime.date.today()}, {Path(options.forecast).name}")
    results: dict[str, Any] = {}

    def keep(name: str, entries: Any, lines: list[str]) -> None:
        results[name] = entries
        print("\n" + "\n".join(lines), flush=True)

    if "ordinary" in options.tables:
        entries = controls.ordinary(options.forecast)
        keep("ordinary", entries, controls.ordinary_lines(entries))
    if set(options.tables) & {"if", "when", "stop", "calibration"}:
        _replayed(options, keep)
    if set(options.tables) & {"transfer", "unseen", "guarantee", "ablation"}:
        _refitted(options, keep)
    results["bar"] = bar.bar(results, options.split)
    print("\n" + "\n".join(bar.text(results["bar"])))
    print(f"\n{(time.monotonic() - started) / 60:.0f} minutes")
    if options.json:
        card = Forecast.load(options.forecast).parameters["card"]
        results["about"] = {"split": options.split, "forecast": card, "every": options.every}
        options.json.write_text(json.dumps(results, indent=1, default=_plain) + "\n")


def _replayed(options: argparse.Namespace, keep: Any) -> None:
    """Tables 1, 3, 4 and 5."""
    asks = {way: Ask(options.forecast, *how) for way, how in table_if.WAYS.items()}
    line = Ask(None)
    found = replays(
        [*asks.values(), line], table_if.KINDS, options.split, options.every
    )  # fmt: skip
    forecast = {way: found[ask] for way, ask in asks.items()}
    fit = replays([line], table_if.KINDS, "fit", options.every)[line]
    if "if" in options.tables:
        entries = table_if.table(forecast, found[line], fit)
        keep("if", entries, table_if.lines(entries))
    if "when" in options.tables:
        entries = table_when.table(forecast, found[line], fit)
        keep("when", entries, table_when.lines(entries))
    if "stop" in options.tables:
        runs = {run.meta["id"]: run for run in load(kinds=table_if.KINDS)}
        entries = table_stop.table(forecast, options.forecast, found[line], fit, runs)
        keep("stop", entries, table_stop.lines(entries))
    if "calibration" in options.tables:
        entries = calibration.table(forecast)
        keep("calibration", entries, calibration.lines(entries))
        if not options.no_figure:
            calibration.draw(entries, options.split)


def _refitted(options: argparse.Namespace, keep: Any) -> None:
    """Tables 2, 6 and 8."""
    rows = refits.load(options.split)
    wanted = {
        "transfer": [job for job in transfer.jobs(rows) if job.what != "features"],
        "ablation": [job for job in transfer.jobs(rows) if job.what == "features"],
        "unseen": [controls.UNSEEN],
        "guarantee": guarantee.JOBS,
    }
    jobs = [job for name in wanted if name in options.tables for job in wanted[name]]
    answers = refits.refits(jobs, rows, options.split)
    if "transfer" in options.tables:
        entries = transfer.transfer(answers, options.split)
        keep("transfer", entries, transfer.transfer_lines(entries))
    if "unseen" in options.tables:
        entries = controls.unseen(answers[controls.UNSEEN], options.split)
        keep("unseen", entries, controls.unseen_lines(entries))
    if "guarantee" in options.tables:
        scale = Forecast.load(options.forecast).parameters["calibration"]
        entries = guarantee.simulate(guarantee.replayed(answers, scale))
        keep("guarantee", entries, guarantee.lines(entries))
    if "ablation" in options.tables:
        entries = transfer.ablation(answers) + spectral_ablation.table(options.split)
        keep("ablation", entries, transfer.ablation_lines(entries))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} has no plain form.")


if __name__ == "__main__":
    main()
