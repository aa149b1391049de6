"""A run in a few words: what was read, and the last verdict as a row of a table."""

from __future__ import annotations

from typing import Any

from grokwatch._run import Run, column_order
from grokwatch.replay import Replay

#: Column -> how it is shown.
COLUMNS = {
    "run": "{}",
    "steps": "{:,.0f}",
    "phase": "{}",
    "recommendation": "{}",
    "probability": "{:.2f}",
    "eta": "{:,.0f}",
    "t2": "{:,.0f}",
    "t4": "{:,.0f}",
    "gap": "{:.1f}",
    "val_accuracy": "{:.3f}",
    "spikes": "{:.0f}",
}


def summary_row(result: Replay) -> dict[str, Any]:
    """What :data:`COLUMNS` hold for a run; None = not known."""
    final, signals = result.final, result.final.signals
    t2, t4 = signals.get("t2"), signals.get("t4")
    return {
        "run": result.run.name,
        "steps": result.run.last_step,
        "phase": final.phase,
        "recommendation": final.recommendation,
        "probability": final.probability,
        "eta": None if final.eta is None else final.eta[1],
        "t2": t2,
        "t4": t4,
        "gap": t4 / t2 if t2 and t4 is not None else None,
        "val_accuracy": signals.get("val_accuracy"),
        "spikes": signals.get("spikes"),
    }


def describe_run(run: Run) -> dict[str, Any]:
    """What there was to go on: format, settings, and how often each measurement came."""
    columns = {}
    for name in column_order(run.columns):
        steps, _ = run.columns[name]
        if len(steps):
            every = int(steps[-1] - steps[0]) // max(len(steps) - 1, 1)
            columns[name] = {
                "points": len(steps),
                "first": int(steps[0]),
                "last": int(steps[-1]),
                "every": every,
            }
    return {
        "type": "run",
        "name": run.name,
        "format": run.source.get("format"),
        "settings": dict(run.settings),
        "columns": columns,
        "names": dict(run.source.get("names", {})),
        "basis": list(run.source.get("basis", [])),
    }
