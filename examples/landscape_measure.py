"""Measure the checkpoints of a run: curvature, slices, path, intrinsic dimension."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn.functional import cross_entropy

from grokwatch.geometry.curvature import hessian_extremes
from grokwatch.geometry.dimension import activations, mle_dimension, twonn_dimension
from grokwatch.geometry.landscape import (
    Series,
    Slice,
    Surface,
    direction_between,
    filter_normalized,
    named_parameters,
    slice_1d,
    slice_2d,
    slices_over_training,
)
from grokwatch.geometry.trajectory import TrajectoryPCA, pca, principal_directions

if TYPE_CHECKING:
    from landscape_train import Run

ALPHAS = np.linspace(-3.0, 3.0, 41)  # the paper's range
CURVATURE_PROBES = 48
SLICED = 28  # checkpoints of a surface over training
DIMENSIONS = 48  # checkpoints whose activations are measured
MOST_POINTS = 1000


@dataclass
class Problem:
    """A network and its data; pairs of shape (n, 2), answers of shape (n,)."""

    model: torch.nn.Module
    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    n_classes: int
    fraction: float


@dataclass
class Measured:
    """All that was measured.

    Attributes:
        curvature: over the run; name -> one value for each of ``curvature["step"]``.
        slingshots: the same around each slingshot.
        paths: PCA of the evenly spaced checkpoints, by centre.
        to_initial: slice from the last weights, α of the direction to the first ones, normalised.
        straight: the same without normalisation: α = 0 the last weights, 1 the first ones.
        surfaces: slices over training by direction.
        plane: the landscape in the plane of the first two modes, about the last weights.
        dimension_steps: of the intrinsic dimensions.
        dimensions: by estimator and layer, over those steps, on the training examples.
        val_dimensions: the same on the validation examples.
    """

    curvature: dict[str, list[float]]
    slingshots: list[dict[str, list[float]]]
    paths: dict[str, TrajectoryPCA]
    to_initial: Slice
    straight: Slice
    surfaces: dict[str, Series]
    plane: Surface
    dimension_steps: list[int]
    dimensions: dict[str, dict[str, list[float]]]
    val_dimensions: dict[str, dict[str, list[float]]]

    def as_dict(self) -> dict[str, Any]:
        """What goes into results.json."""
        main = self.paths["mean"]
        return {
            "curvature": self.curvature,
            "slingshots": self.slingshots,
            "explained": {c: p.explained[:10].round(5).tolist() for c, p in self.paths.items()},
            "residual_over_chord": (main.residual / main.chord).round(4).tolist(),
            "dimension_steps": self.dimension_steps,
            "dimensions": self.dimensions,
            "val_dimensions": self.val_dimensions,
            "to_initial": {
                "alphas": self.to_initial.alphas.round(3).tolist(),
                **{name: v.tolist() for name, v in self.to_initial.values.items()},
            },
        }


def measure(problem: Problem, run: Run, n_hvp: int, progress: bool = False) -> Measured:
    """Measure a finished run on a copy of its network.

    Args:
        problem: network and data.
        run: what training left behind.
        n_hvp: Hessian-vector products for each probe.
        progress: show bars on standard error.
    """
    twin = copy.deepcopy(problem.model)
    everything = torch.cat([problem.x_train, problem.x_val])

    def evaluate() -> dict[str, Tensor]:
        train, val = twin(everything).tensor_split([len(problem.x_train)])
        return {
            "train_loss": cross_entropy(train, problem.y_train),
            "val_loss": cross_entropy(val, problem.y_val),
            "train_accuracy": (train.argmax(1) == problem.y_train).float().mean(),
            "val_accuracy": (val.argmax(1) == problem.y_val).float().mean(),
        }

    def curvature(states: dict[int, dict[str, Tensor]], label: str) -> dict[str, list[float]]:
        rows = []
        for step, state in _tracked(states.items(), label, progress):
            twin.load_state_dict(state)
            found = hessian_extremes(
                lambda: cross_entropy(twin(problem.x_train), problem.y_train),
                twin.parameters(),
                n_hvp,
                model=twin,
                batch="training set",
            )
            row = {name: getattr(found, name) for name in _CURVATURE}
            rows.append({"step": step, **{name: float(value) for name, value in row.items()}})
        return {name: [row[name] for row in rows] for name in ["step", *_CURVATURE]}

    steps = sorted(run.checkpoints)
    even = [run.checkpoints[step] for step in run.even]
    first, last = run.checkpoints[steps[0]], run.checkpoints[steps[-1]]
    few = [(step, run.checkpoints[step]) for step in _thinned(steps, SLICED)]
    probes = {step: run.checkpoints[step] for step in _thinned(steps, CURVATURE_PROBES)}
    curved = curvature(probes, "curvature")
    windows = [curvature(window, "slingshot") for window in run.windows]
    surfaces = {
        toward: slices_over_training(twin, evaluate, few, toward, ALPHAS, progress=progress)
        for toward in ("final", "next", "initial", "random")
    }
    twin.load_state_dict(last)
    here = named_parameters(twin)
    home = direction_between(here, first)
    to_initial = slice_1d(twin, evaluate, filter_normalized(home, here), np.linspace(-3, 3, 201))
    straight = slice_1d(twin, evaluate, home, np.linspace(-0.5, 1.5, 121))
    path = pca(even, names=list(here))
    modes = principal_directions(even, path, names=list(here))
    reach = path.path[:, :2] - path.path[-1, :2]
    axes = [_span(reach[:, i]) for i in range(2)]
    plane = slice_2d(twin, evaluate, (modes[0], modes[1]), *axes, progress=progress)
    dimension_steps = _thinned(steps, DIMENSIONS)
    sides = []
    for x in (problem.x_train[:MOST_POINTS], problem.x_val[:MOST_POINTS]):
        found: dict[str, dict[str, list[float]]] = {"mle": {}, "twonn": {}}
        for step in _tracked(dimension_steps, "intrinsic dimension", progress):
            twin.load_state_dict(run.checkpoints[step])
            for layer, points in _layers(twin, x).items():
                found["mle"].setdefault(layer, []).append(mle_dimension(points, k=2))
                found["twonn"].setdefault(layer, []).append(twonn_dimension(points))
        sides.append(found)
    paths = {"mean": path, "final": pca(even, center="final", names=list(here))}
    return Measured(
        curved, windows, paths, to_initial, straight, surfaces, plane, dimension_steps, *sides
    )


_CURVATURE = ["lambda_max", "lambda_min", "ratio", "resolved_max", "resolved_min", "loss"]


def _layers(model: torch.nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What each sublayer puts out at the last position, where the answer is read."""
    wanted = [
        name
        for name, _ in model.named_modules()
        if name.endswith((".attention", ".feed_forward.1", ".feed_forward"))
    ]
    blocks = [f"blocks.{i}" for i in range(len(model.blocks))]
    found = activations(model, x, [*wanted, *blocks], reduce=lambda h: h[:, -1])
    logits = activations(model, x, ["head"])
    return {**found, **logits}


def _thinned(steps: list[int], most: int) -> list[int]:
    """At most that many of the steps, about evenly spaced among them, the ends included."""
    if len(steps) <= most:
        return steps
    return [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, most).astype(int))]


def _span(coordinates: np.ndarray) -> np.ndarray:
    low, high = float(coordinates.min()), float(coordinates.max())
    margin = 0.15 * (high - low)
    return np.linspace(low - margin, high + margin, 33)


def _tracked(items: Iterable[Any], label: str, show: bool) -> Iterable[Any]:
    items = list(items)
    if not show:
        return items
    console = Console(stderr=True)
    return track(items, label, console=console, transient=True, disable=not console.is_terminal)
