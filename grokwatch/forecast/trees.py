"""Boosted decision trees, evaluated with numpy alone and kept as readable JSON.

All trees are complete binary trees of one depth, stored level by level, so that a whole ensemble
is walked in ``depth`` vectorised steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grokwatch.state import take

#: Stands for "not measured": below every threshold, in fitting and in use alike.
MISSING = -1e9

FloatArray = npt.NDArray[np.float64]


class BoostedTrees:
    """Sum of trees plus a constant: the log-odds of an event.

    Args:
        feature: index of the feature a node looks at, shape (trees, 2^depth - 1).
        threshold: a row goes left if its feature is <= this, same shape.
        value: what a leaf adds, shape (trees, 2^depth).
        constant: log-odds before any tree.

    Raises:
        ValueError: shapes that do not fit together.

    >>> stump = BoostedTrees(np.array([[0]]), np.array([[0.5]]), np.array([[-1.0, 1.0]]), 0.25)
    >>> stump.log_odds(np.array([[0.0], [1.0], [np.nan]]))
    array([-0.75,  1.25, -0.75])
    """

    def __init__(
        self,
        feature: npt.NDArray[np.int64],
        threshold: FloatArray,
        value: FloatArray,
        constant: float,
    ) -> None:
        trees, leaves = value.shape
        self.depth = leaves.bit_length() - 1
        if leaves != 2**self.depth or feature.shape != (trees, leaves - 1):
            raise ValueError(
                f"{trees} trees with {leaves} leaves need features of shape "
                f"{(trees, leaves - 1)}, but got {feature.shape}."
            )
        if threshold.shape != feature.shape:
            raise ValueError(f"thresholds {threshold.shape} do not fit features {feature.shape}.")
        self.feature, self.threshold, self.value = feature, threshold, value
        self.constant = constant
        # Flat copies: one gather a level instead of two-dimensional indexing.
        self._feature, self._threshold = feature.ravel(), threshold.ravel()
        self._value = value.ravel()
        self._inner = np.arange(trees) * (leaves - 1)
        self._leaves = np.arange(trees) * leaves - (leaves - 1)

    def log_odds(self, x: FloatArray) -> FloatArray:
        """Log-odds for rows of features, shape (n, features) -> (n,); NaN = not measured."""
        total: FloatArray = self.leaves(x).sum(axis=1) + self.constant
        return total

    def leaves(self, x: FloatArray) -> FloatArray:
        """What each tree adds, shape (n, trees)."""
        n, width = x.shape
        flat = np.where(np.isnan(x), MISSING, x).ravel()
        rows = (np.arange(n) * width)[:, None]
        node = np.zeros((n, len(self.value)), dtype=np.int64)
        for _ in range(self.depth):
            at = node + self._inner
            right = flat[rows + self._feature[at]] > self._threshold[at]
            node = 2 * node + 1 + right
        found: FloatArray = self._value[node + self._leaves]
        return found

    def deeper(self, depth: int) -> BoostedTrees:
        """The same trees, written as complete trees of a greater depth."""
        feature, threshold, value = self.feature, self.threshold, self.value
        while value.shape[1] < 2**depth:  # every leaf becomes a node with two equal leaves
            feature = np.hstack([feature, np.zeros(value.shape, dtype=np.int64)])
            threshold = np.hstack([threshold, np.zeros(value.shape)])
            value = np.repeat(value, 2, axis=1)
        return BoostedTrees(feature, threshold, value, self.constant)

    def as_dict(self) -> dict[str, Any]:
        """Plain, JSON-able form."""
        return {
            "constant": self.constant,
            "feature": self.feature.tolist(),
            "threshold": self.threshold.tolist(),
            "value": self.value.tolist(),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> BoostedTrees:
        """The trees that :meth:`as_dict` wrote."""
        return cls(
            np.array(take(plain, "feature"), dtype=np.int64),
            np.array(take(plain, "threshold"), dtype=np.float64),
            np.array(take(plain, "value"), dtype=np.float64),
            float(take(plain, "constant")),
        )


class Together:
    """Several ensembles over the same features, walked at once.

    >>> stump = BoostedTrees(np.array([[0]]), np.array([[0.5]]), np.array([[-1.0, 1.0]]), 0.25)
    >>> Together([stump, stump]).log_odds(np.array([[0.0], [1.0]]))
    array([[-0.75, -0.75],
           [ 1.25,  1.25]])
    """

    def __init__(self, parts: Sequence[BoostedTrees]) -> None:
        depth = max(part.depth for part in parts)
        parts = [part.deeper(depth) for part in parts]
        self._walk = BoostedTrees(
            np.concatenate([part.feature for part in parts]),
            np.concatenate([part.threshold for part in parts]),
            np.concatenate([part.value for part in parts]),
            0.0,
        )
        sizes = [len(part.value) for part in parts]
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._constants = np.array([part.constant for part in parts])

    def log_odds(self, x: FloatArray) -> FloatArray:
        """What each ensemble says of rows of features, shape (n, ensembles)."""
        leaves = self._walk.leaves(x)
        total: FloatArray = np.add.reduceat(leaves, self._starts, axis=1) + self._constants
        return total
