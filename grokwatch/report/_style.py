"""Colours, axes, ticks and labels that all figures share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

#: Colour on white paper, and on a dark page, by what it stands for. Curves are Okabe and Ito's
#: hues, which all readers can tell apart, dark enough (or light enough) to be written in.
PALETTE = {
    "ink": ("#1f2933", "#e8ebee"),
    "muted": ("#55616d", "#b3bcc6"),
    "axis": ("#8d99a6", "#74808c"),
    "grid": ("#fefefe", "#171b21"),
    "training": ("#00629e", "#6cb8f0"),
    "validation": ("#ad4300", "#f4a462"),
    "forecast": ("#6a3d9e", "#c6abf4"),
    "third": ("#006b4a", "#5fd3a8"),
    "spike": ("#b0113d", "#ff8fa5"),
    "past": ("#c9d1d9", "#39424c"),
    "confusion": ("#eef1f4", "#2a323b"),
    "memorisation": ("#dde9f6", "#1d3b5c"),
    "transition": ("#fbedd0", "#4a3b15"),
    "generalised": ("#dbf0e0", "#1b4a31"),
    "ungrokked": ("#f3e1f2", "#4b2b4f"),
    "diverged": ("#f9dcda", "#5c2826"),
}
COLOURS = {name: light for name, (light, _) in PALETTE.items()}

SIZE = (5.6, 3.4)  # inches
_SMALL = 9.0  # points; labels shrink with a page, this stays legible on a narrow one


def new_figure(size: tuple[float, float] = SIZE, right: float = 0.84) -> tuple[Figure, Axes]:
    """An empty figure with room for labels above and to the right of its only axes."""
    figure = Figure(figsize=size, facecolor="white")
    figure.subplots_adjust(left=0.13, right=right, top=0.9, bottom=0.15)
    return figure, figure.subplots()


def dress(axes: Axes) -> None:
    """Quiet axes: two spines, a faint grid, nothing in the way of the curves."""
    axes.grid(axis="y", color=COLOURS["grid"], linewidth=0.9)
    axes.set_axisbelow(True)
    axes.set_facecolor("none")
    axes.tick_params(colors=COLOURS["axis"], labelcolor=COLOURS["ink"], length=3, labelsize=_SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(COLOURS["axis"])
    axes.xaxis.label.set_color(COLOURS["ink"])
    axes.yaxis.label.set_color(COLOURS["ink"])


def log_axis(axes: Axes, which: str, low: float, high: float, most: int = 7) -> None:
    """Make one axis logarithmic from ``low`` to ``high`` (both positive), with few round ticks."""
    getattr(axes, f"set_{which}scale")("log")
    getattr(axes, f"set_{which}lim")(low, high)
    axis = getattr(axes, f"{which}axis")
    axis.set_minor_locator(NullLocator())
    axis.set_major_locator(FixedLocator(log_ticks(low, high, most)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Between 2 and ``most`` round numbers in a range: 1, 2 and 5, decades, or fewer.

    >>> log_ticks(10, 6000), log_ticks(1e-9, 3, most=4), log_ticks(2.2, 2.31)
    ([10.0, 100.0, 1000.0], [1e-09, 1e-06, 0.001, 1.0], [2.2, 2.225, 2.25, 2.275, 2.3])
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for mantissas in ((1, 2, 5), (1, 3)):
        ticks = [m * 10.0**e for e in range(first, last + 1) for m in mantissas]
        ticks = [float(f"{t:.3g}") for t in ticks if low <= t <= high]
        if 3 <= len(ticks) <= most and last - first <= 3 and mantissas == (1, 2, 5):
            return ticks
        if 4 <= len(ticks) <= most and last - first <= 4:
            break
    decades = [10.0**e for e in range(first, last + 1) if low <= 10.0**e <= high]
    if len(decades) >= 3:
        each = math.ceil(len(decades) / most)
        return [d for d in decades if round(math.log10(d)) % each == 0]
    if len(ticks) >= 2:
        return ticks
    inside = MaxNLocator(most - 2).tick_values(low, high)
    return [float(f"{t:.6g}") for t in inside if low <= t <= high]


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float) -> str:
    """A tick's label, without markup: plain where that is short, else a power of ten.

    >>> [number(v) for v in (0.0, 0.05, 1, 2.5, 300, 5000, 20_000, 3e6, 1e-7, 2e-5, 1e12)]
    ['0', '0.05', '1', '2.5', '300', '5,000', '20k', '3M', '10⁻⁷', '2·10⁻⁵', '10¹²']
    """
    size = abs(value)
    if size == 0.0 or 0.009 <= size < 10_000:
        return f"{value:,.4g}" if size < 1000 else f"{value:,.0f}"
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if unit <= size < 1000 * unit:
            return f"{value / unit:.4g}{letter}"
    exponent = math.floor(math.log10(size) + 1e-9)
    mantissa = f"{value / 10.0**exponent:.3g}"
    power = f"10{str(exponent).translate(_RAISED)}"
    return power if mantissa == "1" else f"{mantissa}·{power}"


def note(
    axes: Axes,
    text: str,
    point: tuple[float, float],
    offset: tuple[float, float],
    role: str,
    **style: Any,
) -> None:
    """Write at an offset in points from a point in data units."""
    style = {"fontsize": _SMALL, "annotation_clip": False, "zorder": 7, **style}
    axes.annotate(text, point, offset, textcoords="offset points", color=COLOURS[role], **style)


def name_ends(axes: Axes, ends: Iterable[tuple[str, float, str]], gap: float = 0.075) -> None:
    """Write the name of each curve beside its last value, none over another.

    Args:
        axes: with its final limits.
        ends: name, last value and role of colour of each curve.
        gap: least distance of two names, as a share of the height.
    """
    listed = list(ends)
    if not listed:
        return
    last = axes.get_xlim()[1]
    to_share = axes.transData + axes.transAxes.inverted()
    heights = [float(to_share.transform((last, value))[1]) for _, value, _ in listed]
    places = spread([min(max(h, 0.0), 1.0) for h in heights], gap)
    for (name, _, role), place in zip(listed, places, strict=True):
        axes.annotate(name, (1.0, place), (5, 0), xycoords="axes fraction",
                      textcoords="offset points", va="center", fontsize=_SMALL,
                      color=COLOURS[role], annotation_clip=False, zorder=7)  # fmt: skip


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move numbers in 0..1 apart by at least ``gap``, keeping their order.

    >>> [round(p, 3) for p in spread([1.0, 0.99, 0.2], 0.1)]
    [1.0, 0.9, 0.2]
    """
    order = np.argsort(places, kind="stable")
    moved = np.asarray(places, dtype=float)[order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    over = moved[-1] - 1.0 if len(moved) else 0.0
    if over > 0:
        moved[-1] -= over
        for i in range(len(moved) - 2, -1, -1):
            moved[i] = min(moved[i], moved[i + 1] - gap)
    result = np.empty_like(moved)
    result[order] = moved
    return [float(place) for place in result]
