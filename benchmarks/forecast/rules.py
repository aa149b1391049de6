"""Rules that stop a run: the forecast, patience, the paper's rule, and learnt baselines.

Each family gives, for every setting, the step at which each run would be stopped (inf = never), so
that all are scored alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.corpus.load import Run
from benchmarks.forecast.baselines import coding, held_out, hyper_parameters, spectral, trees
from benchmarks.forecast.measures import Bools, Floats
from benchmarks.forecast.replays import Trace
from grokwatch.signals.power_law import fit_power_law

_WAITS = (50, 100, 200, 400, 700, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 11000, 15000)
_FACTORS = (1.3, 1.6, 2.0, 3.0, 4.0, 6.0, 10.0, 16.0, 25.0, 50.0)
_THRESHOLDS = np.concatenate([np.geomspace(1e-4, 0.5, 120)])
GRID = np.round(np.geomspace(50, 18_000, 18))


@dataclass(frozen=True)
class Outcomes:
    """What became of some runs; every array of shape (n,)."""

    t4: Floats  # NaN = never within the horizon
    horizon: Floats
    generalises: Bools
    never: Bools  # neither generalised nor diverged
    memorises: Bools

    @classmethod
    def of(cls, metas: list[dict[str, Any]]) -> Outcomes:
        """From the labels."""
        t4 = np.array([np.nan if m["t4"] is None else float(m["t4"]) for m in metas])
        return cls(
            t4,
            np.array([float(m["horizon"]) for m in metas]),
            ~np.isnan(t4),
            np.isnan(t4) & ~np.array([bool(m["diverged"]) for m in metas]),
            np.array([m["t2"] is not None for m in metas]),
        )

    def score(self, stops: Floats, memorising: bool = False) -> tuple[Floats, Floats, int, int]:
        """Runs killed, share of compute saved, and of how many; ``stops`` of shape (..., n)."""
        late = self.generalises & (self.memorises | (not memorising))
        never = self.never & (self.memorises | (not memorising))
        killed = (stops[..., late] < self.t4[late]).sum(axis=-1)
        saved = 1.0 - np.minimum(stops[..., never] / self.horizon[never], 1.0)
        return killed, saved.mean(axis=-1), int(late.sum()), int(never.sum())


def forecast_stops(traces: list[Trace], threshold: float | None) -> Floats:
    """Where the forecast stops each run: two verdicts in a row below the threshold."""
    found = np.full(len(traces), np.inf)
    for k, trace in enumerate(traces):
        if threshold is not None and len(trace.step) > 1:
            low = trace.may_stop & (np.nan_to_num(trace.probability, nan=1.0) < threshold)
            twice = np.flatnonzero(low[1:] & low[:-1])
            if twice.size:
                found[k] = trace.step[twice[0] + 1]
    return found


def patience(steps: npt.NDArray[np.int64], worse: Floats, t2: float | None) -> list[float]:
    """Steps at which patience runs out, for every setting; ``worse`` = what should fall.

    Settings: steps without a new best, or a factor in steps since the best; counted from the best
    alone, or not before memorisation (then a run that never memorises is never stopped).
    """
    best = np.minimum.accumulate(np.nan_to_num(worse, nan=np.inf))
    new = np.concatenate([[True], best[1:] < best[:-1]])
    last = steps[np.maximum.accumulate(np.where(new, np.arange(len(steps)), 0))]
    found = []
    for start in (0.0, np.inf if t2 is None else float(t2)):
        since = np.maximum(last, start)
        for wait in _WAITS:
            found.append(_first(steps, steps - since >= wait))
        for factor in _FACTORS:
            found.append(_first(steps, (steps + 1.0) >= factor * (since + 50.0)))
    return found


def _first(steps: npt.NDArray[np.int64], over: Bools) -> float:
    return float(steps[int(over.argmax())]) if over.any() else np.inf


def patience_stops(runs: list[Run], name: str) -> Floats:
    """Patience on ``val_loss`` or ``val_accuracy``, shape (settings, runs)."""
    turn = 1.0 if name == "val_loss" else -1.0
    found = []
    for run in runs:
        steps, values = run.columns[name]
        found.append(patience(steps, turn * values, run.meta["t2"]))
    return np.array(found).T


def paper_stops(
    fit: list[dict[str, Any]], metas: list[dict[str, Any]], percentile: float
) -> Floats:
    """Stop at t4(r) + 1000 (Notsawo et al. 2023), t4(r) fitted to a percentile of each r's runs."""
    by_r: dict[float, list[float]] = {}
    for meta in fit:
        if meta["t4"] is not None and meta.get("operator") != "parity":
            by_r.setdefault(round(20 * meta["r"]) / 20, []).append(float(meta["t4"]))
    points = [(100 * r, np.percentile(t4, percentile)) for r, t4 in by_r.items() if len(t4) >= 4]
    if len(points) < 3:
        return np.full(len(metas), np.inf)
    law = fit_power_law(*zip(*sorted(points), strict=True))
    return np.array([
        law.stop_step(100 * m["r"]) if m.get("operator") != "parity" else np.inf for m in metas
    ])  # fmt: skip


def learnt_stops(fit: list[Trace], found: list[Trace], what: str) -> tuple[Floats, Floats]:
    """Thresholds on P(generalises | what, step), for ``hyper-parameters`` or ``spectral``.

    Returns:
        Stops of the ``fit`` runs, by trees that never saw their group, and of the others; both of
        shape (thresholds, runs).
    """
    asked = [_grid(fit), _grid(found)]
    codes = coding([(t, i) for t, i, _ in asked[0]])
    x = []
    for rows in asked:
        pairs = [(t, i) for t, i, _ in rows]
        look = hyper_parameters(pairs, codes) if what == "hyper-parameters" else spectral(pairs)
        x.append(np.column_stack([look, [np.log10(t.step[i] + 1.0) for t, i in pairs]]))
    answer = np.array([t.meta["t4"] is not None for t, _, _ in asked[0]])
    number = np.array([k for _, _, k in asked[0]])
    weight = 1.0 / np.bincount(number)[number]
    groups = [t.meta["group"] for t, _, _ in asked[0]]
    weight /= weight.mean()
    mine = held_out(x[0], answer, groups, weight)
    other = trees(x[0], answer, weight).predict_proba(x[1])[:, 1]
    return _below(asked[0], mine, len(fit)), _below(asked[1], other, len(found))


def _grid(traces: list[Trace]) -> list[tuple[Trace, int, int]]:
    rows = []
    for k, trace in enumerate(traces):
        for when in GRID[GRID < 0.9 * trace.meta["horizon"]]:
            i, t4 = trace.at(float(when)), trace.meta["t4"]
            if i is not None and (t4 is None or trace.step[i] < t4):
                rows.append((trace, i, k))
    return rows


def _below(rows: list[tuple[Trace, int, int]], score: Floats, runs: int) -> Floats:
    found = np.full((len(_THRESHOLDS), runs), np.inf)
    for (trace, i, k), value in zip(rows, score, strict=True):
        stop = value < _THRESHOLDS
        found[stop, k] = np.minimum(found[stop, k], trace.step[i])
    return found
