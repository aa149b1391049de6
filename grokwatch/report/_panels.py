"""One panel a question; each draws onto axes of its own and knows nothing of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from grokwatch.replay import Replay
from grokwatch.report._facts import budget_of, milestones, spikes, step_limits, strips
from grokwatch.report._style import COLOURS, dress, log_axis, name_ends, note
from grokwatch.report._thin import FloatArray, thin
from grokwatch.report.demo_table import forecasts

_LINES = {"third": "--"}  # who cannot tell blue from green sees this


class Curve(NamedTuple):
    """A curve to draw: values over steps, its name, the role of its colour."""

    steps: FloatArray
    values: FloatArray
    name: str
    role: str


def frame(axes: Axes, replayed: Replay, limits: tuple[float, float] | None = None) -> None:
    """Step axis, phases and milestones, which all panels share."""
    dress(axes)
    first, last = limits or step_limits(replayed)
    log_axis(axes, "x", first, last)
    for strip in strips(replayed, first, min(last, step_limits(replayed)[1])):
        axes.axvspan(strip.start, strip.end, color=COLOURS[strip.phase], linewidth=0, zorder=0)
    for step in milestones(replayed).values():
        if first <= step <= last:
            axes.axvline(step, color=COLOURS["ink"], linewidth=0.8, zorder=3)


def name_milestones(axes: Axes, replayed: Replay) -> None:
    """Write t1..t4 above the panel; those close together share a label."""
    (first, last), groups = axes.get_xlim(), list[tuple[float, float, str]]()
    for name, step in milestones(replayed).items():
        if not first <= step <= last:
            continue
        place = float(np.log(max(step, first) / first) / np.log(last / first))
        if groups and place - groups[-1][1] < 0.045:
            left, _, names = groups[-1]
            groups[-1] = (left, place, f"{names} {name}")
        else:
            groups.append((place, place, name))
    for left, right, names in groups:
        axes.annotate(names, ((left + right) / 2, 1.0), (0, 4), xycoords="axes fraction",
                      textcoords="offset points", ha="center", fontsize=9,
                      color=COLOURS["ink"])  # fmt: skip


def accuracies(axes: Axes, replayed: Replay) -> None:
    """Training and validation accuracy, and what guessing gives."""
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("accuracy")
    chance = replayed.run.settings.get("chance")
    if chance is not None:
        axes.axhline(chance, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (2, 3)))
    ends = _plot(axes, _curves(replayed, "accuracy"))
    if chance is not None:
        ends.append(("chance", float(chance), "muted"))
    name_ends(axes, ends)


def losses(axes: Axes, replayed: Replay) -> None:
    """Training and validation loss, log-log, and the slingshots."""
    curves = _curves(replayed, "loss", positive=True)
    fit_log(axes, [curve.values for curve in curves])
    axes.set_ylabel("loss")
    ends = _plot(axes, curves)
    found = spikes(replayed)
    steps, values = replayed.run.columns.get("train_loss", ((), ()))
    if found and len(steps):
        onsets = [spike.step for spike in found]
        heights = values[np.minimum(np.searchsorted(steps, onsets), len(steps) - 1)]
        axes.scatter(onsets, heights, marker="v", s=34, color=COLOURS["spike"], zorder=6)
        ends.append((f"slingshot{'s' * (len(found) > 1)}", axes.get_ylim()[0], "spike"))
    name_ends(axes, ends)


def probability(axes: Axes, replayed: Replay) -> None:
    """P(generalises within the budget) over time, and when to stop was recommended."""
    axes.set_ylim(-0.11, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_ylabel("P(generalises within budget)")
    steps = np.array([max(v.step, 1) for v in replayed.verdicts], dtype=float)
    values = [np.nan if v.probability is None else v.probability for v in replayed.verdicts]
    axes.plot(steps, values, "-o", color=COLOURS["forecast"], linewidth=1.6, markersize=2.5,
              zorder=4)  # fmt: skip
    start = None
    for i, verdict in enumerate(replayed.verdicts):
        stop = verdict.recommendation != "continue"
        if stop and start is None:
            start = steps[i]
        if start is not None and (not stop or i + 1 == len(steps)):
            end = axes.get_xlim()[1] if stop else steps[i]
            axes.axhspan(-0.1, -0.055, *_shares(axes, start, end), color=COLOURS["spike"], lw=0)
            start = None
    if any(v.recommendation != "continue" for v in replayed.verdicts):
        axes.annotate("stop", (1.0, -0.078), (5, 0), xycoords=("axes fraction", "data"),
                      textcoords="offset points", va="center", fontsize=9,
                      color=COLOURS["spike"])  # fmt: skip


def expected_step(axes: Axes, replayed: Replay) -> None:
    """The step of generalisation that was expected, against the step at which it was."""
    first, last = axes.get_xlim()
    t4 = replayed.final.signals.get("t4")
    floor = max((t4 or last) / 30, 1.0)
    budget = budget_of(replayed)
    ceiling = 3.0 * max(budget, last)
    log_axis(axes, "y", floor, ceiling, most=6)
    axes.set_ylabel("forecast of t4 (step)")
    # No forecast can lie below the diagonal.
    axes.fill_between([floor, last], floor, [floor, last], color=COLOURS["past"], linewidth=0,
                      zorder=1)  # fmt: skip
    note(axes, "already past", (last, floor), (-6, 5), "ink", ha="right")
    ends = [("budget", float(budget), "muted")]
    axes.axhline(budget, color=COLOURS["muted"], linewidth=0.8, linestyle=(0, (2, 3)), zorder=2)
    if t4 is not None:
        axes.axhline(t4, color=COLOURS["ink"], linewidth=1.0, linestyle=(0, (5, 3)), zorder=2)
        ends.append(("happened", t4, "ink"))
    name_ends(axes, ends)
    foreseen = forecasts(replayed.verdicts)
    if not foreseen:
        note(axes, "no step was ever forecast", (first, ceiling), (6, -14), "forecast")
        return
    steps = np.array([max(verdict.step, 1) for verdict in foreseen], dtype=float)
    bands = np.array([verdict.eta for verdict in foreseen], dtype=float)
    # Where the monitor fell silent between two forecasts, the band must be broken.
    place = {id(verdict): i for i, verdict in enumerate(replayed.verdicts)}
    gaps = np.flatnonzero(np.diff([place[id(verdict)] for verdict in foreseen]) > 1) + 1
    for part in np.split(np.arange(len(steps)), gaps):
        axes.fill_between(steps[part], bands[part, 0], bands[part, 2], color=COLOURS["forecast"],
                          alpha=0.22, linewidth=0, zorder=3)  # fmt: skip
        axes.plot(steps[part], bands[part, 1], "-o", color=COLOURS["forecast"], linewidth=1.6,
                  markersize=2.5, zorder=4)  # fmt: skip


def over_steps(axes: Axes, curves: Iterable[Curve], label: str, log: bool = True) -> None:
    """Any curves over the step."""
    listed = list(curves)
    if log:
        fit_log(axes, [curve.values for curve in listed])
    axes.set_ylabel(label)
    ends = _plot(axes, listed)
    if not log and ends:
        axes.set_ylim(axes.get_ylim())
    name_ends(axes, ends)


def column(replayed: Replay, name: str, label: str, role: str, log: bool = True) -> Curve | None:
    """A column of the record as a curve; None if nothing of it can be drawn."""
    steps, values = replayed.run.columns.get(name, (np.empty(0), np.empty(0)))
    return curve(steps, values, label, role, log)


def signal(replayed: Replay, name: str, label: str, role: str, log: bool = True) -> Curve | None:
    """A signal over the steps of the verdicts; see :func:`column`."""
    known = [(v.step, v.signals[name]) for v in replayed.verdicts if name in v.signals]
    steps, values = zip(*known, strict=True) if known else ((), ())
    return curve(steps, values, label, role, log)


def curve(steps: object, values: object, label: str, role: str, log: bool = True) -> Curve | None:
    """What of a curve a log-step axis can show, thinned."""
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    shown = np.isfinite(y) & (x > 0) & ((y > 0) if log else True)
    return Curve(*thin(x[shown], y[shown]), label, role) if shown.any() else None


def fit_log(axes: Axes, columns: Iterable[FloatArray]) -> None:
    """A log y-axis from the least to the greatest value, with a little air."""
    listed = [values for values in columns if len(values)]
    low = min((float(values.min()) for values in listed), default=0.1)
    high = max((float(values.max()) for values in listed), default=1.0)
    air = max((high / low) ** 0.05, 1.05)
    log_axis(axes, "y", low / air, high * air, most=6)


def _curves(replayed: Replay, kind: str, positive: bool = False) -> list[Curve]:
    sides: Mapping[str, str] = {"train": "training", "val": "validation"}
    found = [
        column(replayed, f"{side}_{kind}", name, name, positive) for side, name in sides.items()
    ]
    return [curve for curve in found if curve is not None]


def _plot(axes: Axes, curves: Iterable[Curve]) -> list[tuple[str, float, str]]:
    """Draw curves; name, last value and role of each."""
    ends = []
    for steps, values, name, role in curves:
        line = "o" if len(steps) == 1 else _LINES.get(role, "-")
        axes.plot(steps, values, line, color=COLOURS[role], linewidth=1.5, markersize=4, zorder=4)
        ends.append((name, float(values[-1]), role))
    return ends


def _shares(axes: Axes, start: float, end: float) -> tuple[float, float]:
    """Where two steps lie on the step axis, 0..1."""
    first, last = axes.get_xlim()
    wide = np.log(last / first)
    begin, finish = (float(np.log(np.clip(s, first, last) / first) / wide) for s in (start, end))
    return begin, max(finish, begin + 0.004)
