"""PCA of saved checkpoints by way of their Gram matrix, a few checkpoints in memory at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grokwatch.geometry._checkpoints import Checkpoint, flat, shapes

Array = NDArray[np.float64]
Center = Literal["mean", "final"]

_PIECE = 1 << 20  # parameters widened to double precision at a time


@dataclass(frozen=True)
class TrajectoryPCA:
    """The main axes of a path of t checkpoints, and how far it strays from a straight line.

    Attributes:
        explained: share of the variance in each mode, falling, shape (t,).
        path: coordinates along the modes, shape (t, t): ``path[:, :2]`` is the usual picture. Its
            origin is the mean or the final checkpoint; from first to last every mode rises.
        residual: distance of each checkpoint from the line through first and last, shape (t,).
        progress: foot of that perpendicular, 0 at the first and 1 at the last, shape (t,).
        chord: length of that line from first to last.
    """

    explained: Array
    path: Array
    residual: Array
    progress: Array
    chord: float
    weights: Array  # mode i = Σ_t weights[t, i] · θ_t, of unit length

    def modes_for(self, share: float) -> int:
        """How many modes hold that share of the variance.

        >>> line = pca([np.array([0.0, 0.0]), np.array([1.0, 1.0]), np.array([3.0, 3.0])])
        >>> line.modes_for(0.98), line.progress.round(3).tolist()
        (1, [0.0, 0.333, 1.0])
        """
        return int(np.searchsorted(np.cumsum(self.explained), share * (1 - 1e-12)) + 1)


def pca(
    checkpoints: Sequence[Checkpoint],
    *,
    center: Center = "mean",
    names: Collection[str] | None = None,
    memory: float = 1e9,
) -> TrajectoryPCA:
    """Principal component analysis of a trajectory θ_1..θ_t in a space of n ≫ t parameters.

    The modes of M (rows ``θ_t - center``) follow from the t × t Gram matrix ``M Mᵀ = U Λ Uᵀ``:
    explained variance ``Λ_i / Σ Λ``, path ``U √Λ``. It is summed block by block in double
    precision, so that t × n numbers are never in memory together; with b blocks every file is
    read (b + 1)/2 times.

    Args:
        checkpoints: in the order of training: state_dicts, files of them, or flat vectors. They
            are weighted alike, so their spacing matters: evenly spaced steps are the usual choice.
        center: "mean" is PCA proper; "final" measures from θ_T without centring (the matrix
            printed by Notsawo et al. 2023, appendix G.3; also Li et al. 2018, section 7).
        names: entries that count, such as ``dict(model.named_parameters())``; None takes all
            floating-point entries, BatchNorm's buffers and both names of tied weights among them.
        memory: bytes that blocks of checkpoints may take.

    Raises:
        ValueError: fewer than two checkpoints, one that does not fit the first, one with nan or
            inf, or an unknown centre.

    >>> corner = pca([np.array([0.0, 0.0, 5.0]), np.array([2.0, 0.0, 5.0]),
    ...               np.array([2.0, 2.0, 5.0])])
    >>> corner.explained.round(3).tolist(), corner.residual.round(3).tolist()
    ([0.75, 0.25, 0.0], [0.0, 1.414, 0.0])
    """
    if center not in ("mean", "final"):
        raise ValueError(f"center must be 'mean' or 'final' but got {center!r}.")
    if len(checkpoints) < 2:
        raise ValueError(f"a path needs at least two checkpoints but got {len(checkpoints)}.")
    layout = shapes(checkpoints[0], names)
    final = flat(checkpoints[-1], layout)
    room = int(memory // (final.numel() * final.element_size())) - 1
    gram = _gram(checkpoints, layout, final, size=max(1, room // 2))
    if not np.isfinite(gram).all():
        raise ValueError("a checkpoint holds nan or inf; leave out what came after the run broke.")
    t = len(gram)
    mix = np.eye(t) - (1.0 / t if center == "mean" else np.eye(t)[-1])
    values, vectors = np.linalg.eigh(mix @ gram @ mix.T)
    # What is below the rounding of the largest is nothing.
    values = np.where(values < values[-1] * t * np.finfo(float).eps, 0.0, values)[::-1]
    path = vectors[:, ::-1] * np.sqrt(values)
    signs = np.where(path[-1] < path[0], -1.0, 1.0)
    path = path * signs
    total = values.sum()
    explained = values / total if total > 0 else np.full(t, nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(values > 0, mix.T @ path / values, 0.0)
    return TrajectoryPCA(explained, path, *_line(gram), weights=weights)


def principal_directions(
    checkpoints: Sequence[Checkpoint],
    found: TrajectoryPCA,
    n: int = 2,
    names: Collection[str] | None = None,
) -> list[dict[str, Tensor]]:
    """The first n modes as unit vectors in parameter space, reading every checkpoint once.

    They span the plane in which ``found.path[:, :2]`` lies: directions for
    :func:`grokwatch.geometry.landscape.slice_2d`.

    Args:
        checkpoints: those that ``found`` is of.
        found: from :func:`pca`.
        n: number of modes; a mode without variance comes out as zero.
        names: as given to :func:`pca`.

    Raises:
        ValueError: another number of checkpoints.
    """
    if len(checkpoints) != len(found.weights):
        raise ValueError(
            f"the path is of {len(found.weights)} checkpoints, not {len(checkpoints)}."
        )
    layout = shapes(checkpoints[0], names)
    first = flat(checkpoints[0], layout)
    sums = torch.zeros(n, first.numel(), dtype=torch.float64)
    weights = torch.from_numpy(found.weights[:, :n].copy())
    # The weights of a mode add up to 0, so the first checkpoint may be subtracted from each.
    for checkpoint, row in zip(checkpoints, weights, strict=True):
        moved = flat(checkpoint, layout).double() - first
        for i in range(n):
            sums[i].add_(moved, alpha=float(row[i]))
    sizes = [shape.numel() for shape in layout.values()]
    return [
        {
            name: part.reshape(shape).float()
            for (name, shape), part in zip(layout.items(), vector.split(sizes), strict=True)
        }
        for vector in sums
    ]


def _gram(
    checkpoints: Sequence[Checkpoint], layout: dict[str, torch.Size], origin: Tensor, size: int
) -> Array:
    """Inner products of ``θ_t - origin``, two blocks of checkpoints at a time."""
    t = len(checkpoints)
    gram = np.zeros((t, t))

    def block(start: int) -> list[Tensor]:
        return [flat(checkpoint, layout) for checkpoint in checkpoints[start : start + size]]

    for i in range(0, t, size):
        rows = block(i)
        for j in range(i, t, size):
            columns = rows if i == j else block(j)
            for left, right in _pieces(rows, columns, origin):
                gram[i : i + len(rows), j : j + len(columns)] += (left @ right.T).numpy()
    symmetric: Array = np.triu(gram) + np.triu(gram, 1).T
    return symmetric


def _pieces(
    rows: list[Tensor], columns: list[Tensor], origin: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Both blocks piece by piece, from the origin on, in double precision."""
    length = max(1, _PIECE // (len(rows) + len(columns)))
    for start in range(0, len(origin), length):
        part = slice(start, start + length)
        base = origin[part].double()
        left = torch.stack([row[part].double() for row in rows]) - base
        same = rows is columns
        yield left, left if same else torch.stack([c[part].double() for c in columns]) - base


def _line(gram: Array) -> tuple[Array, Array, float]:
    """Residual from the line through first and last, foot on it, and its length."""
    from_first = gram - gram[0] - gram[:, :1] + gram[0, 0]
    square = max(from_first[-1, -1], 0.0)
    lengths = np.maximum(np.diag(from_first), 0.0)
    progress = from_first[:, -1] / square if square > 0 else np.full(len(gram), nan)
    residual = np.sqrt(np.maximum(lengths - np.nan_to_num(progress) ** 2 * square, 0.0))
    return residual, progress, float(np.sqrt(square))
