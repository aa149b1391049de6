"""Table 1: how well the forecast ranks runs that will generalise above those that will not."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.forecast.baselines import TIMES, Case, Learnt, cases, clusters, labels, scores
from benchmarks.forecast.measures import Floats, matched, ranking, shown
from benchmarks.forecast.replays import Trace

KINDS = ("mlp", "deep", "transformer", "cells")
#: Ways of logging: title -> (variant, told).
WAYS = {
    "full": (0, False),
    "thinned": (1, False),
    "full, told": (0, True),
    "thinned, told": (1, True),
}


def said(found: list[Case]) -> Floats:
    """The probabilities; no answer counts as the mean of the answers."""
    probability = np.array([trace.probability[i] for trace, i in found])
    known = np.isfinite(probability)
    return np.where(known, probability, probability[known].mean() if known.any() else 0.5)


def of_kind(traces: list[Trace], kind: str) -> list[Trace]:
    """The runs of one kind."""
    return [trace for trace in traces if trace.meta["kind"] == kind]


def table(
    forecast: dict[str, list[Trace]], line: list[Trace], fit: list[Trace]
) -> list[dict[str, Any]]:
    """One entry per kind and time.

    Args:
        forecast: way of logging -> traces of the split.
        line: traces of the split by the log-time extrapolation, everything logged.
        fit: the same of the ``fit`` split.
    """
    entries = []
    for time, when in TIMES.items():
        known = Learnt.on(cases(fit, when))
        for kind in KINDS:
            entry: dict[str, Any] = {"kind": kind, "at": time}
            for way in WAYS:
                found = cases(of_kind(forecast[way], kind), when)
                if way == "full":
                    answers = [np.isfinite(t.probability[i]) for t, i in found]
                    label = labels(found)
                    entry.update(runs=len(found), generalise=int(label.sum()))
                    entry["answers"] = float(np.mean(answers)) if answers else 0.0
                entry[way] = ranking(said(found), labels(found), clusters(found))
            found = cases(of_kind(line, kind), when)
            label, drawn = labels(found), clusters(found)
            judged = scores(known, found) if label.any() else {}
            entry["baselines"] = {name: ranking(s, label, drawn) for name, s in judged.items()}
            entry["matched"] = _matched(forecast, line, kind, when, judged)
            entries.append(entry)
    return entries


def _matched(
    forecast: dict[str, list[Trace]],
    line: list[Trace],
    kind: str,
    when: Any,
    judged: dict[str, Floats],
) -> dict[str, Any]:
    """Share of pairs with nearly the same learning rate and decay that are ranked rightly."""
    result: dict[str, Any] = {}
    for way in ("full", "full, told", "hyper-p.", "its slope"):
        base = way not in forecast
        found = cases(of_kind(line if base else forecast[way], kind), when)
        label = labels(found)
        if label.all() or not label.any():
            continue
        lr, wd = (np.array([t.meta[k] for t, _ in found]) for k in ("lr", "weight_decay"))
        pairs = matched(label, lr, wd)
        if kind == "cells":  # within a cell only the seed differs
            own = clusters(found)
            pairs = own[label][:, None] == own[~label][None, :]
        result["pairs"] = int(pairs.sum())
        score = judged[way] if base else said(found)
        result[way] = ranking(score, label, clusters(found), pairs)
    return result


def lines(entries: list[dict[str, Any]]) -> list[str]:
    """The table as text."""
    text = ["1. If: area under the ROC curve among runs that have not generalised yet", ""]
    for kind in KINDS:
        mine = [e for e in entries if e["kind"] == kind]
        text.append(f"{kind:>12}  runs  yes answers" + "".join(f"{w:>18}" for w in WAYS))
        for e in mine:
            text.append(
                f"{e['at']:>12} {e['runs']:5d} {e['generalise']:4d} {e['answers']:7.0%}"
                + "".join(f"{shown(e[way]):>18}" for way in WAYS)
            )
        names = list(dict.fromkeys(name for e in mine for name in e["baselines"]))
        text.append(f"{'baselines':>12}" + "".join(f"{name:>15}" for name in names))
        for e in mine:
            text.append(
                f"{e['at']:>12}"
                + "".join(f"{shown(e['baselines'].get(name)):>15}" for name in names)
            )
        same = "within a cell" if kind == "cells" else "same lr and wd"
        text.append(
            f"{same:>12} pairs" + "".join(
                f"{w:>18}" for w in ("full", "full, told", "hyper-p.", "its slope")
            )
        )  # fmt: skip
        for e in mine:
            text.append(
                f"{e['at']:>14} {e['matched'].get('pairs', 0):5d}" + "".join(
                    f"{shown(e['matched'].get(w)):>18}"
                    for w in ("full", "full, told", "hyper-p.", "its slope")
                )
            )  # fmt: skip
        text.append("")
    return text
