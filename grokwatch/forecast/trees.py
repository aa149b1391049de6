"""Boosted decision trees, evaluated with numpy alone and kept as readable JSON.

All trees are complete binary trees of one depth, stored level by level, so that a whole ensemble
is walked in ``depth`` vectorised steps.
"""

from __future__ import annotations

from collections.abc import Mapping
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
        n, width = x.shape
        flat = np.nan_to_num(x, nan=MISSING).ravel()
        rows = (np.arange(n) * width)[:, None]
        node = np.zeros((n, len(self.value)), dtype=np.int64)
        for _ in range(self.depth):
            at = node + self._inner
            right = flat[rows + self._feature[at]] > self._threshold[at]
            node = 2 * node + 1 + right
        total: FloatArray = self._value[node + self._leaves].sum(axis=1) + self.constant
        return total

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
