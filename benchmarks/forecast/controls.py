"""Table 7 (ordinary training) and the forecast that never saw a transformer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from benchmarks.forecast.measures import bootstrap, share_interval, shown
from benchmarks.forecast.refits import Job
from benchmarks.forecast.replays import OUT, Ask, Trace, replays
from benchmarks.forecast.rules import Outcomes, forecast_stops
from grokwatch.forecast.learned import Forecast

UNSEEN = Job("forecast", "without transformers")
RATES = (0.02, 0.05)


def ordinary(path: str) -> list[dict[str, Any]]:
    """Every recorded ordinary training in every way of logging: was a stop ever recommended?"""
    asks = [Ask(path, variant, told) for variant in (0, 1, 2) for told in (False, True)]
    entries = []
    for ask, traces in replays(asks, ("ordinary",), None).items():
        stopped = [t for t in traces if t.stop.any()]
        entries.append({
            "variant": ask.variant, "told": ask.told, "runs": len(traces),
            "stopped": [[t.meta["id"], t.meta["scenario"]] for t in stopped],
            "share": share_interval(len(stopped), len(traces)),
        })  # fmt: skip
    return entries


def ordinary_lines(entries: list[dict[str, Any]]) -> list[str]:
    """Table 7 as text."""
    text = ["7. Ordinary training: runs in which stop_unpromising was ever recommended", ""]
    for e in entries:
        way = f"logging {e['variant']} ({'thinned' if e['variant'] else 'full'})"
        names = ", ".join(f"{name} ({scenario})" for name, scenario in e["stopped"])
        text.append(
            f"   {way:22} {'told' if e['told'] else 'not told':9} {len(e['stopped']):3d} of "
            f"{e['runs']}  {shown(e['share'], percent=True)} {names}"
        )
    return [*text, ""]


def unseen(parameters: dict[str, Any], split: str) -> list[dict[str, Any]]:
    """Stops on transformers by a forecast fitted, calibrated and given thresholds without any."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"without-transformers-{split}.json"
    path.write_text(json.dumps(parameters))
    known = Forecast.load(path)
    found = {s: replays([Ask(str(path))], ("transformer",), s) for s in ("fit", split)}
    lots: dict[str, list[Trace]] = {
        split: next(iter(found[split].values())),
        "fit too": [t for each in found.values() for traces in each.values() for t in traces],
    }
    entries = []
    for lot, traces in lots.items():
        runs = Outcomes.of([t.meta for t in traces])
        for rate in RATES:
            stops = forecast_stops(traces, known.kill_below(rate))
            killed, _, late, never = runs.score(stops)
            saved = 1.0 - np.minimum(stops[runs.never] / runs.horizon[runs.never], 1.0)
            entries.append({
                "lot": lot, "rate": rate, "grokkers": late, "never": never, "killed": int(killed),
                "kill": share_interval(int(killed), late),
                "saved": bootstrap(lambda w, s=saved: float(w @ s / w.sum()), np.arange(never)),
                "saved_memorising": float(runs.score(stops, memorising=True)[1]),
            })  # fmt: skip
    return entries


def unseen_lines(entries: list[dict[str, Any]]) -> list[str]:
    """The second part of table 2 as text."""
    text = [
        "2b. Stops on transformers by a forecast fitted, calibrated and given its thresholds "
        "without any",
        "",
        f"{'runs':>12}{'max rate':>10}{'killed':>10}{'':>20}{'saved':>21}{'saved, memorising':>20}",
    ]
    for e in entries:
        text.append(
            f"{e['lot']:>12}{e['rate']:>10.0%}{e['killed']:>6d}/{e['grokkers']:<4d}"
            f"{shown(e['kill'], percent=True):>19}{shown(e['saved'], percent=True):>21}"
            f"{e['saved_memorising']:>20.0%}"
        )
    return [*text, ""]
