"""``grokwatch replay RUN``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from grokwatch._cli_common import (
    ALL_STOPS,
    AsJson,
    BadInputError,
    Budget,
    Chance,
    ForecastFile,
    Format,
    Map,
    RunPath,
    StopOn,
    Unit,
    as_line,
    describe_run,
    reading,
)
from grokwatch._cli_timeline import print_timeline
from grokwatch.records import read_run
from grokwatch.replay import replay


def replay_command(
    run: RunPath,
    budget: Budget = None,
    chance: Chance = None,
    accuracy_unit: Unit = "fraction",
    mapping: Map = None,
    format: Format = None,
    name: Annotated[
        str | None, typer.Option("--run", help="Which run, where a file holds several.")
    ] = None,
    forecast: ForecastFile = None,
    stop_on: StopOn = ALL_STOPS,
    as_json: AsJson = False,
) -> None:
    """Judge a recorded run as if it were live: every verdict change, and the last verdict.

    Reads grokwatch's records, CSV and JSON lines, Lightning's and openai/grok's metrics.csv,
    trainer_state.json, TensorBoard event files, exports of W&B and MLflow, and folders of these.
    Exit status: 0 fine, 2 bad input, 3 stopping is recommended.

    For example:

      grokwatch replay runs/mod97

      grokwatch replay lightning_logs/version_3 --budget 50000 --chance 0.0103

      grokwatch replay log.csv --map val_loss=valid/nll --map step=iteration --json
    """
    options = reading(
        budget=budget,
        chance=chance,
        accuracy_unit=accuracy_unit,
        mapping=mapping,
        format=format,
        forecast=forecast,
        stop_on=stop_on,
    )
    try:
        record = read_run(run, format=options.format, names=options.names, run=name)
        result = replay(record, source=str(run), **options.settings)
    except (TypeError, ValueError) as error:
        raise BadInputError(str(error)) from error
    if as_json:
        lines = [describe_run(record), *(as_line("change", v) for v in result.changes())]
        for line in [*lines, as_line("final", result.final)]:
            typer.echo(json.dumps(line, allow_nan=False))
    else:
        print_timeline(result)
    raise typer.Exit(3 if result.final.recommendation in options.stops else 0)
