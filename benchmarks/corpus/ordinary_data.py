"""Data of the ordinary-training controls: scikit-learn's bundled sets and one regression."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets

Array = NDArray[np.float32]
_LOADERS = {
    "digits": datasets.load_digits,
    "breast_cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "diabetes": datasets.load_diabetes,
}
REGRESSION = ("diabetes", "friedman")


@dataclass(frozen=True)
class Dataset:
    """Standardised inputs and targets of a training and a validation set."""

    x: Array
    y: NDArray[np.generic]
    val_x: Array
    val_y: NDArray[np.generic]
    n_classes: int


@lru_cache(maxsize=8)
def _raw(name: str) -> tuple[Array, NDArray[np.generic]]:
    if name == "friedman":
        x, y = datasets.make_friedman1(n_samples=900, noise=1.0, random_state=0)
    else:
        x, y = _LOADERS[name](return_X_y=True)
    if name in REGRESSION:
        y = ((y - y.mean()) / y.std()).astype(np.float32)
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-3 if name != "digits" else 1.0)
    return x.astype(np.float32), y


def ordinary_data(
    name: str, n_train: int, noise: float, classes: range | None, rng: np.random.Generator
) -> Dataset:
    """Draw a training and a validation set.

    Args:
        name: digits, breast_cancer, wine, diabetes or friedman.
        n_train: Training examples; at most 600 of the others are for validation.
        noise: Share of training labels replaced by random ones; 1 replaces the validation
            labels as well, so that there is nothing to learn.
        classes: Keep only these classes, renumbered from 0.
        rng: Source of the draw.
    """
    x, y = _raw(name)
    if classes is not None:
        kept = np.isin(y, list(classes))
        x, y = x[kept], y[kept] - classes.start
    order = rng.permutation(len(x))
    train, val = order[:n_train], order[n_train : n_train + 600]
    n_classes = 0 if name in REGRESSION else int(y.max()) + 1
    labels, val_labels = y[train].copy(), y[val].copy()
    if noise:
        chosen = rng.random(len(labels)) < noise
        labels[chosen] = rng.integers(n_classes, size=int(chosen.sum()))
        if noise == 1:
            val_labels = rng.integers(n_classes, size=len(val_labels))
    return Dataset(x[train], labels, x[val], val_labels, n_classes)
