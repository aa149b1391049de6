"""Table 4: what stopping costs (runs that would have generalised) and what it saves."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.corpus.load import Run
from benchmarks.forecast.measures import Floats, bootstrap, share_interval, shown
from benchmarks.forecast.replays import Trace
from benchmarks.forecast.rules import (
    Outcomes,
    forecast_stops,
    learnt_stops,
    paper_stops,
    patience_stops,
)
from benchmarks.forecast.table_if import KINDS, WAYS, of_kind
from grokwatch.forecast.learned import Forecast

RATES = (0.01, 0.02, 0.05, 0.1)


def entry(runs: Outcomes, stops: Floats) -> dict[str, Any]:
    """Killed and saved, of all runs and of those that memorise."""
    killed, _, late, never = runs.score(stops)
    inside = runs.score(stops, memorising=True)
    shares = 1.0 - np.minimum(stops[runs.never] / runs.horizon[runs.never], 1.0)
    return {
        "killed": int(killed), "grokkers": late, "kill": share_interval(int(killed), late),
        "saved": bootstrap(lambda w: float(w @ shares / w.sum()), np.arange(never)),
        "never": never, "saved_memorising": float(inside[1]), "memorising": inside[3],
        "grokkers_memorising": inside[2],
    }  # fmt: skip


def check(traces: list[Trace], threshold: float | None) -> None:
    """Raise if the stops worked out here are not those that the monitor recommended."""
    for trace, stop in zip(traces, forecast_stops(traces, threshold), strict=True):
        said = trace.step[trace.stop]
        if (said[0] if said.size else np.inf) != stop:
            raise AssertionError(f"{trace.meta['id']}: {stop} here, {said[:1]} by the monitor")


def table(
    forecast: dict[str, list[Trace]],
    path: str,
    line: list[Trace],
    fit: list[Trace],
    runs: dict[str, Run],
) -> list[dict[str, Any]]:
    """One entry per kind, rule and rate.

    Args:
        forecast: way of logging -> traces of the split.
        path: the forecast's file, for its thresholds.
        line: traces of the split without the forecast.
        fit: the same of the ``fit`` split, on which the other rules are tuned.
        runs: id -> recorded run, of both splits, for patience.
    """
    known = Forecast.load(path)
    for traces in forecast.values():
        check(traces, known.kill_below(0.02))
    entries: list[dict[str, Any]] = []
    learnt = {what: learnt_stops(fit, line, what) for what in ("hyper-parameters", "spectral")}
    for kind in KINDS:
        mine, others = of_kind(line, kind), of_kind(fit, kind)
        late = Outcomes.of([t.meta for t in mine])
        past = Outcomes.of([t.meta for t in others])
        budgets = {}
        for rate in RATES:
            threshold = known.kill_below(rate)
            for way in WAYS:
                found = entry(late, forecast_stops(of_kind(forecast[way], kind), threshold))
                entries.append({"kind": kind, "rule": f"forecast, {way}", "rate": rate, **found})
                budgets[rate, way] = found["killed"]
        at_once = entry(late, forecast_stops(of_kind(forecast["full"], kind), 2.0))
        entries.append({"kind": kind, "rule": "whenever it may", "rate": None, **at_once})
        families: dict[str, tuple[Floats, Floats]] = {
            what: (
                before[:, [t.meta["kind"] == kind for t in fit]],
                after[:, [t.meta["kind"] == kind for t in line]],
            )
            for what, (before, after) in learnt.items()
        }
        for name in ("val_loss", "val_accuracy"):
            families[f"patience, {name}"] = tuple(  # type: ignore[assignment]
                patience_stops([runs[t.meta["id"]] for t in side], name) for side in (others, mine)
            )
        for name, (before, after) in families.items():
            for rate in RATES:
                chosen = _best(past, before, rate * past.generalises.sum())
                tuned = entry(late, after[chosen] if chosen is not None else np.inf * late.horizon)
                equal = _best(late, after, budgets[rate, "full"])
                tuned["hindsight"] = 0.0 if equal is None else float(late.score(after[equal])[1])
                entries.append({"kind": kind, "rule": name, "rate": rate, **tuned})
        for percentile in (50, 90):
            stops = paper_stops([t.meta for t in others], [t.meta for t in mine], percentile)
            rule = f"t4(r)+1000, {percentile} %"
            entries.append({"kind": kind, "rule": rule, "rate": None, **entry(late, stops)})
    return entries


def _best(runs: Outcomes, stops: Floats, kills: float) -> int | None:
    """The setting that saves most at no more kills; None = none is that careful."""
    killed, saved, _, _ = runs.score(stops)
    allowed = np.flatnonzero(killed <= kills)
    return int(allowed[saved[allowed].argmax()]) if allowed.size else None


def lines(entries: list[dict[str, Any]]) -> list[str]:
    """The table as text."""
    text = [
        "4. Stop: generalising runs stopped before they generalise, and compute saved of the runs",
        "   that neither generalise nor diverge. Other rules: the setting that saved most on the",
        "   fit split at that rate; 'at equal kills' = the best setting chosen with hindsight on",
        "   these very runs at no more kills than the forecast (full) had. 'whenever it may' = the",
        "   forecast's stops if its probability were always low: the most that it can ever save.",
        "",
    ]
    for kind in KINDS:
        mine = [e for e in entries if e["kind"] == kind]
        first = mine[0]
        text.append(
            f"{kind}: {first['grokkers']} generalise, {first['never']} never "
            f"({first['memorising']} of these memorise)"
        )
        text.append(
            f"{'rule':>26} {'max rate':>9} {'killed':>9} {'':>17}{'saved':>20}"
            f"{'saved, memorising':>20}{'at equal kills':>16}"
        )
        for e in mine:
            rate = "-" if e["rate"] is None else f"{e['rate']:.0%}"
            equal = f"{e['hindsight']:.0%}" if "hindsight" in e else ""
            text.append(
                f"{e['rule']:>26} {rate:>9} {e['killed']:4d}/{e['grokkers']:<4d}"
                f"{shown(e['kill'], percent=True):>18}{shown(e['saved'], percent=True):>20}"
                f"{e['saved_memorising']:>20.0%}{equal:>16}"
            )
        text.append("")
    return text
