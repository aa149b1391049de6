"""Table 3: how far the expected step is off, and how often the interval holds the truth."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.forecast.baselines import TIMES, Case, cases
from benchmarks.forecast.measures import Floats, median_interval, share_interval, shown
from benchmarks.forecast.replays import Trace
from benchmarks.forecast.table_if import KINDS, WAYS, of_kind

AT = ("400", "1000", "t2", "5 t2", "10 t2")


def _late(found: list[Case]) -> list[Case]:
    return [case for case in found if case[0].meta["t4"] is not None]


def _true(found: list[Case]) -> Floats:
    return np.array([np.log10(trace.meta["t4"] + 1.0) for trace, _ in found])


def _now(found: list[Case]) -> Floats:
    return np.array([np.log10(trace.step[i] + 1.0) for trace, i in found])


def _clock(found: list[Case]) -> Floats:
    """log10 of 1 / (lr x wd), NaN without decay."""
    product = np.array([t.meta["lr"] * t.meta["weight_decay"] for t, _ in found])
    return -np.log10(np.where(product > 0.0, product, np.nan))


def laws(fit: list[Case], found: list[Case]) -> dict[str, Floats]:
    """log10 t4 by two laws fitted on runs that were waiting at the same time.

    The constant is the median delay from now. The law takes log t4 as a line in log(1 / (lr wd)),
    never before now; without decay it falls back on the constant.
    """
    constant = _now(found) + np.median(_true(fit) - _now(fit))
    x, known = _clock(found), _clock(fit)
    ok = np.isfinite(known)
    slope, level = np.polyfit(known[ok], _true(fit)[ok], 1)
    law = np.where(np.isfinite(x), np.maximum(level + slope * x, _now(found)), constant)
    return {"constant": constant, "lr x wd law": law}


def table(
    forecast: dict[str, list[Trace]], line: list[Trace], fit: list[Trace]
) -> list[dict[str, Any]]:
    """One entry per kind and time; arguments as in ``table_if``."""
    entries = []
    for kind in KINDS:
        for time in AT:
            entry: dict[str, Any] = {"kind": kind, "at": time}
            for way in WAYS:
                found = _late(cases(of_kind(forecast[way], kind), TIMES[time]))
                entry[way] = judged(found)
                if way == "full":
                    entry["runs"] = len(found)
            found = _late(cases(of_kind(line, kind), TIMES[time]))
            entry["line"] = judged(found)
            known = _late(cases(of_kind(fit, kind), TIMES[time]))
            if len(known) >= 5 and found:
                for name, guess in laws(known, found).items():
                    entry[name] = {"error": median_interval(abs(guess - _true(found)))}
            entries.append(entry)
    return entries


def judged(found: list[Case]) -> dict[str, Any]:
    """Median error in decades and coverage, of the runs that were told a time."""
    timed = [case for case in found if np.isfinite(case[0].eta[case[1], 1])]
    if not timed:
        return {"timed": 0}
    eta = np.array([trace.eta[i] for trace, i in timed])
    t4 = np.array([trace.meta["t4"] for trace, _ in timed], dtype=float)
    error = abs(np.log10((eta[:, 1] + 1.0) / (t4 + 1.0)))
    inside = (eta[:, 0] <= t4) & (t4 <= eta[:, 2])
    return {
        "timed": len(timed),
        "error": median_interval(error),
        "inside": share_interval(int(inside.sum()), len(inside)),
    }


def lines(entries: list[dict[str, Any]]) -> list[str]:
    """The table as text."""
    text = [
        "3. When: runs that generalise later; median |log10(expected / true)|, share of truths",
        "   inside the 80 % interval. A time is told when the probability is at least .1.",
        "",
    ]
    for kind in KINDS:
        text.append(
            f"{kind:>12}  runs" + "".join(f"{way + ': timed, error, inside':>47}" for way in WAYS)
        )
        mine = [e for e in entries if e["kind"] == kind]
        for e in mine:
            text.append(f"{e['at']:>12} {e['runs']:5d}" + "".join(_way(e[way]) for way in WAYS))
        text.append(
            f"{'baselines':>12}" + f"{'constant':>18}{'lr x wd law':>18}{'line: timed, error':>26}"
        )
        for e in mine:
            text.append(
                f"{e['at']:>12}"
                + "".join(f"{_error(e.get(name)):>18}" for name in ("constant", "lr x wd law"))
                + f"{e['line']['timed']:8d}{_error(e['line']):>18}"
            )
        text.append("")
    return text


def _way(found: dict[str, Any]) -> str:
    inside = shown(found.get("inside"), percent=True)
    return f"{found['timed']:8d}{_error(found):>17}{inside:>22}"


def _error(found: dict[str, Any] | None) -> str:
    return shown(None if found is None else found.get("error"))
