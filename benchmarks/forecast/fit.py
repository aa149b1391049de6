"""Fits a forecast on the corpus.

    python -m benchmarks.forecast.fit -o forecast.json          # minutes

Fitted on the corpus's ``fit`` groups; the probability is calibrated and the kill threshold set on
out-of-fold scores of ``fit`` and on ``calibrate``. The ``test`` groups are not read here.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GroupKFold

from benchmarks.corpus.load import SHARDS, load_shard
from benchmarks.forecast.dataset import Rows, join, make_rows
from benchmarks.forecast.kill import kill_thresholds
from benchmarks.forecast.samples import Floats, Table, examples, reach, table
from grokwatch.forecast.features import NAMES
from grokwatch.forecast.learned import FORMAT, LearnedForecast
from grokwatch.forecast.trees import MISSING, BoostedTrees

CACHE = Path(__file__).resolve().parent / "out"
KINDS = ("mlp", "transformer", "cells", "extended")
VARIANTS = (0, 1, 2)
DEPTH, TREES, RATE = 5, 160, 0.06


def cached_rows() -> Rows:
    """The feature rows of the whole corpus; kept by shard, because making them takes minutes."""
    CACHE.mkdir(parents=True, exist_ok=True)
    parts = []
    for shard in sorted(SHARDS.glob("*.npz")):
        if shard.name.split("-")[0] not in KINDS:
            continue
        kept = CACHE / f"{shard.stem}.pickle"
        if not kept.exists():
            kept.write_bytes(pickle.dumps(make_rows(load_shard(shard), VARIANTS)))
            print(f"replayed {shard.stem}", flush=True)
        parts.append(pickle.loads(kept.read_bytes()))
    return join(parts)


def fit_trees(rows: Table, seed: int = 0) -> BoostedTrees:
    """Gradient boosting on the examples of the rows, in the form the library evaluates."""
    row, u, answer, weight = examples(rows, np.random.default_rng(seed))
    x = np.column_stack([np.nan_to_num(rows.x[row].astype(np.float64), nan=MISSING), u])
    model = HistGradientBoostingClassifier(
        max_iter=TREES,
        learning_rate=RATE,
        max_depth=DEPTH,
        max_leaf_nodes=20,
        min_samples_leaf=80,
        l2_regularization=10.0,
        max_features=0.5,
        monotonic_cst=[0] * rows.x.shape[1] + [1],
        early_stopping=False,
        random_state=seed,
    )
    model.fit(x, answer, sample_weight=weight)
    return export(model)


def export(model: HistGradientBoostingClassifier) -> BoostedTrees:
    """The model's trees as complete binary trees of depth :data:`DEPTH`."""
    shape = (len(model._predictors), 2**DEPTH - 1)
    feature = np.zeros(shape, dtype=np.int64)
    threshold = np.full(shape, np.inf)
    value = np.zeros((shape[0], 2**DEPTH))

    def copy(nodes: Any, node: int, tree: int, place: int, depth: int) -> None:
        leaf = bool(nodes[node]["is_leaf"])
        if depth == DEPTH:
            value[tree, place - shape[1]] = nodes[node]["value"]
            return
        if leaf:  # everything below is the same leaf
            copy(nodes, node, tree, 2 * place + 1, depth + 1)
            copy(nodes, node, tree, 2 * place + 2, depth + 1)
            return
        feature[tree, place] = nodes[node]["feature_idx"]
        threshold[tree, place] = nodes[node]["num_threshold"]
        copy(nodes, int(nodes[node]["left"]), tree, 2 * place + 1, depth + 1)
        copy(nodes, int(nodes[node]["right"]), tree, 2 * place + 2, depth + 1)

    for tree, (predictor,) in enumerate(model._predictors):
        copy(predictor.nodes, 0, tree, 0, 0)
    threshold[np.isinf(threshold)] = 1e30  # JSON has no infinity
    constant = float(np.ravel(model._baseline_prediction)[0])
    return BoostedTrees(feature, threshold.round(9), value.round(6), constant)


def log_odds(trees: BoostedTrees, rows: Table, end: Floats | None = None) -> Floats:
    """Log-odds of generalising by ``end`` (default: all that is known of the run)."""
    u = reach(rows.step, rows.seen if end is None else end)
    parts = np.array_split(np.column_stack([rows.x.astype(np.float64), u]), len(u) // 4000 + 1)
    return np.concatenate([trees.log_odds(part) for part in parts])


def out_of_fold(rows: Table, folds: int = 5) -> tuple[Floats, list[tuple[Any, BoostedTrees]]]:
    """Log-odds of each row by trees that never saw its group, and those trees by fold."""
    scores = np.full(len(rows.step), np.nan)
    models = []
    for fold, (inside, outside) in enumerate(GroupKFold(folds).split(rows.step, groups=rows.group)):
        trees = fit_trees(rows[inside], seed=fold)
        scores[outside] = log_odds(trees, rows[outside])
        models.append((outside, trees))
    return scores, models


def calibration(scores: Floats, answer: npt.NDArray[np.bool_], weight: Floats) -> list[float]:
    """Slope and intercept on the log-odds that fit the answers best (Platt)."""

    def loss(parameters: Floats) -> float:
        odds = parameters[0] * scores + parameters[1]
        return float(weight @ (np.logaddexp(0, odds) - answer * odds))

    found = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return [round(float(found[0]), 6), round(float(found[1]), 6)]


def comparable(probability: Floats, rows: Table) -> list[list[float]]:
    """Of the runs that looked about as promising, how many generalised: [low, high, yes, all]."""
    edges = [0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 1.0000001]
    found = []
    for low, high in itertools.pairwise(edges):
        inside = (probability >= low) & (probability < high)
        runs = {int(r): bool(g) for r, g in zip(rows.run[inside], rows.generalises[inside],
                                                  strict=True)}  # fmt: skip
        found.append([low, high, float(sum(runs.values())), float(len(runs))])
    return found


def main() -> None:
    """Fit, calibrate, set the thresholds and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    rows = table(cached_rows())
    rows = rows[rows.split != "test"]
    fitting = rows[(rows.split == "fit") & (rows.kind != "extended")]
    scores, _ = out_of_fold(fitting)
    trees = fit_trees(fitting)
    held = rows[(rows.split == "calibrate") & (rows.kind != "extended")]
    known = np.concatenate([scores, log_odds(trees, held)])
    both = Table(**{
        name: np.concatenate([getattr(fitting, name), getattr(held, name)])
        for name in Table.__dataclass_fields__
    })  # fmt: skip
    weight = 1.0 / np.bincount(both.run)[both.run]
    slope, intercept = calibration(known, both.generalises, weight / weight.sum())
    probability = 1.0 / (1.0 + np.exp(-(slope * known + intercept)))
    low, high = np.nanquantile(fitting.x, 0.0005, axis=0), np.nanquantile(fitting.x, 0.9995, axis=0)
    margin = 0.1 * (high - low)
    kill = kill_thresholds(both, probability)
    parameters = {
        "format": FORMAT,
        "features": list(NAMES),
        "trees": trees.as_dict(),
        "calibration": [slope, intercept],
        "kill_below": kill["thresholds"],
        "support_low": (low - margin).round(4).tolist(),
        "support_high": (high + margin).round(4).tolist(),
        "horizon": 20_000,
        "comparable": comparable(probability, both),
        "card": {
            "made": datetime.date.today().isoformat(),
            "data": "benchmarks/corpus; rows made by replaying runs through Monitor",
            "runs_fit": len(set(fitting.run[fitting.variant == 0])),
            "runs_calibrate": len(set(held.run[held.variant == 0])),
            "kill": kill["statement"],
            "limits": "small MLPs and one-layer transformers on algorithmic tasks, up to 20,000 "
            "steps; elsewhere a probability is given but a stop never recommended",
        },
    }
    LearnedForecast(parameters).save(options.out)
    print(json.dumps(parameters["card"], indent=1))
    print("calibration", slope, intercept, "thresholds", kill["thresholds"])


if __name__ == "__main__":
    main()
