"""The figures of one run, each a PNG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from grokwatch.geometry.figures import (
    contour_figure,
    series_figure,
    slice_figure,
    surface_figure,
)
from grokwatch.geometry.run_figures import Panel, over_training_figure, path_figure

if TYPE_CHECKING:
    from landscape_measure import Measured
    from landscape_train import Run

RESOLUTION = 110  # dots per inch
TOWARD = {
    "final": "toward the last weights, δ ∝ θ_T - θ_t",
    "next": "toward the next checkpoint, δ ∝ θ_t' - θ_t",
    "initial": "toward the first weights, δ ∝ θ_0 - θ_t",
    "random": "in a random direction",
}


def draw_all(run: Run, measured: Measured, folder: Path) -> None:
    """Write every figure into a folder."""
    for name, figure in figures(run, measured):
        figure.savefig(folder / f"{name}.png", dpi=RESOLUTION)


def figures(run: Run, measured: Measured) -> Iterator[tuple[str, Figure]]:
    """Every figure and its name."""
    marks, steps = run.milestones, np.arange(len(run.curves["train_loss"]))
    at, accuracy, val_loss = run.validation
    losses = Panel(
        "loss",
        {"training": (steps, run.curve("train_loss")), "validation": (at, val_loss)},
        "log",
    )
    accuracies = Panel("val accuracy", {"validation": (at, accuracy)}, limits=(-0.03, 1.03))
    curved = measured.curvature
    sure = np.array(curved["resolved_min"]) > 0
    ratio, probed = np.array(curved["ratio"]), np.array(curved["step"])
    yield (
        "curvature",
        over_training_figure(
            [
                losses,
                accuracies,
                Panel("λ_max", {"λ_max": (probed, curved["lambda_max"])}, "log", {"λ_max": ".-"}),
                Panel(
                    "λ_min / λ_max",
                    {
                        "λ_min certainly negative": (probed[sure], ratio[sure]),
                        "size and sign of λ_min open": (probed[~sure], ratio[~sure]),
                    },
                    1e-3,
                    {"λ_min certainly negative": "o", "size and sign of λ_min open": "."},
                ),
                Panel("gradient norm", {"‖G‖": (steps, run.curve("grad_norm"))}, "log"),
            ],
            milestones=marks,
            spikes=run.spikes,
            title="Curvature of the training loss (▾ slingshots)",
        ),
    )
    yield (
        "cosines",
        over_training_figure(
            [
                losses,
                Panel(
                    "1 - cos(θ_t, θ_t+1)",
                    {"step": (steps, run.curve("step_cosine_distance"))},
                    "log",
                ),
                Panel(
                    "cos(θ_t, θ_0)", {"start": (steps, 1 - run.curve("initial_cosine_distance"))}
                ),
                Panel(
                    "‖θ‖",
                    {
                        "weights ‖θ_t‖": (steps, run.curve("weight_norm")),
                        "from the start ‖θ_t - θ_0‖": (steps, run.curve("initial_distance")),
                    },
                ),
            ],
            milestones=marks,
            spikes=run.spikes,
            title="Angles of the weights (▾ slingshots)",
        ),
    )
    if measured.slingshots:
        yield "slingshot", _slingshot(run, measured)
    yield (
        "path",
        path_figure(
            measured.paths["mean"],
            run.even,
            milestones=marks,
            title="Path of the weights, principal components",
        ),
    )
    path = measured.paths["mean"]
    yield (
        "contour",
        contour_figure(
            measured.plane,
            "train_loss",
            path=path.path[:, :2] - path.path[-1, :2],
            title="Training loss in the plane of the first two modes",
            labels=("first mode", "second mode"),
        ),
    )
    yield (
        "surface",
        surface_figure(
            measured.plane,
            "val_loss",
            title="Validation loss in the plane of the first two modes",
            labels=("first mode", "second mode"),
        ),
    )
    yield (
        "line_filter",
        slice_figure(
            measured.to_initial,
            "θ* + αδ, δ ∝ θ_0 - θ*, filter-normalised",
            {"θ*": 0.0},
        ),
    )
    yield "line_straight", slice_figure(
        measured.straight, "On the straight line from the last weights to the first",
        {"last": 0.0, "first": 1.0},
    )  # fmt: skip
    for toward, found in measured.surfaces.items():
        yield (
            f"slices_{toward}",
            series_figure(found, milestones=marks, title=f"Slices over training, {TOWARD[toward]}"),
        )
    yield (
        "dimension",
        over_training_figure(
            [
                accuracies,
                *(
                    Panel(
                        f"dimension\n({side})",
                        {layer: (measured.dimension_steps, v) for layer, v in found["mle"].items()},
                    )
                    for side, found in (
                        ("training set", measured.dimensions),
                        ("validation set", measured.val_dimensions),
                    )
                ),
            ],
            milestones=marks,
            spikes=run.spikes,
            title="Intrinsic dimension of activations at the last position (MLE, k = 2)",
        ),
    )


def _slingshot(run: Run, measured: Measured) -> Figure:
    """The highest slingshot step by step."""
    heights = [max(window["loss"]) / min(window["loss"]) for window in measured.slingshots]
    window = measured.slingshots[int(np.argmax(heights))]
    probed = np.array(window["step"])
    steps = np.arange(int(probed.min()), int(probed.max()) + 1)
    sure = np.array(window["resolved_min"]) > 0
    low = np.array(window["lambda_min"])
    scale = max(float(np.median(window["lambda_max"])) * 1e-2, 1e-6)
    return over_training_figure(
        [
            Panel("loss", {"training": (steps, run.curve("train_loss")[steps])}, "log"),
            Panel("λ_max", {"λ_max": (probed, window["lambda_max"])}, "log", {"λ_max": ".-"}),
            Panel(
                "λ_min",
                {
                    "certainly negative": (probed[sure], low[sure]),
                    "size and sign open": (probed[~sure], low[~sure]),
                },
                scale,
                {"certainly negative": "o", "size and sign open": "."},
            ),
            Panel(
                "1 - cos(θ_t, θ_t+1)",
                {"step": (steps, run.curve("step_cosine_distance")[steps])},
                "log",
            ),
            Panel("gradient norm", {"‖G‖": (steps, run.curve("grad_norm")[steps])}, "log"),
        ],
        spikes=[s for s in run.spikes if steps[0] <= s <= steps[-1]],
        title="One slingshot, step by step",
        log_axis=False,
    )
