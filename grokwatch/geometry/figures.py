"""Figures of landscape slices: lines, contours, surfaces in space, and slices over training.

Every function returns a matplotlib Figure that needs no display: ``figure.savefig("slice.png")``.
Colours tell apart for readers with any kind of colour vision (Okabe and Ito's; cividis).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, LogFormatterSciNotation, LogLocator, NullLocator
from numpy.typing import NDArray

from grokwatch.geometry.landscape import Series, Slice, Surface
from grokwatch.geometry.run_figures import COLOURS, log_steps, mark_milestones

Array = NDArray[np.float64]

_FLOOR = 1e-12  # losses below it are drawn there: single precision knows no smaller ones


def slice_figure(found: Slice, title: str = "", marks: Mapping[str, float] | None = None) -> Figure:
    """Draw a line's losses (log scale) above its accuracies.

    Args:
        found: values whose name has "accuracy" in it are accuracies; all others are losses.
        title: of the figure.
        marks: places on the line by label, such as ``{"θ*": 0.0}``.
    """
    rows = [names for names in _kinds(found.values) if names]
    figure = Figure(figsize=(6.8, 2.6 * len(rows) + 0.6), layout="constrained")
    panels = figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    for panel, names in zip(panels, rows, strict=True):
        for i, name in enumerate(names):
            values = found.values[name]
            panel.plot(
                found.alphas,
                values if _is_accuracy(name) else np.maximum(values, _FLOOR),
                color=_colour(name, i),
                lw=1.8,
                label=name.replace("_", " "),
            )
        if _is_accuracy(names[0]):
            panel.set_ylim(-0.03, 1.03)
            panel.set_ylabel("accuracy")
        else:
            panel.set_yscale("log")
            panel.set_ylabel("loss")
        for place in (marks or {}).values():
            panel.axvline(place, color="#555555", lw=0.8, ls=":")
        panel.grid(alpha=0.25)
        panel.legend(frameon=False, fontsize=9)
    for label, place in (marks or {}).items():
        panels[0].annotate(label, (place, 1.0), (0, 3), xycoords=("data", "axes fraction"),
                           textcoords="offset points", ha="center", fontsize=10)  # fmt: skip
    panels[-1].set_xlabel("α")
    figure.suptitle(title, fontsize=11)
    return figure


def contour_figure(
    found: Surface,
    name: str = "loss",
    *,
    path: Array | None = None,
    title: str = "",
    labels: tuple[str, str] = ("α", "β"),
) -> Figure:
    """Draw a plane as filled contours, with the path of training on it.

    Args:
        found: the plane.
        name: which of its values.
        path: coordinates (α, β) of checkpoints, shape (t, 2).
        title: of the figure.
        labels: of the axes.
    """
    figure = Figure(figsize=(6.8, 5.4), layout="constrained")
    axes = figure.subplots()
    values, norm = _scaled(found.values[name], name)
    if isinstance(norm, LogNorm):
        low, high = np.log10(values.min()), np.log10(values.max())
        levels = np.logspace(low, high if high > low else low + 1, 25)
    else:
        levels = np.linspace(0.0, 1.0, 21)
    filled = axes.contourf(
        found.alphas, found.betas, values, levels=levels, norm=norm, cmap="cividis", extend="both"
    )
    axes.contour(found.alphas, found.betas, values, levels=levels[::3], colors="white",
                 linewidths=0.5, alpha=0.6)  # fmt: skip
    _colour_bar(figure, filled, axes, name)
    if path is not None:
        axes.plot(path[:, 0], path[:, 1], "-", color="#D55E00", lw=1.6)
        axes.plot(*path[0], "o", color="#D55E00", ms=7, mec="white", label="first")
        axes.plot(*path[-1], "*", color="#D55E00", ms=13, mec="white", label="last")
        axes.legend(frameon=True, fontsize=9)
        axes.set_xlim(found.alphas.min(), found.alphas.max())
        axes.set_ylim(found.betas.min(), found.betas.max())
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_title(title, fontsize=11)
    return figure


def surface_figure(
    found: Surface, name: str = "loss", *, title: str = "", labels: tuple[str, str] = ("α", "β")
) -> Figure:
    """Draw a plane as a surface in space; a loss by its decimal logarithm.

    Args:
        found: the plane.
        name: which of its values.
        title: of the figure.
        labels: of the horizontal axes.
    """
    figure = Figure(figsize=(7.4, 5.6))
    axes: Any = figure.add_axes((0.0, 0.02, 0.94, 0.9), projection="3d")
    values, norm = _scaled(found.values[name], name)
    height = np.log10(values) if isinstance(norm, LogNorm) else values
    alphas, betas = np.meshgrid(found.alphas, found.betas)
    axes.plot_surface(alphas, betas, height, cmap="cividis", rcount=100, ccount=100, lw=0)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    label = name.replace("_", " ")
    axes.set_zlabel(f"log10 {label}" if isinstance(norm, LogNorm) else label)
    axes.view_init(elev=32, azim=-60)
    figure.suptitle(title, fontsize=11)
    return figure


def series_figure(
    found: Series,
    names: Sequence[str] | None = None,
    *,
    milestones: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """Draw slices over training: step to the right, α upwards, the value as colour.

    Args:
        found: the slices.
        names: which of their values, up to four; None takes the first four.
        milestones: steps by label, such as ``{"t2": 300}``.
        title: of the figure.
    """
    names = list(found.values)[:4] if names is None else list(names)
    rows = (len(names) + 1) // 2
    figure = Figure(figsize=(10.5, 3.3 * rows + 0.5), layout="constrained")
    panels = figure.subplots(
        rows, min(2, len(names)), sharex=True, sharey=True, squeeze=False
    ).ravel()
    # A log axis has no step 0.
    steps = np.maximum(found.steps, 0.5)
    for panel, name in zip(panels, names, strict=False):
        values, norm = _scaled(found.values[name].T, name)
        mesh = panel.pcolormesh(
            steps, found.alphas, values, norm=norm, cmap="cividis", shading="nearest"
        )
        _colour_bar(figure, mesh, panel, name)
        log_steps(panel, steps)
        mark_milestones(panel, milestones or {}, colour="white")
        panel.axhline(0.0, color="white", lw=0.6, ls=":")
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    for panel in panels[-2:]:
        panel.set_xlabel("optimiser step (log scale)")
    for panel in panels[:: min(2, len(names))]:
        panel.set_ylabel("α")
    figure.suptitle(title, fontsize=11)
    return figure


def _kinds(values: Mapping[str, Array]) -> tuple[list[str], list[str]]:
    """Names of losses, and of accuracies."""
    losses = [name for name in values if not _is_accuracy(name)]
    return losses, [name for name in values if _is_accuracy(name)]


def _is_accuracy(name: str) -> bool:
    return "accuracy" in name


def _colour(name: str, i: int) -> str:
    if "val" in name:
        return COLOURS["validation"]
    return COLOURS["training"] if i == 0 else list(COLOURS.values())[i % len(COLOURS)]


def _scaled(values: Array, name: str) -> tuple[Array, Normalize]:
    """Values that can be drawn, and their colour scale: 0..1, or logarithmic for losses."""
    if _is_accuracy(name):
        return values, Normalize(0.0, 1.0)
    finite = values[np.isfinite(values)]
    top = float(finite.max()) if finite.size else 1.0
    clipped = np.clip(np.nan_to_num(values, nan=top, posinf=top), _FLOOR, None)
    return clipped, LogNorm(float(clipped.min()), float(clipped.max()))


def _colour_bar(figure: Figure, drawn: Any, axes: Axes, name: str) -> None:
    bar = figure.colorbar(drawn, ax=axes, pad=0.01)
    bar.set_label(name.replace("_", " "), fontsize=9)
    if isinstance(drawn.norm, LogNorm):
        # Within two decades powers of ten alone would be one tick, or none.
        low, high = drawn.get_clim()
        few = high < 100 * low
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
        bar.ax.yaxis.set_minor_locator(NullLocator())
        bar.ax.yaxis.set_major_formatter(LogFormatter() if few else LogFormatterSciNotation())
