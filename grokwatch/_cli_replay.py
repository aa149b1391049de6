"""``grokwatch replay RUN``."""

from __future__ import annotations

import typer

from grokwatch._ahead import judge_ahead
from grokwatch._cli_common import (
    AsJson,
    BadInputError,
    OneRun,
    Reading,
    RunPath,
    print_line,
    print_verdict,
    takes_reading,
)
from grokwatch._cli_timeline import print_timeline
from grokwatch._readers.tidy import Options
from grokwatch._summary import describe_run
from grokwatch.records import read_run
from grokwatch.replay import Replay, replay


@takes_reading(stops=True)
def replay_command(
    options: Reading, run: RunPath, name: OneRun = None, as_json: AsJson = False
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
    try:
        told = Options(options.names)
        ahead = judge_ahead(run, options.settings, told, options.format) if name is None else None
        if ahead is not None:
            result = Replay(*ahead)
        else:
            record = read_run(run, format=options.format, names=options.names, run=name)
            result = replay(record, source=str(run), **options.settings)
    except (TypeError, ValueError) as error:
        raise BadInputError(str(error)) from error
    if as_json:
        print_line(describe_run(result.run))
        for verdict in result.changes():
            print_verdict("change", verdict)
        print_verdict("final", result.final)
    else:
        print_timeline(result)
    raise typer.Exit(3 if result.final.recommendation in options.stops else 0)
