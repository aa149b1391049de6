"""One picture of a run on a log-step axis: accuracies and phases, forecast over time, losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter
from matplotlib.transforms import blended_transform_factory

from grokwatch.replay import Replay
from grokwatch.report.demo_table import forecasts

_INK, _MUTED = "#1f2933", "#7b8794"
_TRAIN, _VAL, _FORECAST, _SPIKE = "#3b6ea5", "#d1603d", "#6b4ea0", "#c81e4a"
_PHASES = {
    "confusion": "#f1f3f5",
    "memorisation": "#e3ecf6",
    "transition": "#fcefd9",
    "generalised": "#e2f2e5",
}


def draw_run(replayed: Replay, title: str, subtitle: str = "") -> Figure:
    """Draw a run that was replayed.

    Args:
        replayed: the run and all its verdicts; any measurement may be missing.
        title: the large line at the top.
        subtitle: the small line under it.

    Returns:
        A figure of 10 x 9 inches; `savefig` writes it without a display.
    """
    figure = Figure(figsize=(10, 9), facecolor="white")
    panels = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2.2, 2.4], "hspace": 0.1}
    )
    figure.subplots_adjust(left=0.09, right=0.905, top=0.855, bottom=0.065)
    figure.text(0.09, 0.955, title, fontsize=16, fontweight="bold", color=_INK)
    figure.text(0.09, 0.93, subtitle, fontsize=10, color=_MUTED)
    for panel, draw in zip(panels, (_accuracies, _forecasts, _losses), strict=True):
        _frame(panel, replayed)
        draw(panel, replayed)
    _name_phases(panels[0], replayed)
    panels[-1].set_xlabel("optimiser step (log scale)", color=_INK)
    return figure


def _frame(panel: Axes, replayed: Replay) -> None:
    """Axes, shading and milestones that all panels share."""
    first, last = _limits(replayed)
    panel.set_xscale("log")
    panel.set_xlim(first, last)
    panel.xaxis.set_minor_formatter(NullFormatter())
    for phase, start, end in _strips(replayed):
        panel.axvspan(start, end, color=_PHASES[phase], linewidth=0, zorder=0)
    for name in ("t2", "t4"):
        if name in replayed.final.signals:
            panel.axvline(replayed.final.signals[name], color=_INK, linewidth=1.0, zorder=3)
    panel.grid(axis="y", color="white", linewidth=0.9)
    panel.set_axisbelow(True)
    panel.tick_params(colors=_MUTED, labelcolor=_INK, which="both", length=3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color("#cbd2d9")


def _name_phases(panel: Axes, replayed: Replay) -> None:
    """Write t2 and t4, and over them the phases, above the top panel."""
    above = blended_transform_factory(panel.transData, panel.transAxes)
    first, last = _limits(replayed)
    for phase, start, end in _strips(replayed):
        if math.log(end / start) > 0.1 * math.log(last / first):  # else the name does not fit
            panel.text(math.sqrt(start * end), 1.08, phase, transform=above, ha="center",
                       color=_MUTED, fontsize=10)  # fmt: skip
    for name in ("t2", "t4"):
        if name in replayed.final.signals:
            step = replayed.final.signals[name]
            panel.text(step, 1.02, f"{name} = {step:,.0f}", transform=above, ha="center",
                       color=_INK, fontsize=10)  # fmt: skip


def _accuracies(panel: Axes, replayed: Replay) -> None:
    panel.set_ylim(-0.03, 1.06)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.set_ylabel("accuracy", color=_INK)
    chance = replayed.run.settings.get("chance")
    if chance is not None:
        panel.axhline(chance, color=_MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        # Right of t2 the training curve is out of the way.
        left = replayed.final.signals.get("t2", _limits(replayed)[0])
        _note(panel, "chance", (left, chance), (6, 3), _MUTED)
    _curve(panel, replayed, "train_accuracy", _TRAIN, "training", lift=6)
    _curve(panel, replayed, "val_accuracy", _VAL, "validation", lift=-6)


def _forecasts(panel: Axes, replayed: Replay) -> None:
    """Expected step of generalisation, against the step at which it was expected."""
    first, last = _limits(replayed)
    t4 = replayed.final.signals.get("t4")
    floor = (t4 or last) / 30
    ceiling = 3.0 * max(float(replayed.run.settings.get("budget", last)), last)
    panel.set_yscale("log")
    panel.set_ylim(floor, ceiling)
    panel.set_ylabel("forecast of t4 (step)", color=_INK)
    # No forecast can lie below the diagonal.
    panel.fill_between([floor, last], floor, [floor, last], color="#cbd2d9", alpha=0.55,
                       linewidth=0, zorder=1)  # fmt: skip
    _note(panel, "already past", (t4 or last, floor), (-8, 8), _MUTED, ha="right")
    if t4 is not None:
        panel.axhline(t4, color=_INK, linewidth=1.0, linestyle=(0, (5, 3)), zorder=2)
        _note(panel, "what happened", (first, t4), (6, 4), _INK)
    foreseen = forecasts(replayed.verdicts)
    if not foreseen:
        _note(panel, "no forecast: never enough evidence", (first, ceiling), (6, -16), _FORECAST)
        return
    steps = np.array([verdict.step for verdict in foreseen], dtype=float)
    bands = np.array([verdict.eta for verdict in foreseen], dtype=float)
    # Where the monitor fell silent between two forecasts, the band must be broken.
    place = {verdict.step: i for i, verdict in enumerate(replayed.verdicts)}
    gaps = np.flatnonzero(np.diff([place[verdict.step] for verdict in foreseen]) > 1) + 1
    for part in np.split(np.arange(len(steps)), gaps):
        panel.fill_between(steps[part], bands[part, 0], bands[part, 2], color=_FORECAST,
                           alpha=0.2, linewidth=0, zorder=3)  # fmt: skip
        panel.plot(steps[part], bands[part, 1], "-o", color=_FORECAST, linewidth=1.8,
                   markersize=3, zorder=4)  # fmt: skip
    start = (steps[0], min(bands[0, 1], ceiling / 1.3))
    panel.plot(*start, "o" if start[1] == bands[0, 1] else "^", color=_FORECAST, markersize=7,
               zorder=5)  # fmt: skip
    label = f"first forecast\n{bands[0, 1]:,.0f}, at step {steps[0]:,.0f}"
    _note(panel, label, start, (-10, 0), _FORECAST, ha="right", va="center")


def _losses(panel: Axes, replayed: Replay) -> None:
    panel.set_yscale("log")
    panel.set_ylabel("loss (log scale)", color=_INK)
    _curve(panel, replayed, "train_loss", _TRAIN, "training")
    _curve(panel, replayed, "val_loss", _VAL, "validation")
    spikes = sorted(
        {v.signals["spike_step"] for v in replayed.verdicts if "spike_step" in v.signals}
    )
    if not spikes:
        return
    steps, losses = replayed.run.columns["train_loss"]
    heights = losses[np.minimum(np.searchsorted(steps, spikes), len(steps) - 1)]
    panel.scatter(spikes, heights, marker="v", s=36, color=_SPIKE, zorder=6)
    label = f"{len(spikes)} loss spike{'s' * (len(spikes) > 1)}"
    _note(panel, label, (spikes[0], heights[0]), (-8, 6), _SPIKE, ha="right")


def _curve(
    panel: Axes, replayed: Replay, name: str, colour: str, label: str, lift: float = 0.0
) -> None:
    """Draw one measurement and write its name at its end, moved up by `lift` points."""
    steps, values = replayed.run.columns.get(name, (np.empty(0), np.empty(0)))
    shown = np.isfinite(values) & (steps > 0)
    if panel.get_yscale() == "log":
        shown &= values > 0
    if shown.any():
        panel.plot(steps[shown], values[shown], color=colour, linewidth=1.8, zorder=4)
        end = (_limits(replayed)[1], values[shown][-1])
        _note(panel, label, end, (6, lift), colour, va="center", fontsize=10)


def _note(
    panel: Axes,
    text: str,
    point: tuple[float, float],
    offset: tuple[float, float],
    colour: str,
    **style: Any,
) -> None:
    """Write at an offset in points from a point in data units."""
    style = {"fontsize": 9, "annotation_clip": False, "zorder": 7, **style}
    panel.annotate(text, point, offset, textcoords="offset points", color=colour, **style)


def _limits(replayed: Replay) -> tuple[float, float]:
    """First and last step shown: the first few, where little happens, are most of a log axis."""
    last = max(replayed.run.last_step, 2)
    return (10.0 if last > 1000 else 1.0), 1.12 * last


def _strips(replayed: Replay) -> list[tuple[str, float, float]]:
    """Phase, start and end of each phase reached."""
    signals, (first, last) = replayed.final.signals, _limits(replayed)
    starts = [("confusion", first)]
    for phase, name in (("memorisation", "t2"), ("transition", "t3"), ("generalised", "t4")):
        if name in signals:
            starts.append((phase, max(signals[name], starts[-1][1])))
    ends = [start for _, start in starts[1:]] + [last]
    return [(phase, start, end) for (phase, start), end in zip(starts, ends, strict=True)]
