"""One picture of a run on a log-step axis: accuracies and phases, forecast over time, losses."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from grokwatch.replay import Replay
from grokwatch.report._facts import milestones, strips
from grokwatch.report._panels import accuracies, expected_step, frame, losses
from grokwatch.report._style import COLOURS, note
from grokwatch.report.demo_table import forecasts


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
    figure.text(0.09, 0.955, title, fontsize=16, fontweight="bold", color=COLOURS["ink"])
    figure.text(0.09, 0.93, subtitle, fontsize=10, color=COLOURS["muted"])
    for axes, draw in zip(panels, (accuracies, expected_step, losses), strict=True):
        frame(axes, replayed)
        draw(axes, replayed)
    for axes in panels[:-1]:
        axes.tick_params(labelbottom=False)
    _name_first_forecast(panels[1], replayed)
    _name_phases(panels[0], replayed)
    panels[-1].set_xlabel("optimiser step (log scale)")
    return figure


def _name_first_forecast(axes: Axes, replayed: Replay) -> None:
    foreseen = forecasts(replayed.verdicts)
    if not foreseen or foreseen[0].eta is None:
        return
    step, median = foreseen[0].step, foreseen[0].eta[1]
    ceiling = axes.get_ylim()[1]
    start = (step, min(median, ceiling / 1.3))
    axes.plot(*start, "o" if start[1] == median else "^", color=COLOURS["forecast"], markersize=7,
              zorder=5)  # fmt: skip
    label = f"first forecast\n{median:,.0f}, at step {step:,.0f}"
    note(axes, label, start, (-10, 0), "forecast", ha="right", va="center")


def _name_phases(axes: Axes, replayed: Replay) -> None:
    """Write t2 and t4, and over them the phases, above the top panel."""
    above = blended_transform_factory(axes.transData, axes.transAxes)
    first, last = axes.get_xlim()
    for phase, start, end in strips(replayed, first, last):
        if math.log(end / start) > 0.1 * math.log(last / first):  # else the name does not fit
            axes.text(math.sqrt(start * end), 1.08, phase, transform=above, ha="center",
                      color=COLOURS["muted"], fontsize=10)  # fmt: skip
    for name, step in milestones(replayed).items():
        if name in ("t2", "t4"):
            axes.text(step, 1.02, f"{name} = {step:,.0f}", transform=above, ha="center",
                      color=COLOURS["ink"], fontsize=10)  # fmt: skip
