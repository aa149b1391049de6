"""Fits the forecast that grokwatch ships, on the corpus.

    python -m benchmarks.forecast.fit                     # minutes; writes the package's own file
    python -m benchmarks.forecast.fit -o forecast.json --kinds mlp cells deep

Fitted on the corpus's ``fit`` groups; probability and interval are calibrated, and the kill
threshold set, on out-of-fold scores of ``fit`` and on ``calibrate``. The ``test`` groups are not
read here.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import itertools
import json
import pickle
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.model_selection import GroupKFold

from benchmarks.corpus.load import SHARDS, load_shard
from benchmarks.forecast.boost import classifier, quantile
from benchmarks.forecast.dataset import Rows, make_rows
from benchmarks.forecast.dataset import join as join_rows
from benchmarks.forecast.kill import kill_thresholds
from benchmarks.forecast.samples import (
    HORIZON,
    KIND_WEIGHT,
    Floats,
    Table,
    examples,
    join,
    reach,
    table,
    untold,
)
from grokwatch.forecast import features
from grokwatch.forecast.features import NAMES
from grokwatch.forecast.learned import FORMAT, Forecast, inputs
from grokwatch.forecast.trees import BoostedTrees

CACHE = Path(__file__).resolve().parent / "out"
SHIPPED = Path(__file__).resolve().parents[2] / "grokwatch" / "forecast" / "shipped.json"
KINDS = ("mlp", "transformer", "cells", "deep", "extended")
VARIANTS = (0, 1, 2)
QUANTILES = (0.1, 0.5, 0.9)
#: Fewest and most classes for which a stop is recommended. The corpus also has tasks of two, but in
#: a binary task validation that starts at chance is nothing special.
CLASSES = [16, 59]


def cached_rows(kinds: tuple[str, ...] = KINDS) -> Rows:
    """The feature rows of the whole corpus; kept by shard, because making them takes minutes."""
    CACHE.mkdir(parents=True, exist_ok=True)
    parts = []
    for shard in sorted(SHARDS.glob("*.npz")):
        if shard.name.split("-")[0] not in kinds:
            continue
        kept = CACHE / f"{shard.stem}-{made_by()}.pickle"
        if not kept.exists():
            kept.write_bytes(pickle.dumps(make_rows(load_shard(shard), VARIANTS)))
            print(f"replayed {shard.stem}", flush=True)
        parts.append(pickle.loads(kept.read_bytes()))
    return join_rows(parts)


@cache
def made_by() -> str:
    """Changes with the code that turns observations into features."""
    sources = sorted(Path(features.__file__).parents[1].rglob("*.py"))
    wanted = [p for p in sources if p.parent.name == "signals" or p.name == "features.py"]
    return hashlib.sha256(b"".join(p.read_bytes() for p in wanted)).hexdigest()[:8]


@dataclass(frozen=True)
class Parts:
    """The two parts of the model, not yet calibrated."""

    ever: BoostedTrees
    when: list[BoostedTrees]

    def odds(self, rows: Table) -> Floats:
        """Log-odds of generalising within all that is known of the run."""
        return _in_parts(self.ever, inputs(rows.x.astype(np.float64), rows.far))

    def times(self, rows: Table) -> Floats:
        """Quantiles of log10(t4 / now), shape (n, 3)."""
        x = inputs(rows.x.astype(np.float64), rows.far)
        return np.column_stack([_in_parts(part, x) for part in self.when])


def _in_parts(trees: BoostedTrees, x: Floats) -> Floats:
    return np.concatenate([trees.log_odds(p) for p in np.array_split(x, len(x) // 4000 + 1)])


def fit_parts(rows: Table, seed: int = 0, times: bool = True) -> Parts:
    """Fit both parts (or the first alone); hyper-parameters are told in half of the replays."""
    rng = np.random.default_rng(seed)
    rows = untold(rows, 0.5, seed)
    some = rows[rng.random(len(rows.step)) < 0.5]  # neighbouring rows are nearly the same
    row, u, answer, weight = examples(some, rng)
    ever = classifier(inputs(some.x[row].astype(np.float64), u), answer, weight, seed)
    if not times:
        return Parts(ever, [])
    late = some[some.generalises]
    target = reach(late.step, late.t4)
    x = inputs(late.x.astype(np.float64), late.far)
    when = [quantile(x, target, late.weight, level, seed) for level in QUANTILES]
    return Parts(ever, when)


def out_of_fold(rows: Table, folds: int = 5) -> tuple[Table, Floats, Floats]:
    """Told and untold rows with odds and times by trees that never saw their group."""
    found: list[tuple[Table, Floats, Floats]] = []
    for fold, (inside, outside) in enumerate(GroupKFold(folds).split(rows.step, groups=rows.group)):
        parts = fit_parts(rows[inside], seed=fold)
        found.append(scored(parts, rows[outside]))
    return joined(found)


def scored(parts: Parts, rows: Table) -> tuple[Table, Floats, Floats]:
    """Rows, as told and as untold, with their odds and times."""
    both = join([rows, _renumbered(untold(rows), int(rows.run.max()) + 1)])
    return both, parts.odds(both), parts.times(both)


def joined(found: list[tuple[Table, Floats, Floats]]) -> tuple[Table, Floats, Floats]:
    """Several scored tables as one; replays keep their own numbers."""
    tables, offset = [], 0
    for rows, _, _ in found:
        tables.append(_renumbered(rows, offset))
        offset = int(tables[-1].run.max()) + 1
    return (
        join(tables),
        np.concatenate([odds for _, odds, _ in found]),
        np.concatenate([times for _, _, times in found]),
    )


def _renumbered(rows: Table, offset: int) -> Table:
    return replace(rows, run=rows.run + offset)


def calibration(odds: Floats, answer: npt.NDArray[np.bool_], weight: Floats) -> list[float]:
    """Slope and intercept on the log-odds that fit the answers best (Platt)."""

    def loss(parameters: Floats) -> float:
        z = parameters[0] * odds + parameters[1]
        return float(weight @ (np.logaddexp(0, z) - answer * z))

    found = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return [round(float(found[0]), 6), round(float(found[1]), 6)]


def widening(times: Floats, target: Floats, weight: Floats) -> list[float]:
    """Factors on both half-widths after which 10 % of the truths lie below and 10 % above."""
    low, median, high = times.T
    below = (median - target) / np.maximum(median - low, 1e-3)
    above = (target - median) / np.maximum(high - median, 1e-3)
    return [round(weighted_quantile(side, weight, 0.9), 4) for side in (below, above)]


def weighted_quantile(values: Floats, weight: Floats, level: float) -> float:
    """The value below which that share of the weight lies."""
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, level * total[-1])])


def comparable(probability: Floats, rows: Table) -> list[list[float]]:
    """Of the runs that ever looked about as promising, how many generalised: [low, high, yes, all].

    A run counts once in each class it has been in.
    """
    edges = [0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 1.0000001]
    found = []
    for low, high in itertools.pairwise(edges):
        inside = (probability >= low) & (probability < high) & (rows.kind != "extended")
        runs = dict(zip(rows.base[inside].tolist(), rows.generalises[inside].tolist(), strict=True))
        found.append([low, high, float(sum(runs.values())), float(len(runs))])
    return found


def fit(rows: Table, folds: int = 5) -> dict[str, Any]:
    """The parameters of a forecast fitted on the groups ``fit`` and ``calibrate`` of the rows."""
    fitting, held = rows[rows.split == "fit"], rows[rows.split == "calibrate"]
    parts = fit_parts(fitting)
    known, odds, times = joined([out_of_fold(fitting, folds), scored(parts, held)])
    # Every verdict counts the same here, so that the probability holds at a given step, among the
    # runs that still wait then; weighted by run, the few verdicts of early ones would count most.
    kind = np.array([KIND_WEIGHT.get(kind, 1.0) for kind in known.kind.tolist()])
    slope, intercept = calibration(odds, known.generalises, kind / kind.sum())
    probability = 1.0 / (1.0 + np.exp(-(slope * odds + intercept)))
    late = known.generalises
    widen = widening(times[late], reach(known.step, known.t4)[late], known.weight[late])
    low, high = np.nanquantile(fitting.x, [0.0005, 0.9995], axis=0)
    margin = 0.1 * (high - low)
    kill = kill_thresholds(known, probability)
    return {
        "format": FORMAT,
        "features": list(NAMES),
        "card": {
            "made": datetime.date.today().isoformat(),
            "data": "benchmarks/corpus; rows made by replaying runs through Monitor",
            "kinds": sorted(set(rows.kind.tolist())),
            "runs_fit": len(set(fitting.base.tolist())),
            "runs_calibrate": len(set(held.base.tolist())),
            "kill": kill["statement"],
            "limits": "small MLPs and one-layer transformers on algorithmic tasks, up to 60,000 "
            "steps; elsewhere a probability is given but a stop never recommended",
        },
        "calibration": [slope, intercept],
        "widen": widen,
        "kill_below": kill["thresholds"],
        "support_low": (low - margin).round(4).tolist(),
        "support_high": (high + margin).round(4).tolist(),
        "horizon": HORIZON,
        "classes": CLASSES,
        "comparable": comparable(probability, known),
        "ever": parts.ever.as_dict(),
        "when": [part.as_dict() for part in parts.when],
    }


def main() -> None:
    """Fit, calibrate, set the thresholds and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=SHIPPED)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--without-operator", help="leave the runs of one operator out")
    options = parser.parse_args()
    rows = table(cached_rows(tuple(options.kinds)))
    if options.without_operator:
        rows = rows[rows.operator != options.without_operator]
    parameters = fit(rows)
    Forecast(parameters).save(options.out)
    print(json.dumps(parameters["card"], indent=1))
    print("calibration", parameters["calibration"], "widen", parameters["widen"])
    print("thresholds", parameters["kill_below"])


if __name__ == "__main__":
    main()
