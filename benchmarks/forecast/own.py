"""What a forecast gains from a user's own finished runs.

    python -m benchmarks.forecast.own                      # tables; minutes
    python -m benchmarks.forecast.own --sweeps deep --draws 50 --ablate

Sweeps are simulated from the ``calibrate`` groups, whose runs the shipped forecast's trees never
saw (its calibration and thresholds did); the ``test`` groups are not read. Of each sweep n runs at
random are "own", all finished; the rest are scored before and after the fit, hyper-parameters told,
logged as users log (variant 1). Intervals: AUC and compute saved, the middle 90 % of the draws
(the draw of own runs, not of the sweep); kills, Clopper and Pearson, each run counted once.

Compute saved: 1 - stop / budget, mean over runs that do not generalise. "ceiling": what stopping at
the first permitted moment would save. "gate" says whether a run that is late to learn its training
set may be stopped too. "loss": log loss of the probability over all verdicts, every run weighing
the same; lower is better.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta
from sklearn.metrics import roc_auc_score

from benchmarks.forecast.dataset import hyper_parameters as told
from benchmarks.forecast.dataset import make_rows
from benchmarks.forecast.fit import SHIPPED, cached_rows
from benchmarks.forecast.own_sweep import sweep as user_sweep
from benchmarks.forecast.samples import Table, at, join, reach, table
from grokwatch.forecast import own as package
from grokwatch.forecast._own_record import OwnRun
from grokwatch.forecast.base import Settings
from grokwatch.forecast.features import NAMES
from grokwatch.forecast.learned import LEAST_VALIDATIONS, STRETCH, Forecast, may_give_up, may_stop
from grokwatch.forecast.prior import OwnPrior

Floats = npt.NDArray[np.float64]
Meta = dict[str, Any]

SWEEPS: dict[str, Callable[[Meta], bool]] = {
    "random MLPs": lambda m: m["kind"] == "mlp",
    "MLPs, AdamW": lambda m: m["kind"] == "mlp" and m["optimiser"] == "adamw",
    "transformers": lambda m: m["kind"] == "transformer" and m["optimiser"] == "adamw",
    "deep": lambda m: m["kind"] == "deep" and m["optimiser"] == "adamw",
    "cells": lambda m: m["kind"] == "cells",
    "grid": lambda m: m["kind"] == "sweep",
}
SIZES = (6, 10, 20, 30, 60)


@dataclass
class Sweep:
    """A sweep with what the shipped forecast says of its rows."""

    rows: Table
    number: npt.NDArray[np.int64]  # of the run, per row
    runs: list[OwnRun]
    log_odds: Floats
    times: Floats

    @property
    def late(self) -> npt.NDArray[np.bool_]:
        """Which runs generalise."""
        return np.array([run.outcome == "generalised" for run in self.runs])


def sweep(rows: Table, metas: list[Meta], wanted: Callable[[Meta], bool], base: Forecast) -> Sweep:
    """The runs of one kind."""
    enough = rows.x[:, NAMES.index("log_validations")] >= np.log10(LEAST_VALIDATIONS) - 1e-6
    inside = np.array([wanted(m) for m in metas])[rows.base] & enough
    rows = rows[inside]
    bases, number = np.unique(rows.base, return_inverse=True)
    x = rows.x.astype(np.float64)
    chances, times = zip(*(base.judge(x[i], rows.far[i])
                           for i in np.array_split(np.arange(len(x)), len(x) // 4000 + 1)),
                         strict=True)  # fmt: skip
    p = np.concatenate(chances)
    runs = [own_run(metas[b], rows[number == k]) for k, b in enumerate(bases)]
    return Sweep(rows, number, runs, np.log(p) - np.log1p(-p), np.concatenate(times))


def joined(
    rows: Table, more: Table, metas: list[Meta], others: list[Meta]
) -> tuple[Table, list[Meta]]:
    """Two tables as one, runs numbered on."""
    offset = int(rows.run.max()) + 1
    moved = replace(more, run=more.run + offset, base=more.base + len(metas))
    return join([rows, moved]), [*metas, *others]


def own_run(meta: Meta, rows: Table) -> OwnRun:
    """A corpus run as the package sees a user's run."""
    outcome = "generalised" if meta["generalised"] else "diverged" if meta["diverged"] else "never"
    chance = 1.0 / meta["n_classes"]
    return OwnRun(
        name=meta["id"],
        settings=Settings(budget=int(meta["horizon"]), chance=chance, **told(meta)),
        chance=chance,
        steps=rows.step.astype(np.int64),
        x=rows.x.astype(np.float64),
        t2=meta["t2"],
        t4=meta["t4"],
        last=int(meta["horizon"]),
        outcome=outcome,  # type: ignore[arg-type]
    )


def score(
    s: Sweep, parameters: dict[str, Any], rest: npt.NDArray[np.bool_], gate: bool
) -> dict[str, float]:
    """How well the parameters do on the rest."""
    rows, own = s.rows, parameters.get("own")
    odds, prior = s.log_odds, None
    shift, widen = 0.0, np.ones(2)
    if own is not None:
        prior = OwnPrior.from_dict(own)
        extra = np.array([prior.log_odds(run.settings) for run in s.runs])[s.number]
        odds = prior.slope * odds + prior.intercept + extra
        shift = prior.shift
        widen = np.array(parameters["widen"]) / np.array(own["base"]["widen"])
    p = 1.0 / (1.0 + np.exp(-odds))
    judged, yes = rest[s.number], s.late[s.number]
    share = judged / np.bincount(s.number)[s.number]
    loss = float(share @ (np.logaddexp(0.0, odds) - yes * odds) / rest.sum())
    found: dict[str, float] = {"loss": loss}
    for name, when in (("400", np.full(len(p), 400.0)), ("1000", np.full(len(p), 1000.0)),
                       ("5 t2", 5.0 * rows.t2)):  # fmt: skip
        i = at(rows, when)
        i = i[rest[s.number[i]]]
        answer = s.late[s.number[i]]
        two = 0 < answer.sum() < len(answer)
        found[name] = roc_auc_score(answer, p[i]) if two else np.nan
    i = at(rows, np.full(len(p), 1000.0))
    i = i[rest[s.number[i]] & s.late[s.number[i]]]
    low, median, high = s.times[i].T
    true = reach(rows.step[i], rows.t4[i])
    found["error"] = float(np.median(np.abs(median + shift - true))) if len(i) else np.nan
    bottom = median + shift - widen[0] * (median - low)
    top = median + shift + widen[1] * (high - median)
    found["inside"] = float(np.mean((bottom <= true) & (true <= top))) if len(i) else np.nan
    x, far = rows.x.astype(np.float64), rows.far
    with np.errstate(invalid="ignore"):
        known = ~((x < np.array(parameters["support_low"]))
                  | (x > np.array(parameters["support_high"]))).any(axis=1)  # fmt: skip
    fewest, most = parameters["classes"]
    classes = np.array([round(1.0 / (run.chance or 1.0)) for run in s.runs])[s.number]
    ripe = may_stop(x, far)
    if gate and prior is not None and prior.memorised_by is not None:
        ripe |= may_give_up(x, far, prior.memorised_by)
    ripe &= known & (classes >= fewest) & (classes <= most)
    never = rest & ~s.late
    certified = 1.0 / (1.0 + np.exp(-s.log_odds))

    def below(rate: str) -> npt.NDArray[np.bool_]:
        threshold = parameters["kill_below"][rate]
        return (certified < threshold) | ((p < threshold) & (certified < STRETCH * threshold))

    for name, hit in (("", ripe & below("0.02")), ("ceiling", ripe),
                      ("10% ", ripe & below("0.1"))):  # fmt: skip
        stop = stops(s, hit)
        budget = np.array([run.budget for run in s.runs], dtype=float)
        saved = np.where(np.isfinite(stop), 1.0 - stop / budget, 0.0)
        found[f"{name}saved"] = float(saved[never].mean())
        found[f"{name}killed"] = float(np.isfinite(stop[rest & s.late]).sum())
    found["grokkers"] = float((rest & s.late).sum())
    return found


def stops(s: Sweep, hit: npt.NDArray[np.bool_]) -> Floats:
    """For each run the step of the second hit in a row, or inf."""
    two = hit.copy()
    two[0] = False
    two[1:] &= hit[:-1] & (s.number[1:] == s.number[:-1])
    found = np.full(len(s.runs), np.inf)
    for i in np.flatnonzero(two)[::-1]:
        found[s.number[i]] = s.rows.step[i]
    return found


def interval(values: list[float]) -> str:
    """Mean and middle 90 %."""
    kept = np.array(values)[np.isfinite(values)]
    if not kept.size:
        return "      -        "
    low, high = np.quantile(kept, [0.05, 0.95])
    return f"{kept.mean():.3f} {low:.2f}-{high:.2f}"


def line(label: str, found: list[dict[str, float]], runs: int) -> str:
    """One line of the table; ``runs`` that generalise in the whole sweep."""
    cells = [f"{np.mean([f['loss'] for f in found]):.3f}"]
    cells += [interval([f[name] for f in found]) for name in ("400", "1000", "5 t2")]
    cells += [f"{np.nanmean([f[name] for f in found]):.2f}" for name in ("error", "inside")]
    cells += [interval([f[name] for f in found]) for name in ("saved", "ceilingsaved")]
    for name in ("killed", "10% killed"):
        share = sum(f[name] for f in found) / max(sum(f["grokkers"] for f in found), 1.0)
        kills = share * runs
        low = float(beta.ppf(0.05, kills, runs - kills + 1)) if kills > 0 else 0.0
        high = float(beta.ppf(0.95, kills + 1, runs - kills)) if kills < runs else 1.0
        cells.append(f"{share:.1%} ({low:.1%}-{high:.1%})")
    cells.append(f"{np.mean([f['10% saved'] for f in found]):.2f}")
    return f"{label:16s} " + "  ".join(cells)


HEADER = (
    f"{'':16s} loss   AUC at 400       at 1000          at 5 t2          error inside  "
    "saved at 2 %    ceiling          killed at 2 %     killed at 10 %, saved"
)


def evaluate(name: str, s: Sweep, base: dict[str, Any], draws: int, ablate: bool) -> None:
    """Print the tables of one sweep."""
    late = int(s.late.sum())
    print(f"\n{name}: {len(s.runs)} runs, {late} generalise\n{HEADER}", flush=True)
    everything = np.ones(len(s.runs), dtype=bool)
    print(line("before, all", [score(s, base, everything, False)], late))
    for n in SIZES:
        if n > len(s.runs) - 20:
            continue
        before: list[dict[str, float]] = []
        after: dict[str, list[dict[str, float]]] = {}
        for draw in range(draws):
            chosen = np.random.default_rng([n, draw]).permutation(len(s.runs))[:n]
            runs = [s.runs[i] for i in chosen]
            good = sum(run.outcome == "generalised" for run in runs)
            if min(good, n - good) < package.LEAST_OF_EACH:
                continue  # the fit refuses
            rest = everything.copy()
            rest[chosen] = False
            before.append(score(s, base, rest, False))
            fitted = package.adapted(base, runs, np.ones(n))
            after.setdefault("after", []).append(score(s, fitted, rest, False))
            after.setdefault("after, gate", []).append(score(s, fitted, rest, True))
            if ablate:
                width, package.PRIOR_C = package.PRIOR_C, 1e-3
                fitted = package.adapted(base, runs, np.ones(n))
                after.setdefault("no hyper-par.", []).append(score(s, fitted, rest, False))
                package.PRIOR_C = width
        if not before:
            continue
        print(line(f"{n} before", before, late))
        for label, found in after.items():
            print(line(f"{n} {label}", found, late), flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forecast", type=Path, default=SHIPPED)
    parser.add_argument("--sweeps", nargs="+", default=list(SWEEPS), choices=list(SWEEPS))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--ablate", action="store_true", help="also without hyper-parameters")
    options = parser.parse_args()
    raw = cached_rows()
    rows = table(raw)
    rows = rows[(rows.split == "calibrate") & (rows.variant == 1)]
    metas = list({meta["id"]: meta for meta in raw.metas}.values())
    if "grid" in options.sweeps:  # real runs outside the corpus
        grid = make_rows(user_sweep(), (1,))
        rows, metas = joined(rows, table(grid), metas, grid.metas)
    base = json.loads(options.forecast.read_text(encoding="utf-8"))
    for name in options.sweeps:
        s = sweep(rows, metas, SWEEPS[name], Forecast(base))
        evaluate(name, s, base, options.draws, options.ablate)


if __name__ == "__main__":
    main()
