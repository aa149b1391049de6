"""The closing table of the demo: what happened, when, and how well it was foreseen."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.table import Table

from grokwatch.replay import Replay
from grokwatch.verdict import Verdict


def forecasts(verdicts: list[Verdict]) -> list[Verdict]:
    """Pick the verdicts that name an expected step while generalisation is still to come.

    >>> waiting = Verdict(5, "memorisation", 0.5, (6.0, 9.0, 12.0), "continue", "")
    >>> silent = Verdict(4, "memorisation", None, None, "continue", "")
    >>> done = Verdict(9, "generalised", 1.0, (8.0, 8.0, 8.0), "stop_generalised", "")
    >>> [verdict.step for verdict in forecasts([silent, waiting, done])]
    [5]
    """
    return [v for v in verdicts if v.eta is not None and v.phase not in ("generalised", "diverged")]


def forecast_error(forecast: float, truth: float) -> str:
    """Say how far a forecast was off, in per cent and in decades.

    >>> forecast_error(1200, 1000)
    '+20 % of t4, log10 +0.08'
    """
    percent = 100 * (forecast / truth - 1)
    return f"{percent:+.0f} % of t4, log10 {math.log10(forecast / truth):+.2f}"


def summary_table(replayed: Replay, seconds: float) -> Table:
    """Build the table.

    Args:
        replayed: the run and all its verdicts.
        seconds: wall-clock time the training took.

    Returns:
        A table for `rich.console.Console.print`.
    """
    final, signals = replayed.final, replayed.final.signals
    t2, t4 = signals.get("t2"), signals.get("t4")
    table = Table(title="What happened", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    table.add_row("memorised (t2)", _step(t2))
    table.add_row("generalised (t4)", _step(t4) + (f", {t4 / t2:.0f} x t2" if t2 and t4 else ""))
    foreseen = forecasts(replayed.verdicts)
    if foreseen and foreseen[0].eta is not None:
        first, (low, median, high) = foreseen[0], foreseen[0].eta
        table.add_row(
            "first forecast",
            f"at step {first.step:,}: t4 near {median:,.0f} ({low:,.0f} to {high:,.0f})",
        )
        if t4:
            table.add_row("its error", forecast_error(median, t4))
    else:
        table.add_row("first forecast", "none: never enough evidence")
    table.add_row("loss spikes", f"{signals.get('spikes', 0):.0f}")
    if "transition_time" in signals:
        table.add_row("erf fit of the jump", _erf(signals))
    steps = replayed.run.last_step
    table.add_row("time", f"{seconds:.1f} s, {steps / seconds:,.0f} steps/s")
    table.add_row("verdict", f"{final.recommendation}: {final.reason}")
    return table


def _step(step: float | None) -> str:
    return "not within the run" if step is None else f"step {step:,.0f}"


def _erf(signals: Mapping[str, float]) -> str:
    """The fitted jump; a value that could not be fitted is left out."""
    words = {
        "transition_time": "time {:,.0f}",
        "transition_sharpness": "sharpness {:.2g} per step",
        "transition_r2": "R² {:.4f}",
    }
    return ", ".join(text.format(signals[name]) for name, text in words.items() if name in signals)
