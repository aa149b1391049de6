"""The fitted jump: accuracy, the erf through it, and how well it fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike


def transition_figure(
    steps: ArrayLike, accuracy: ArrayLike, signals: Mapping[str, float]
) -> Figure:
    """Draw validation accuracy with the erf that ``transition_*`` in ``signals`` describes.

    Args:
        steps: optimiser steps, shape (n,).
        accuracy: validation accuracy, shape (n,).
        signals: of a verdict; without a fit only the points are drawn.
    """
    from grokwatch.report._style import new_figure

    figure, axes = new_figure(right=0.96)
    draw_transition(axes, steps, accuracy, signals)
    return figure


def draw_transition(
    axes: Axes, steps: ArrayLike, accuracy: ArrayLike, signals: Mapping[str, float]
) -> None:
    """Draw it onto axes of one's own; see :func:`transition_figure`."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
    from scipy.special import erf

    from grokwatch.report._style import COLOURS, dress, number

    dress(axes)
    axes.grid(axis="y", color=COLOURS["past"], linewidth=0.6)
    at, seen = np.asarray(steps, dtype=float), np.asarray(accuracy, dtype=float)
    left, right = (float(at.min()), float(at.max())) if len(at) else (0.0, 1.0)
    if "transition_time" in signals:
        time, sharpness = signals["transition_time"], signals["transition_sharpness"]
        low, rise = signals["transition_low"], signals["transition_amplitude"]
        reach = max(6.0 / sharpness, 1.0)
        left, right = max(left, time - reach), min(right, time + reach)
        t = np.linspace(left, right, 300)
        fitted = low + rise / 2 * (1 + erf(sharpness * (t - time)))
        axes.plot(t, fitted, color=COLOURS["validation"], lw=2, label="erf fit", zorder=4)
        axes.axvline(time, color=COLOURS["ink"], lw=0.8, ls=(0, (2, 2)))
        axes.set_title(
            f"jump at step {time:,.0f}, sharpness {sharpness:.3g} per step, "
            f"R² {signals['transition_r2']:.3f}",
            fontsize=10,
            color=COLOURS["ink"],
        )
    shown = (at >= left) & (at <= right)
    axes.plot(at[shown], seen[shown], "o", ms=3.2, color=COLOURS["muted"], zorder=3,
              label="validation accuracy")  # fmt: skip
    if right > left:
        axes.set_xlim(left, right)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("accuracy")
    axes.set_ylim(-0.03, 1.05)
    axes.legend(loc="lower right", frameon=False, fontsize=9, labelcolor=COLOURS["ink"])
