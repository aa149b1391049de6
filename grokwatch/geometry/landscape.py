"""Slices of the loss landscape: along a line, over a plane, and along lines over training.

A slice is ``f(α) = L(θ + α δ)``, a plane ``f(α, β) = L(θ + α δ + β η)`` (Goodfellow et al. 2015;
Li et al. 2018, arXiv:1712.09913). It shows two of many thousand dimensions: a valley in it is no
proof of a minimum, and a barrier in it may have a way round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from grokwatch.geometry._checkpoints import load_point
from grokwatch.geometry._directions import (
    Normalization,
    Point,
    direction_between,
    filter_normalized,
    hessian_directions,
    named_parameters,
    normalized,
    random_direction,
    without_prefix,
)
from grokwatch.geometry._grid import Array, Measured, axis_of, load_into, tracked, walk
from grokwatch.geometry._preserve import Mode, preserved

__all__ = [
    "Series", "Slice", "Surface", "direction_between", "filter_normalized", "hessian_directions",
    "named_parameters", "random_direction", "slice_1d", "slice_2d", "slices_over_training",
]  # fmt: skip

Toward = Literal["final", "next", "initial", "random"]

#: What a slice spans unless told otherwise (Notsawo et al. 2023 use -3..3).
ALPHAS = np.linspace(-1.0, 1.0, 41)


@dataclass(frozen=True)
class Slice:
    """Values along a line.

    Attributes:
        alphas: shape (n,).
        values: each of shape (n,); "loss" if ``evaluate`` returned one number.
    """

    alphas: Array
    values: dict[str, Array]


@dataclass(frozen=True)
class Surface:
    """Values over a plane.

    Attributes:
        alphas: shape (n,).
        betas: shape (m,).
        values: each of shape (m, n): row = β, column = α, as matplotlib's ``contour`` takes it.
    """

    alphas: Array
    betas: Array
    values: dict[str, Array]


@dataclass(frozen=True)
class Series:
    """Slices over training.

    Attributes:
        steps: optimiser steps of the checkpoints, shape (t,).
        alphas: shape (n,).
        values: each of shape (t, n).
    """

    steps: NDArray[np.int64]
    alphas: Array
    values: dict[str, Array]


def slice_1d(
    model: torch.nn.Module,
    evaluate: Callable[[], Measured],
    direction: Point,
    alphas: ArrayLike = ALPHAS,
    *,
    mode: Mode = "eval",
    progress: bool = False,
) -> Slice:
    """Evaluate along ``θ + α δ``, θ being the weights that the model has now.

    The direction is taken as it is; see :func:`filter_normalized`. Buffers do not move. Every
    point is evaluated from the same buffers and the same random state (one dropout mask for all
    of them), and at the end, also after an exception or Ctrl-C, parameters, buffers, modes and
    random state are what they were, bit for bit. Memory: two copies of the parameters
    beside the direction.

    Args:
        model: moved and brought back.
        evaluate: measures the model as it stands, without gradients: a number (the loss), or
            several by name, such as ``{"train_loss": .., "val_accuracy": ..}``.
        direction: δ by parameter name; parameters that it lacks stay.
        alphas: shape (n,).
        mode: "eval", "train" or "keep": of the model during the evaluation.
        progress: show a bar on standard error.

    Raises:
        ValueError: a direction that does not fit the model.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = model.weight.data.fill_(2.0)
    >>> parabola = slice_1d(model, lambda: model.weight.square().sum() / 2,
    ...                     {"weight": torch.ones(1, 1)}, [-1.0, 0.0, 2.0])
    >>> parabola.values["loss"].tolist(), model.weight.item()
    ([0.5, 2.0, 8.0], 2.0)
    """
    line = axis_of("alphas", alphas)
    points = [(a,) for a in line]
    found = walk(model, evaluate, [direction], points, mode, progress)
    return Slice(line, found)


def slice_2d(
    model: torch.nn.Module,
    evaluate: Callable[[], Measured],
    directions: tuple[Point, Point],
    alphas: ArrayLike = ALPHAS,
    betas: ArrayLike | None = None,
    *,
    mode: Mode = "eval",
    progress: bool = False,
) -> Surface:
    """Evaluate over the plane ``θ + α δ + β η``; otherwise as :func:`slice_1d`.

    Args:
        model: moved and brought back.
        evaluate: see :func:`slice_1d`.
        directions: δ and η by parameter name.
        alphas: shape (n,).
        betas: shape (m,); None = as alphas.
        mode: see :func:`slice_1d`.
        progress: show a bar on standard error.

    Raises:
        ValueError: a direction that does not fit the model.
    """
    line = axis_of("alphas", alphas)
    other = line if betas is None else axis_of("betas", betas)
    points = [(a, b) for b in other for a in line]
    found = walk(model, evaluate, list(directions), points, mode, progress)
    shape = (len(other), len(line))
    return Surface(line, other, {name: v.reshape(shape) for name, v in found.items()})


def slices_over_training(
    model: torch.nn.Module,
    evaluate: Callable[[], Measured],
    checkpoints: Sequence[tuple[int, Point | str | Path]],
    toward: Toward = "final",
    alphas: ArrayLike = ALPHAS,
    *,
    normalize: Normalization = "filter",
    seed: int = 0,
    mode: Mode = "eval",
    progress: bool = False,
) -> Series:
    """Slice at every checkpoint θ_t, along a direction δ_t (Notsawo et al. 2023, figures 4, 8-10).

    Args:
        model: takes each checkpoint's state in turn, and is brought back at the end.
        evaluate: see :func:`slice_1d`.
        checkpoints: (optimiser step, state_dict or file of one), in the order of training.
        toward: "final" (δ_t = θ_T - θ_t), "next" (θ_{t+1} - θ_t), "initial" (θ_0 - θ_t), with the
            first and last checkpoint for θ_0 and θ_T, or "random" (the same draw for all). A
            checkpoint that would be its own goal is left out.
        alphas: shape (n,).
        normalize: "filter", "unit" or "none" (then α = 1 is the goal itself).
        seed: of the random direction.
        mode: see :func:`slice_1d`.
        progress: show a bar on standard error.

    Raises:
        ValueError: fewer than two checkpoints, an unknown direction, a checkpoint that does not
            fit.
    """
    if len(checkpoints) < 2:
        raise ValueError(f"at least two checkpoints are needed but got {len(checkpoints)}.")
    if toward not in ("final", "next", "initial", "random"):
        raise ValueError(f"toward must be final, next, initial or random but got {toward!r}.")
    line, last = axis_of("alphas", alphas), len(checkpoints) - 1
    goals = {"final": [last] * (last + 1), "initial": [0] * (last + 1)}
    goals["next"] = [*range(1, last + 1), last]
    at = [i for i in range(last + 1) if toward == "random" or goals[toward][i] != i]
    rows: list[Slice] = []
    with preserved(model):
        for i in tracked(at, f"slices to {toward}", progress):
            load_into(model, load_point(checkpoints[i][1]))
            here = named_parameters(model)
            if toward == "random":
                direction = random_direction(here, seed)
            else:
                goal = load_point(checkpoints[goals[toward][i]][1])
                direction = direction_between(here, without_prefix(goal))
            direction = normalized(direction, here, normalize)
            rows.append(slice_1d(model, evaluate, direction, line, mode=mode))
    values = {name: np.stack([row.values[name] for row in rows]) for name in rows[0].values}
    return Series(np.array([checkpoints[i][0] for i in at], dtype=np.int64), line, values)
