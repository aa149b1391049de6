"""Intrinsic dimension of the activations of each layer, from distances to nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from grokwatch.geometry._activations import activations
from grokwatch.geometry._preserve import Mode

__all__ = [
    "activations",
    "layer_dimensions",
    "mle_dimension",
    "neighbour_distances",
    "twonn_dimension",
]

Array = NDArray[np.float64]
Points = Tensor | ArrayLike
Estimator = Callable[[Tensor], float]

_PAIRS = 1 << 22  # distances in memory at a time


def mle_dimension(
    points: Points, k: int = 2, combine: Literal["inverse", "mean"] = "inverse"
) -> float:
    """Intrinsic dimension by maximum likelihood from the k nearest neighbours.

    At a point with neighbours at T_1 ≤ .. ≤ T_k:
    ``m(x) = [1/(k-1) Σ_{j<k} log(T_k/T_j)]⁻¹`` (Levina & Bickel 2004, equation 8). Over n points,
    MacKay & Ghahramani (2005) average the inverses, ``[1/n Σ m(x_i)⁻¹]⁻¹``: the maximum of the
    joint likelihood. The plain mean of the m(x_i) is far too large for small k (infinite for
    k = 2 in expectation). With k = 2 this is ``1 / mean(log(T_2/T_1))``, as used by Notsawo et
    al. 2023, appendix H.

    Points that coincide with another one are left out: they have no T_1. It is an estimate for
    points that fill their manifold; expect it too low beyond about ten dimensions.

    Args:
        points: shape (n, features).
        k: neighbours, at least 2.
        combine: "inverse" (MacKay & Ghahramani) or "mean" (Levina & Bickel).

    Returns:
        The dimension; nan if no two points differ, inf if all neighbours are equally far.

    Raises:
        ValueError: a wrong shape, k outside 2..n-1, nan or inf among the points, or an unknown
            way to combine.

    >>> on_a_line = np.random.default_rng(0).random((2000, 1)) * np.ones((1, 5))
    >>> round(mle_dimension(on_a_line, k=10), 1)
    1.0
    """
    if combine not in ("inverse", "mean"):
        raise ValueError(f"combine must be 'inverse' or 'mean' but got {combine!r}.")
    distances = neighbour_distances(points, k)
    distances = distances[distances[:, 0] > 0]
    if not len(distances):
        return float("nan")
    inverse = np.log(distances[:, -1:] / distances[:, :-1]).mean(1)
    with np.errstate(divide="ignore"):
        return float(1 / inverse.mean() if combine == "inverse" else (1 / inverse).mean())


def twonn_dimension(points: Points, discard: float = 0.0) -> float:
    """Intrinsic dimension from the ratio of the two nearest distances (Facco et al. 2017).

    ``μ = T_2/T_1`` follows a Pareto law with exponent d, whatever the density, so
    ``-log(1 - F(μ)) = d log μ``: a line through the origin, fitted by least squares to the sorted
    ratios with ``F = i/n``. The last one (F = 1) has no place on it. Points that coincide with
    another one are left out.

    Args:
        points: shape (n, features).
        discard: share of the largest ratios to leave out, 0..1; Facco et al. take 0.1.

    Returns:
        The dimension; nan if no two points differ, inf if all neighbours are equally far.

    Raises:
        ValueError: a wrong shape, fewer than 3 points, nan or inf among them, or ``discard``
            outside [0, 1).

    >>> plane = np.random.default_rng(0).random((2000, 2)) @ np.ones((2, 2))[:, [0, 1]]
    >>> round(twonn_dimension(plane), 1)  # the product has rank 1
    1.0
    """
    if not 0 <= discard < 1:
        raise ValueError(f"discard must be at least 0 and below 1 but got {discard}.")
    distances = neighbour_distances(points, 2)
    distances = distances[distances[:, 0] > 0]
    n = len(distances)
    kept = min(int(n * (1 - discard)), n - 1)
    if kept < 1:
        return float("nan")
    ratio = np.sort(np.log(distances[:, 1] / distances[:, 0]))[:kept]
    height = -np.log1p(-np.arange(1, kept + 1) / n)
    square = ratio @ ratio
    return float(ratio @ height / square) if square > 0 else float("inf")


def neighbour_distances(points: Points, k: int) -> Array:
    """Distances to the k nearest other points, rising, shape (n, k), in double precision.

    Raises:
        ValueError: a wrong shape, k outside 2..n-1, or nan or inf among the points.
    """
    x = torch.as_tensor(points).detach().cpu().double()
    if x.ndim != 2:
        raise ValueError(f"points must have shape (n, features) but have {tuple(x.shape)}.")
    if not 2 <= k < len(x):
        raise ValueError(f"k must be between 2 and n - 1 = {len(x) - 1} but got {k}.")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("the points hold nan or inf.")
    found = np.empty((len(x), k))
    rows = max(1, _PAIRS // len(x))
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        # Never by way of inner products: nearest neighbours would drown in rounding.
        apart = torch.cdist(part, x, compute_mode="donot_use_mm_for_euclid_dist")
        own = torch.arange(start, start + len(part))
        apart[torch.arange(len(part)), own] = float("inf")
        found[start : start + rows] = apart.topk(k, largest=False).values.numpy()
    return found


def layer_dimensions(
    model: torch.nn.Module,
    inputs: Any,
    layers: Collection[str] | None = None,
    *,
    estimator: Estimator = mle_dimension,
    reduce: Callable[[Tensor], Tensor] | None = None,
    mode: Mode = "eval",
) -> dict[str, float]:
    """Intrinsic dimension of each layer's activations on a fixed batch.

    Args:
        model: see :func:`activations`, as for the other arguments.
        inputs: a batch of distinct examples; a few hundred is enough to follow a trend.
        layers: names of layers.
        estimator: from points of shape (n, features) to the dimension.
        reduce: what of an output is kept.
        mode: "eval", "train" or "keep".

    Raises:
        ValueError: see :func:`activations` and the estimator.

    >>> x = torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
    >>> widen = torch.nn.Linear(2, 64)
    >>> round(layer_dimensions(widen, x)[""])
    2
    """
    found = activations(model, inputs, layers, reduce, mode)
    return {name: estimator(points) for name, points in found.items()}
