"""``grokwatch compare RUN...``."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from grokwatch._cli_common import (
    AsJson,
    BadInputError,
    Reading,
    RunPaths,
    cell,
    complain,
    print_comparison,
    takes_reading,
)
from grokwatch._summary import COLUMNS, summary_row
from grokwatch.records import read_runs
from grokwatch.replay import Replay, replay


@takes_reading()
def compare_command(
    options: Reading,
    runs: RunPaths,
    sort: Annotated[
        str, typer.Option(help=f"{', '.join(COLUMNS)}; a leading - turns the order round.")
    ] = "run",
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
    judged: list[tuple[dict[str, Any], Replay]] = []
    failed = False
    for path in runs:
        try:
            for run in read_runs(path, format=options.format, names=options.names):
                result = replay(run, source=f"{path} ({run.name})", **options.settings)
                judged.append((summary_row(result), result))
        except (TypeError, ValueError) as error:
            failed = True
            complain(error)
    judged.sort(key=lambda item: _rank(item[0][key], sort.startswith("-")))
    if as_json:
        for _, result in judged:
            print_comparison(result)
    elif judged:
        _print([row for row, _ in judged])
    raise typer.Exit(2 if failed else 0)


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
