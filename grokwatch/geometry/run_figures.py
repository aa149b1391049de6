"""Figures of a whole run: quantities over training, and the path in its main plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike, NDArray

from grokwatch.geometry.trajectory import TrajectoryPCA

#: Okabe and Ito's palette, which all readers can tell apart.
COLOURS = {
    "training": "#0072B2",
    "validation": "#D55E00",
    "third": "#009E73",
    "fourth": "#CC79A7",
    "fifth": "#56B4E9",
    "sixth": "#E69F00",
    "ink": "#222222",
}


@dataclass(frozen=True)
class Panel:
    """One panel over training.

    Attributes:
        label: of the vertical axis.
        curves: (steps, values) by name; "training" and "validation" have colours of their own.
        scale: "linear", "log", or a positive number: logarithmic both ways beyond it.
        style: matplotlib's format by name of curve; "-" unless given.
        limits: of the vertical axis; None fits it to the curves.
    """

    label: str
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]]
    scale: Literal["linear", "log"] | float = "linear"
    style: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[float, float] | None = None


def over_training_figure(
    panels: Sequence[Panel],
    *,
    milestones: Mapping[str, float] | None = None,
    spikes: Sequence[float] = (),
    title: str = "",
    log_axis: bool = True,
) -> Figure:
    """Draw quantities over the optimiser step, one panel above the other.

    Args:
        panels: from top to bottom.
        milestones: steps by label, such as ``{"t2": 300}``, drawn through all panels.
        spikes: steps of slingshots, marked at the top of every panel.
        title: of the figure.
        log_axis: whether the step is on a log scale; step 0 is then left out.
    """
    figure = Figure(figsize=(8.6, 2.1 * len(panels) + 0.9), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    every: list[NDArray[np.float64]] = []
    for axis, panel in zip(axes, panels, strict=True):
        _scale(axis, panel.scale)
        for (name, (x, y)), colour in zip(panel.curves.items(), _cycle(), strict=False):
            steps, values = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
            shown = np.isfinite(values) & (steps > 0 if log_axis else steps == steps)
            shown &= values > 0 if panel.scale == "log" else True
            every.append(steps[shown])
            colour, line = COLOURS.get(name, colour), panel.style.get(name, "-")
            axis.plot(steps[shown], values[shown], line, color=colour, lw=1.2, ms=4, label=name,
                      mfc="white" if line == "o" else colour)  # fmt: skip
        axis.set_ylabel(panel.label)
        axis.set_ylim(panel.limits)
        axis.grid(alpha=0.25)
        if len(panel.curves) > 3:  # inside, so many names would hide the curves
            axis.legend(fontsize=8.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        elif len(panel.curves) > 1:
            axis.legend(fontsize=8.5, ncols=3, framealpha=0.85, edgecolor="none")
        if len(spikes):
            axis.plot(
                list(spikes), [0.985] * len(spikes), "v", color=COLOURS["ink"], ms=4,
                transform=axis.get_xaxis_transform(), clip_on=False, zorder=5,
            )  # fmt: skip
    if log_axis and any(len(steps) for steps in every):
        log_steps(axes[-1], np.concatenate(every))
    for axis in axes:
        mark_milestones(axis, milestones or {}, named=axis is axes[0])
    axes[-1].set_xlabel(f"optimiser step{' (log scale)' if log_axis else ''}")
    figure.suptitle(title, fontsize=11)
    return figure


def path_figure(
    found: TrajectoryPCA,
    steps: Sequence[int],
    *,
    milestones: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """Draw a path in the plane of its first two modes, and how the variance is shared.

    Args:
        found: from :func:`grokwatch.geometry.trajectory.pca`.
        steps: optimiser step of each checkpoint.
        milestones: steps by label; the nearest checkpoint is marked.
        title: of the figure.
    """
    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    plane, share = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.7, 1]})
    at = np.asarray(steps, dtype=float)
    x, y = found.path[:, 0], found.path[:, 1] if found.path.shape[1] > 1 else 0 * found.path[:, 0]
    plane.plot(x, y, color="#aaaaaa", lw=0.9, zorder=1)
    dots = plane.scatter(
        x, y, c=np.maximum(at, 1), s=16, cmap="cividis", norm=LogNorm(1, max(at.max(), 2)), zorder=2
    )
    figure.colorbar(dots, ax=plane, pad=0.01, label="optimiser step")
    places: dict[int, list[str]] = {}
    for name, step in (milestones or {}).items():
        places.setdefault(int(np.argmin(np.abs(at - step))), []).append(name)
    for i, names in places.items():
        plane.annotate(
            ", ".join(names), (x[i], y[i]), (10, 10), textcoords="offset points", fontsize=11,
            color="#B04A00", arrowprops={"arrowstyle": "-", "color": "#B04A00"},
            bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1},
        )  # fmt: skip
    for axis, name, i in ((plane.set_xlabel, "first", 0), (plane.set_ylabel, "second", 1)):
        part = found.explained[i] if i < len(found.explained) else 0.0
        axis(f"{name} mode ({100 * part:.1f} % of the variance)")
    plane.set_aspect("equal", adjustable="datalim")
    plane.grid(alpha=0.25)
    shown = min(10, len(found.explained))
    share.bar(np.arange(1, shown + 1), np.cumsum(found.explained)[:shown], color="#56B4E9")
    share.axhline(0.98, color="#222222", lw=0.9, ls="--")
    share.annotate("98 %", (shown + 0.4, 0.98), (0, -3), textcoords="offset points", ha="right",
                   va="top", fontsize=9)  # fmt: skip
    share.set_ylim(0, 1.03)
    share.set_xlabel("modes")
    share.set_ylabel("share of the variance, summed")
    figure.suptitle(title, fontsize=11)
    return figure


def mark_milestones(
    axes: Axes, milestones: Mapping[str, float], *, colour: str = "#222222", named: bool = True
) -> None:
    """Draw a line at each milestone in sight; names of lines that are close share a label."""
    groups: list[tuple[float, str]] = []
    first, last = axes.get_xlim()
    for name, step in sorted(milestones.items(), key=lambda item: item[1]):
        if not first <= step <= last:
            continue
        axes.axvline(step, color=colour, lw=0.9, ls=(0, (4, 2)), zorder=3)
        if groups and step < 1.12 * groups[-1][0]:
            groups[-1] = (groups[-1][0], f"{groups[-1][1]}, {name}")
        else:
            groups.append((step, name))
    if named:
        for step, name in groups:
            axes.annotate(name, (step, 1.0), (0, 3), xycoords=("data", "axes fraction"),
                          textcoords="offset points", ha="center", fontsize=9)  # fmt: skip


def log_steps(axes: Axes, steps: NDArray[Any]) -> None:
    """A logarithmic step axis without crowded labels."""
    axes.set_xscale("log")
    axes.set_xlim(float(np.min(steps)), float(np.max(steps)) * 1.02)
    axes.xaxis.set_minor_formatter(NullFormatter())


def _scale(axis: Axes, scale: str | float) -> None:
    if isinstance(scale, str):
        axis.set_yscale(scale)
        return
    axis.set_yscale("symlog", linthresh=scale, linscale=0.6)
    axis.axhline(0.0, color="#222222", lw=0.7)
    axis.axhspan(-scale, scale, color="#dddddd", alpha=0.5, lw=0)


def _cycle() -> list[str]:
    return list(COLOURS.values())
