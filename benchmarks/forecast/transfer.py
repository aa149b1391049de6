"""Tables 2 and 8: models fitted with an operator, the transformers or some features left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.forecast.measures import Bools, Floats, ranking, resampled, shown, wins
from benchmarks.forecast.refits import LATER, Job, left_out, operators
from benchmarks.forecast.samples import Table

TRANSFORMER = Job("transformer", "transformer")
_SAMPLES = {
    "mlp": ("mlp",),
    "transformer": ("transformer",),
    "deep": ("deep",),
    "cells": ("cells",),
}


def jobs(rows: Table) -> list[Job]:
    """Everything to fit for the two tables."""
    return [
        *(Job("operator", name) for name in operators(rows)),
        TRANSFORMER,
        *(Job("features", name) for name in left_out()),
    ]


def _pooled(found: list[dict[str, Any]], time: str) -> dict[str, npt.NDArray[Any]]:
    parts = [each[time] for each in found if time in each]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _ranked(all_: dict[str, npt.NDArray[Any]], chosen: Bools) -> dict[str, Any]:
    chosen = chosen & (all_["variant"] == 0)
    label = all_["label"][chosen]
    return {
        "runs": int(chosen.sum()),
        "generalise": int(label.sum()),
        "auc": ranking(all_["odds"][chosen], label, all_["base"][chosen]),
    }


def transfer(answers: dict[Job, dict[str, Any]], split: str) -> list[dict[str, Any]]:
    """Table 2: one entry per time and part; hyper-parameters not told, everything logged."""
    entries = []
    apart = {job.name: found for job, found in answers.items() if job.what == "operator"}
    for time in LATER:
        pooled = _pooled(list(apart.values()), time)
        inside = pooled["split"] == split
        everything = np.ones(len(inside), dtype=bool)
        plain = np.isin(pooled["kind"], ["mlp", "deep"])
        parts: dict[str, Bools] = {
            f"each operator left out, {split}": inside,
            f"  of these mlp and deep, {split}": inside & plain,
            "each operator left out, fit too": everything,
            "  of these mlp and deep, fit too": plain,
        }
        for name, found in apart.items():
            if time == "1000" and time in found:
                mine = np.isin(pooled["operator"], name.split(" and "))
                parts[f"    {name}" if " and " not in name else "    the rare ones"] = mine
        for part, chosen in parts.items():
            entries.append({"part": part, "at": time, **_ranked(pooled, chosen)})
        other = answers[TRANSFORMER].get(time)
        if other is not None:
            own = other["split"] == split
            entries.append({"part": f"no transformer seen, {split}", "at": time,
                            **_ranked(other, own)})  # fmt: skip
            entries.append({"part": "no transformer seen, fit too", "at": time,
                            **_ranked(other, own | True)})  # fmt: skip
    return entries


def transfer_lines(entries: list[dict[str, Any]]) -> list[str]:
    """Table 2 as text."""
    text = [
        "2. Transfer: area under the ROC curve of models refitted with something left out; told no",
        "   hyper-parameters, everything logged. 'fit too': runs of the fit groups count as well,",
        "   the model has seen neither their operator nor (below) their architecture. The rare",
        "   ones are left out together: hardly any run of theirs generalises.",
        "",
        f"{'at':>6} {'':36}{'runs':>6}{'yes':>5}  {'AUC (90 %)':>18}",
    ]
    for e in entries:
        text.append(
            f"{e['at']:>6} {e['part']:36}{e['runs']:6d}{e['generalise']:5d}  {shown(e['auc']):>18}"
        )
    return [*text, ""]


def _difference(
    score: Floats, other: Floats, label: Bools, base: npt.ArrayLike
) -> tuple[float, float, float]:
    """AUC of the one minus AUC of the other on the same runs, bootstrapped together."""
    gap = wins(score, label) - wins(other, label)
    drawn = resampled(base)
    yes, no = drawn[:, label], drawn[:, ~label]
    with np.errstate(invalid="ignore"):
        gaps = ((yes @ gap) * no).sum(axis=1) / (yes.sum(axis=1) * no.sum(axis=1))
    low, high = np.nanquantile(gaps, [0.05, 0.95])
    return float(gap.mean()), float(low), float(high)


def ablation(answers: dict[Job, dict[str, Any]]) -> list[dict[str, Any]]:
    """Table 8: one entry per feature set, kind and time, with the loss against all features."""
    full = answers[Job("features", "nothing")]
    return [
        entry
        for name in left_out()
        for entry in compared(answers[Job("features", name)], full, name)
    ]


def compared(answers: dict[str, Any], full: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """AUC of one model per kind and time, and the change against the other one."""
    entries = []
    for kind, kinds in _SAMPLES.items():
        for time in LATER:
            now, all_ = answers[time], full[time]
            chosen = np.isin(now["kind"], kinds) & (now["variant"] == 0)
            label = now["label"][chosen]
            entry: dict[str, Any] = {"without": name, "kind": kind, "at": time}
            entry["auc"] = ranking(now["odds"][chosen], label, now["base"][chosen])
            if entry["auc"] is not None:
                entry["change"] = _difference(
                    now["odds"][chosen], all_["odds"][chosen], label, now["base"][chosen]
                )
            entries.append(entry)
    return entries


def ablation_lines(entries: list[dict[str, Any]]) -> list[str]:
    """Table 8 as text."""
    text = [
        "8. Ablations: AUC on the split without some features, and the change against all of them",
        "   (hyper-parameters are not told to any; 'hyper-parameters told' never saw them).",
        "   '(spectral added)': with the spectral signature, against the same fit without.",
        "",
        f"{'without':>22} {'':>12}" + "".join(f"{'at ' + time:>22}{'':>8}" for time in LATER),
    ]
    for name in dict.fromkeys(e["without"] for e in entries):
        for kind in _SAMPLES:
            mine = [e for e in entries if e["without"] == name and e["kind"] == kind]
            text.append(f"{name:>22} {kind:>12}" + "".join(_cell(e) for e in mine))
    return [*text, ""]


def _cell(entry: dict[str, Any]) -> str:
    change = entry.get("change")
    if change is None:
        return f"{'-':>30}"
    mark = "*" if change[1] > 0 or change[2] < 0 else " "
    return f"{shown(entry['auc']):>18}{change[0]:>+10.3f}{mark:2}"
