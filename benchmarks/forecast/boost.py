"""Boosted trees by scikit-learn, in the form in which the library evaluates them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from benchmarks.forecast.samples import Floats
from grokwatch.forecast.learned import REACH
from grokwatch.forecast.trees import MISSING, BoostedTrees


def classifier(
    x: Floats, answer: npt.NDArray[np.bool_], weight: Floats, seed: int, trees: int = 150
) -> BoostedTrees:
    """Log-odds of a yes; the reach may only raise them (more time never hurts)."""
    model = HistGradientBoostingClassifier(
        max_iter=trees,
        learning_rate=0.06,
        max_depth=5,
        max_leaf_nodes=20,
        min_samples_leaf=80,
        l2_regularization=10.0,
        max_features=0.5,
        monotonic_cst=[int(column == REACH) for column in range(x.shape[1])],
        early_stopping=False,
        random_state=seed,
    )
    model.fit(np.nan_to_num(x, nan=MISSING), answer, sample_weight=weight)
    return _export(model._predictors, float(np.ravel(model._baseline_prediction)[0]), 5)


def quantile(
    x: Floats, target: Floats, weight: Floats, level: float, seed: int, trees: int = 60
) -> BoostedTrees:
    """The quantile of the target at that level."""
    model = HistGradientBoostingRegressor(
        loss="quantile",
        quantile=level,
        max_iter=trees,
        learning_rate=0.1,
        max_depth=4,
        max_leaf_nodes=12,
        min_samples_leaf=60,
        max_features=0.5,
        early_stopping=False,
        random_state=seed,
    )
    model.fit(np.nan_to_num(x, nan=MISSING), target, sample_weight=weight)
    return _export(model._predictors, float(np.ravel(model._baseline_prediction)[0]), 4)


def _export(predictors: list[Any], constant: float, depth: int) -> BoostedTrees:
    """The trees as complete binary trees of one depth."""
    inner = 2**depth - 1
    feature = np.zeros((len(predictors), inner), dtype=np.int64)
    threshold = np.full(feature.shape, 1e30)  # JSON has no infinity
    value = np.zeros((len(predictors), 2**depth))

    def copy(nodes: Any, node: int, tree: int, place: int) -> None:
        if place >= inner:
            value[tree, place - inner] = nodes[node]["value"]
            return
        if nodes[node]["is_leaf"]:  # everything below is the same leaf
            left = right = node
        else:
            feature[tree, place] = nodes[node]["feature_idx"]
            threshold[tree, place] = nodes[node]["num_threshold"]
            left, right = int(nodes[node]["left"]), int(nodes[node]["right"])
        copy(nodes, left, tree, 2 * place + 1)
        copy(nodes, right, tree, 2 * place + 2)

    for tree, (predictor,) in enumerate(predictors):
        copy(predictor.nodes, 0, tree, 0)
    # Seven digits keep the file small; a threshold moves by less than any feature is worth.
    rounded = np.array([float(f"{t:.7g}") for t in threshold.ravel()]).reshape(threshold.shape)
    return BoostedTrees(feature, rounded, value.round(5), round(constant, 6))
