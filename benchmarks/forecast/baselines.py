"""What the forecast is compared with: single measurements, hyper-parameters, the spectral score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GroupKFold

from benchmarks.forecast.measures import Bools, Floats, wins
from benchmarks.forecast.replays import Trace

#: A run and the index of the verdict it is asked at.
Case = tuple[Trace, int]

TIMES: dict[str, Callable[[dict[str, Any]], float]] = {
    "400": lambda meta: 400.0,
    "1000": lambda meta: 1000.0,
    "t2": lambda meta: float(meta["t2"] or np.nan),
    "3 t2": lambda meta: 3.0 * float(meta["t2"] or np.nan),
    "5 t2": lambda meta: 5.0 * float(meta["t2"] or np.nan),
    "10 t2": lambda meta: 10.0 * float(meta["t2"] or np.nan),
    "20 t2": lambda meta: 20.0 * float(meta["t2"] or np.nan),
}
SINGLE = {
    "val loss": "val_loss",
    "its slope": "val_loss_slope_4x",
    "margin": "val_margin",
    "norm": "weight_norm",
}
_CHOICES = ("operator", "optimiser", "activation", "loss", "kind", "dtype")
_NUMBERS = ("lr", "weight_decay", "r", "p", "width", "init_scale", "n_train", "n_batch", "beta2")


def cases(traces: list[Trace], when: Callable[[dict[str, Any]], float]) -> list[Case]:
    """The runs that have a recent verdict at that time and have not generalised by then."""
    found = []
    for trace in traces:
        i = trace.at(when(trace.meta))
        t4 = trace.meta["t4"]
        if i is not None and (t4 is None or trace.step[i] < t4):
            found.append((trace, i))
    return found


def labels(found: list[Case]) -> Bools:
    """Whether each run generalises later."""
    return np.array([trace.meta["t4"] is not None for trace, _ in found], dtype=bool)


def clusters(found: list[Case]) -> npt.NDArray[np.str_]:
    """What is independent: runs, but for cells the whole cell."""
    return np.array([str(t.meta.get("cell") or t.meta["id"]) for t, _ in found])


def hyper_parameters(found: list[Case], codes: dict[str, list[str]]) -> Floats:
    """What was known before the first step, the operator included."""
    rows = []
    for trace, _ in found:
        meta = trace.meta
        row = [float(meta[name]) if meta.get(name) is not None else np.nan for name in _NUMBERS]
        row.append(np.log10(max(meta["lr"] * meta["weight_decay"], 1e-9)))
        for name, known in codes.items():
            value = str(meta.get(name))
            row.append(float(known.index(value)) if value in known else np.nan)
        rows.append(row)
    return np.array(rows, dtype=float)


def coding(found: list[Case]) -> dict[str, list[str]]:
    """The numbers that stand for the words of :func:`hyper_parameters`."""
    return {name: sorted({str(t.meta.get(name)) for t, _ in found}) for name in _CHOICES}


def spectral(found: list[Case]) -> Floats:
    """The spectral signature of the early training loss: the last that was known by then.

    Later than step 400 the corpus's losses are too far apart for a spectrum.
    """
    nan = float("nan")
    x = np.full((len(found), len(_SPECTRAL)), nan)
    for row, (trace, i) in zip(x, found, strict=True):
        for k, name in enumerate(_SPECTRAL):
            known = trace.signals.get(name, np.empty(0))[: i + 1]
            ok = np.flatnonzero(~np.isnan(known))
            if ok.size:
                row[k] = known[ok[-1]]
    return np.clip(x, -1e30, 1e30)  # a run that diverged has infinite energy


_SPECTRAL = tuple(
    f"spectral_{log}{name}"
    for log in ("", "log_")
    for name in ("activity", "complexity", "energy", "frequency", "hjorth_complexity", "mobility")
)


def trees(x: Floats, answer: Bools, weight: Floats | None = None) -> HistGradientBoostingClassifier:
    """Small boosted trees, for a baseline."""
    model = HistGradientBoostingClassifier(
        max_iter=80, learning_rate=0.08, max_depth=4, min_samples_leaf=15, l2_regularization=2.0,
        early_stopping=False, random_state=0,
    )  # fmt: skip
    x = np.where(np.isfinite(x).any(axis=0), x, 0.0)  # a column that nobody knows
    return model.fit(x, answer, sample_weight=weight)


def held_out(x: Floats, answer: Bools, groups: npt.ArrayLike, weight: Floats | None) -> Floats:
    """Probabilities by trees that never saw the group, three folds."""
    found = np.empty(len(answer))
    for inside, outside in GroupKFold(3).split(x, groups=np.asarray(groups)):
        model = trees(x[inside], answer[inside], None if weight is None else weight[inside])
        found[outside] = model.predict_proba(x[outside])[:, 1]
    return found


def single(fit: list[Case], found: list[Case], name: str) -> Floats:
    """A measurement's level, turned the way that ranks the ``fit`` runs; not known = their mean."""
    turn = 1.0
    known = np.array([float(t.signals[name][i]) for t, i in fit])
    label = labels(fit)
    ok = np.isfinite(known)
    if label[ok].any() and not label[ok].all() and wins(known[ok], label[ok]).mean() < 0.5:
        turn = -1.0
    score = turn * np.array([float(t.signals[name][i]) for t, i in found])
    finite = np.isfinite(score)
    return np.where(finite, score, score[finite].mean() if finite.any() else 0.0)


@dataclass(frozen=True)
class Learnt:
    """Trees on hyper-parameters and on the spectral signature, fitted on runs of one moment."""

    fit: list[Case]
    codes: dict[str, list[str]]
    hyper: HistGradientBoostingClassifier
    spectral: HistGradientBoostingClassifier

    @classmethod
    def on(cls, fit: list[Case]) -> Learnt:
        """Fit both."""
        answer, codes = labels(fit), coding(fit)
        return cls(
            fit, codes, trees(hyper_parameters(fit, codes), answer), trees(spectral(fit), answer)
        )


def scores(learnt: Learnt, found: list[Case]) -> dict[str, Floats]:
    """Every baseline's score of the cases, higher = likelier to generalise.

    Args:
        learnt: from the same time, on runs of the ``fit`` split.
        found: the cases, from traces of the log-time extrapolation.
    """
    line = np.array([t.probability[i] for t, i in found])
    known = np.isfinite(line)
    hyper = learnt.hyper.predict_proba(hyper_parameters(found, learnt.codes))[:, 1]
    result = {
        "lr x wd": np.array([t.meta["lr"] * t.meta["weight_decay"] for t, _ in found]),
        "hyper-p.": hyper,
        "spectral": learnt.spectral.predict_proba(spectral(found))[:, 1],
        "line": np.where(known, line, line[known].mean() if known.any() else 0.5),
    }
    kinds = {t.meta["kind"] for t, _ in found}
    alike = [case for case in learnt.fit if case[0].meta["kind"] in kinds]
    for title, name in SINGLE.items():
        result[title] = single(alike, found, name)
    return result
