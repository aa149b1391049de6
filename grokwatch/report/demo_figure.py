"""One picture of a run on a log-step axis: accuracies and phases, forecast over time, losses."""

from __future__ import annotations

import math

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
    top, middle, bottom = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2.2, 2.4], "hspace": 0.12}
    )
    figure.subplots_adjust(left=0.09, right=0.9, top=0.87, bottom=0.07)
    figure.text(0.09, 0.955, title, fontsize=16, fontweight="bold", color=_INK)
    figure.text(0.09, 0.93, subtitle, fontsize=10, color=_MUTED)
    _accuracies(top, replayed)
    _forecast(middle, replayed)
    _losses(bottom, replayed)
    for panel in (top, middle, bottom):
        _finish(panel, replayed)
    _name_phases(top, replayed)
    bottom.set_xlabel("optimiser step (log scale)", color=_INK)
    return figure


def _accuracies(panel: Axes, replayed: Replay) -> None:
    _curve(panel, replayed, "train_accuracy", _TRAIN, "training")
    _curve(panel, replayed, "val_accuracy", _VAL, "validation")
    chance = replayed.run.settings.get("chance")
    if chance is not None:
        panel.axhline(chance, color=_MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        panel.annotate("chance", (1.5, chance), (0, 3), textcoords="offset points", color=_MUTED,
                       fontsize=8)  # fmt: skip
    panel.set_ylim(-0.03, 1.05)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.set_ylabel("accuracy")


def _forecast(panel: Axes, replayed: Replay) -> None:
    """Expected step of generalisation against the step at which it was expected."""
    panel.set_yscale("log")
    panel.set_ylabel("forecast of t4 (step)")
    t4 = replayed.final.signals.get("t4")
    last = max(replayed.run.last_step, 2)
    foreseen = forecasts(replayed.verdicts)
    bands = np.array([v.eta for v in foreseen if v.eta is not None], dtype=float).reshape(-1, 3)
    budget = float(replayed.run.settings.get("budget", last))
    floor = max(1.0, (t4 or last) / 30)
    panel.set_ylim(floor, max(3.0 * budget, 3.0 * last))
    now = np.geomspace(1, last, 200)
    # No forecast can lie below the diagonal: that is the past.
    panel.fill_between(now, floor, np.maximum(now, floor), color="#eceff2", linewidth=0, zorder=1)
    panel.annotate("the past", (last, floor * 1.5), (-6, 0), textcoords="offset points", ha="right",
                   color=_MUTED, fontsize=8)  # fmt: skip
    if t4 is not None:
        panel.axhline(t4, color=_INK, linewidth=1.0, linestyle=(0, (5, 3)), zorder=2)
        panel.annotate("what happened", (1.5, t4), (0, 4), textcoords="offset points", color=_INK,
                       fontsize=9)  # fmt: skip
    if not foreseen:
        panel.text(0.03, 0.85, "no forecast: never enough evidence", transform=panel.transAxes,
                   color=_MUTED)  # fmt: skip
        return
    steps = np.array([verdict.step for verdict in foreseen], dtype=float)
    # Silence between two forecasts must not be drawn as a forecast.
    indices = {id(verdict): i for i, verdict in enumerate(replayed.verdicts)}
    places = np.array([indices[id(verdict)] for verdict in foreseen])
    for part in np.split(np.arange(len(steps)), np.flatnonzero(np.diff(places) > 1) + 1):
        panel.fill_between(steps[part], bands[part, 0], bands[part, 2], color=_FORECAST, alpha=0.2,
                           linewidth=0, zorder=3)  # fmt: skip
        panel.plot(steps[part], bands[part, 1], color=_FORECAST, linewidth=1.8, marker="o",
                   markersize=2.5, zorder=4)  # fmt: skip
    panel.plot(steps[0], bands[0, 1], "o", color=_FORECAST, markersize=7, zorder=5)
    panel.annotate(
        f"first forecast, at step {steps[0]:,.0f}:\n{bands[0, 1]:,.0f}", (steps[0], bands[0, 1]),
        (-10, 12), textcoords="offset points", ha="right", color=_FORECAST, fontsize=9,
    )  # fmt: skip


def _losses(panel: Axes, replayed: Replay) -> None:
    panel.set_yscale("log")
    _curve(panel, replayed, "train_loss", _TRAIN, "training")
    _curve(panel, replayed, "val_loss", _VAL, "validation")
    panel.set_ylabel("loss (log scale)")
    spikes = sorted(
        {v.signals["spike_step"] for v in replayed.verdicts if "spike_step" in v.signals}
    )
    if not spikes or "train_loss" not in replayed.run.columns:
        return
    steps, losses = replayed.run.columns["train_loss"]
    heights = losses[np.minimum(np.searchsorted(steps, spikes), len(steps) - 1)]
    panel.scatter(spikes, heights, marker="v", s=40, color=_SPIKE, zorder=6)
    panel.annotate(f"{len(spikes)} spike{'s' * (len(spikes) > 1)}", (spikes[0], heights[0]), (0, 8),
                   textcoords="offset points", ha="center", color=_SPIKE, fontsize=9)  # fmt: skip


def _curve(panel: Axes, replayed: Replay, name: str, colour: str, label: str) -> None:
    """Draw one measurement and write its name at its end."""
    steps, values = replayed.run.columns.get(name, (np.empty(0), np.empty(0)))
    shown = np.isfinite(values) & (steps > 0)
    if panel.get_yscale() == "log":
        shown &= values > 0
    if not shown.any():
        return
    panel.plot(steps[shown], values[shown], color=colour, linewidth=1.8, zorder=4)
    panel.annotate(label, (steps[shown][-1], values[shown][-1]), (6, 0), ha="left", va="center",
                   textcoords="offset points", color=colour, annotation_clip=False)  # fmt: skip


def _milestones(replayed: Replay) -> list[tuple[str, float]]:
    """Each phase that was reached, with the step it began at."""
    signals = replayed.final.signals
    starts = {"confusion": 1.0, "memorisation": signals.get("t2")}
    starts |= {"transition": signals.get("t3"), "generalised": signals.get("t4")}
    return sorted(
        ((phase, max(step, 1.0)) for phase, step in starts.items() if step is not None),
        key=lambda item: item[1],
    )


def _finish(panel: Axes, replayed: Replay) -> None:
    """Axis, shading and milestones that all panels share."""
    last = max(replayed.run.last_step, 2)
    panel.set_xscale("log")
    panel.set_xlim(1, last)
    begun = _milestones(replayed)
    ends = [step for _, step in begun[1:]] + [float(last)]
    for (phase, start), end in zip(begun, ends, strict=True):
        panel.axvspan(start, end, color=_PHASES[phase], linewidth=0, zorder=0)
    for name in ("t2", "t4"):
        if name in replayed.final.signals:
            panel.axvline(replayed.final.signals[name], color=_INK, linewidth=1.0, zorder=3)
    panel.grid(axis="y", color="white", linewidth=0.9, zorder=0.5)
    panel.tick_params(colors=_MUTED, labelcolor=_INK, which="both", length=3)
    panel.xaxis.set_minor_formatter(NullFormatter())
    for spine in ("top", "right"):
        panel.spines[spine].set_visible(False)
    for spine in ("left", "bottom"):
        panel.spines[spine].set_color("#cbd2d9")


def _name_phases(panel: Axes, replayed: Replay) -> None:
    """Write the phases above the shading, and t2 and t4 at their lines."""
    signals = replayed.final.signals
    above = blended_transform_factory(panel.transData, panel.transAxes)
    begun = _milestones(replayed)
    ends = [step for _, step in begun[1:]] + [float(max(replayed.run.last_step, 2))]
    width = math.log(max(replayed.run.last_step, 2))
    for (phase, start), end in zip(begun, ends, strict=True):
        if math.log(end / start) > 0.1 * width:  # a narrower strip has no room for its name
            panel.text(math.sqrt(start * end), 1.02, phase, transform=above, ha="center",
                       color=_MUTED, fontsize=9)  # fmt: skip
    for name in ("t2", "t4"):
        if name in signals:
            panel.text(signals[name] * 0.97, 0.55, f"{name} = {signals[name]:,.0f}", rotation=90,
                       transform=above, ha="right", va="center", color=_INK, fontsize=9)  # fmt: skip
