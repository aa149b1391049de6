"""Figures of a sweep over training fractions: losses with their slingshots, and accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

TRAIN, VAL = "C0", "C1"
FLOOR = 1e-9  # losses below are drawn here
Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # sweep -> what was found, one per fraction


def grid(rows: int, columns: int, height: float) -> tuple[Figure, Any]:
    """Panels of one size, all axes shared."""
    return plt.subplots(
        rows,
        columns,
        figsize=(max(7.0, 3.6 * columns), height * rows + 0.6),
        layout="constrained",
        sharex=True,
        sharey=True,
        squeeze=False,
    )


def draw_losses(sweeps: Runs) -> Figure:
    """A row for each sweep, a panel for each fraction: both losses, slingshots, t2 and t4."""
    figure, axes = grid(len(sweeps), max(map(len, sweeps.values())), 2.4)
    for row, (name, runs) in zip(axes, sweeps.items(), strict=True):
        for ax, found in zip(row, runs, strict=False):
            _losses(ax, found)
            ax.set_title(f"{name}, {found['about']['fraction']:.0%} of the table", fontsize=9)
        for ax in row[len(runs) :]:
            ax.set_axis_off()
    handles = {}
    for ax in axes.flat:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles, fontsize=8, ncols=5, loc="outside upper center")
    axes[0, 0].set_xlim(left=10)  # the first steps show nothing yet
    figure.supxlabel("optimiser step + 1", fontsize=10)
    figure.supylabel("cross-entropy", fontsize=10)
    return figure


def _losses(ax: Axes, found: Mapping[str, Any]) -> None:
    curves = found["curves"]
    loss = np.clip(curves["loss"], FLOOR, None)
    ax.loglog(np.arange(1, len(loss) + 1), loss, TRAIN, lw=0.5, label="training")
    at = np.add(curves["val_step"], 1)
    ax.loglog(at, np.clip(curves["val_loss"], FLOOR, None), VAL, lw=1.2, label="validation")
    if found["spikes"]:
        steps = np.array([step for step, _ in found["spikes"]])
        peaks = [loss[step : step + 20].max() for step in steps]
        ax.plot(steps + 1, peaks, "kv", ms=4, mfc="none", label="slingshot")
    for name, style in (("t2", ":"), ("t4", "--")):
        step = found["grokwatch"][name]
        if step is not None:
            ax.axvline(step + 1, color="0.4", ls=style, lw=1, label=name)
    ax.grid(alpha=0.2)


def between(values: Sequence[float], at: Sequence[float]) -> np.ndarray:
    """Mean of the values of all steps since the previous one of ``at``.

    >>> between([1.0, 2.0, 4.0, 6.0], [0, 1, 3]).tolist()
    [1.0, 2.0, 5.0]
    """
    ends = np.asarray(at, dtype=np.int64) + 1
    return np.diff(np.concatenate([[0.0], np.cumsum(values)[ends - 1]])) / np.diff(ends, prepend=0)


def draw_accuracies(sweeps: Runs) -> Figure:
    """A panel for each sweep: validation accuracy by fraction, the training accuracy dotted."""
    columns = min(3, len(sweeps))
    figure, axes = grid(-(-len(sweeps) // columns), columns, 3.0)
    for ax, (name, runs) in zip(axes.flat, sweeps.items(), strict=False):
        for found in runs:
            curves, fraction = found["curves"], found["about"]["fraction"]
            shares = [one["about"]["fraction"] for one in runs]
            place = (fraction - min(shares)) / max(max(shares) - min(shares), 1e-9)
            colour = plt.get_cmap("viridis")(0.85 * (1 - place))
            accuracy = between(curves["accuracy"], curves["val_step"])
            at = np.add(curves["val_step"], 1)
            ax.semilogx(at, curves["val_accuracy"], color=colour, lw=1.5, label=f"{fraction:.0%}")
            ax.semilogx(at, accuracy, color=colour, lw=0.8, ls=":")
        ax.set_title(name, fontsize=9)
        ax.legend(fontsize=7, loc="upper left", title="trained on", title_fontsize=7)
        ax.grid(alpha=0.2)
    for ax in axes.flat[len(sweeps) :]:
        ax.set_axis_off()
    axes[0, 0].set_xlim(left=10)  # the first steps show nothing yet
    figure.supxlabel("optimiser step + 1", fontsize=10)
    figure.supylabel("accuracy (validation; training dotted)", fontsize=10)
    return figure
