"""The fitted jump: validation accuracy, the erf through it, and how well it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def transition_figure(
    steps: Sequence[float], accuracy: Sequence[float], signals: Mapping[str, float]
) -> Figure:
    """Draw validation accuracy with the erf that ``transition_*`` in ``signals`` describes.

    Args:
        steps: optimiser steps, shape (n,).
        accuracy: validation accuracy, shape (n,).
        signals: of a verdict; without a fit only the points are drawn.
    """
    from matplotlib.figure import Figure
    from scipy.special import erf

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, accuracy, "o", ms=3.5, color="#7a7a7a", label="validation accuracy")
    if "transition_time" in signals:
        time, sharpness = signals["transition_time"], signals["transition_sharpness"]
        low, rise = signals["transition_low"], signals["transition_amplitude"]
        reach = max(6.0 / sharpness, 1.0)
        left, right = max(min(steps), time - reach), min(max(steps), time + reach)
        t = np.linspace(left, right, 300)
        fitted = low + rise / 2 * (1 + erf(sharpness * (t - time)))
        axes.plot(t, fitted, color="#0b6e99", lw=2, label="erf fit")
        axes.axvline(time, color="#0b6e99", lw=1, ls=":")
        axes.set_xlim(left, right)
        axes.set_title(
            f"jump at step {time:,.0f}, sharpness {sharpness:.3g} per step, "
            f"R² {signals['transition_r2']:.3f}",
            fontsize=10,
        )
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("accuracy")
    axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    return figure
