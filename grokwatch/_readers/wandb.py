"""What W&B exports as CSV: a chart of one run or several, or a run's history.

A chart: its x axis, then for every curve ``run - metric`` and the least and largest value of what
was thinned into each point, ``...__MIN`` and ``...__MAX``; a run's own page leaves out the run. If
the axis is not the step, ``run - _step`` may be there. A history (``run.history()`` or
``scan_history()`` through pandas): ``_step``, ``_runtime``, ``_timestamp`` and the metrics.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from grokwatch._readers.names import plain
from grokwatch._readers.steps import steps_of_rows
from grokwatch._readers.table import Table
from grokwatch._readers.tidy import Logged, Options, brief, make_run
from grokwatch._run import RecordError, Run

SAMPLED = (
    "W&B thins its charts and run.history(): what happened between the points, spikes above all, "
    "is not seen; scan_history() gives them all"
)
_BETWEEN = " - "
_EXTREMES = ("__MIN", "__MAX")


def is_wandb(header: Collection[str]) -> bool:
    """Whether a header is one that W&B writes.

    >>> is_wandb(["Step", "a - loss", "a - loss__MIN", "a - loss__MAX"]), is_wandb(["_step", "x"])
    (True, True)
    >>> is_wandb(["Step", "loss", "loss__MIN", "loss__MAX"]), is_wandb(["step", "loss"])
    (True, False)
    """
    curves = [name for name in header if name][1:]
    return (
        "_step" in header
        or any(is_extreme(name, header) for name in header)
        or (bool(curves) and all(_BETWEEN in name for name in curves))
    )


def is_extreme(name: str, header: Collection[str]) -> bool:
    """Whether a column is the least or largest value of another one's points."""
    return name.endswith(_EXTREMES) and name[: -len(_EXTREMES[0])] in header


def is_chart(header: Collection[str]) -> bool:
    """Whether curves are named after their runs."""
    return "_step" not in header and any(_BETWEEN in name for name in header)


def refuse_several(path: Path, header: Collection[str]) -> None:
    """Raise for a table of several histories (``Runs.histories``): their steps would mix."""
    if "run_id" in header:
        raise RecordError(
            f"{path}:1: the column 'run_id' tells runs apart; write one file for each run."
        )


def read_chart(path: Path, table: Table, options: Options) -> list[Run]:
    """Read the runs of a chart.

    Raises:
        RecordError: no step, neither as the x axis nor with the run.
    """
    axis = options.names.get("step", table.header[0])
    if axis not in table.columns:
        raise RecordError(
            f"{path}:1: no column {axis!r} (--map step={axis}); found {brief(table.header)}."
        )
    by_axis = "step" in options.names or "step" in plain(axis)
    runs: dict[str, Logged] = {}
    for name, column in table.columns.items():
        run, between, metric = name.rpartition(_BETWEEN)
        if not between or name == axis or is_extreme(name, table.columns):
            continue
        if column.text is not None or plain(metric) in ("step", "_step"):
            continue
        own = f"{run}{_BETWEEN}_step"
        if not by_axis and own not in table.columns:
            raise RecordError(
                f"{path}:1: the chart's x axis is {axis!r}, not the step; export it over the "
                f"step, or pass --map step=COLUMN."
            )
        steps = steps_of_rows(path, table, axis if by_axis else own, column.rows)
        logged = runs.setdefault(run, Logged(path, run, {}, basis=[SAMPLED]))
        logged.columns[metric] = (steps, column.values, table.lines[column.rows])
    return [make_run(logged, options, "wandb") for logged in runs.values()]
