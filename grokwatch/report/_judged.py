"""Runs as a report wants them: judged, with the settings they were judged by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from grokwatch.records import SETTINGS, Run, read_run
from grokwatch.replay import Replay, replay


def judged(
    run: Replay | Run | str | Path, settings: dict[str, Any], source: str | None = None
) -> Replay:
    """Replay a run, unless it was; what it shows is what it was judged by.

    Raises:
        TypeError: settings for a run that was replayed without them.
        RecordError: the run cannot be read.

    >>> run = Run({"val_accuracy": ([1], [50.0])}, {"budget": 10})
    >>> replayed = judged(run, {"budget": 20, "accuracy_unit": "percent"})
    >>> replayed.run.settings, replayed.run.columns["val_accuracy"][1].tolist()
    ({'budget': 20}, [0.5])
    """
    if isinstance(run, Replay):
        if settings:
            raise TypeError(f"settings {sorted(settings)} do not reach a run already replayed.")
        return run
    if not isinstance(run, Run):
        source = source or str(run)
        run = read_run(run)
    settings = dict(settings)
    columns = run.columns
    if settings.get("accuracy_unit") == "percent":
        settings["accuracy_unit"] = "fraction"
        columns = {
            name: (steps, _share(values) if name.endswith("_accuracy") else values)
            for name, (steps, values) in columns.items()
        }
    kept = {name: value for name, value in settings.items() if name in SETTINGS}
    run = replace(run, columns=columns, settings={**run.settings, **kept})
    return replay(run, source=source, **settings)


def _share(percentages: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, Any]:
    """As the one door divides them: in double precision, then rounded."""
    return (percentages.astype(np.float64) / 100.0).astype(np.float32)
