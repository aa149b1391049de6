"""``grokwatch compare RUN...``."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from grokwatch._cli_common import (
    AsJson,
    BadInputError,
    Budget,
    Chance,
    ForecastFile,
    Format,
    Map,
    Unit,
    as_line,
    cell,
    describe_run,
    reading,
    safe,
)
from grokwatch.records import read_runs
from grokwatch.replay import Replay, replay

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


def compare_command(
    runs: Annotated[list[Path], typer.Argument(help="Records, log files, or folders of these.")],
    sort: Annotated[
        str, typer.Option(help=f"{', '.join(COLUMNS)}; a leading - turns the order round.")
    ] = "run",
    budget: Budget = None,
    chance: Chance = None,
    accuracy_unit: Unit = "fraction",
    mapping: Map = None,
    format: Format = None,
    forecast: ForecastFile = None,
    as_json: AsJson = False,
) -> None:
    """Judge several recorded runs and set their last verdicts side by side.

    t2 is the step at which training accuracy reached .99, t4 that at which validation accuracy
    reached .95 for good, gap = t4 / t2. A run that cannot be read is told on standard error, the
    others are shown, and the exit status is 2; otherwise it is 0.

    For example:

      grokwatch compare runs/

      grokwatch compare a.csv b.csv lightning_logs --sort -t4 --budget 50000
    """
    key = sort.removeprefix("-")
    if key not in COLUMNS:
        raise BadInputError(f"--sort knows {', '.join(COLUMNS)}, not {sort!r}.")
    options = reading(
        budget=budget,
        chance=chance,
        accuracy_unit=accuracy_unit,
        mapping=mapping,
        format=format,
        forecast=forecast,
    )
    judged: list[tuple[dict[str, Any], Replay]] = []
    failed = False
    for path in runs:
        try:
            for run in read_runs(path, format=options.format, names=options.names):
                result = replay(run, source=f"{path} ({run.name})", **options.settings)
                judged.append((_row(result), result))
        except (TypeError, ValueError) as error:
            failed = True
            print(f"grokwatch: {safe(error)}", file=sys.stderr)
    judged.sort(key=lambda item: _rank(item[0][key], sort.startswith("-")))
    if as_json:
        for _, result in judged:
            about = {k: v for k, v in describe_run(result.run).items() if k != "type"}
            line = as_line("comparison", result.final, run=about, steps=result.run.last_step)
            typer.echo(json.dumps(line, allow_nan=False))
    elif judged:
        _print([row for row, _ in judged])
    raise typer.Exit(2 if failed else 0)


def _row(result: Replay) -> dict[str, Any]:
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


def _rank(value: Any, descending: bool) -> tuple[bool, Any]:
    """Sort key; what is not known comes last either way."""
    if isinstance(value, str):
        return False, tuple(-ord(letter) for letter in value) if descending else value
    if value is None or math.isnan(value):
        return True, 0.0
    return False, -value if descending else value


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        words = name in ("run", "phase", "recommendation")
        title = {"probability": "P", "val_accuracy": "val acc"}.get(name, name)
        table.add_column(title, justify="left" if words else "right", no_wrap=name != "run")
    for row in rows:
        table.add_row(
            *(
                cell("" if row[name] is None else shape.format(row[name]))
                for name, shape in COLUMNS.items()
            )
        )
    Console(width=None if Console().is_terminal else 160).print(table)  # a pipe has no width
