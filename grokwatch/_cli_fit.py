"""``grokwatch fit RUN... -o mine.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from grokwatch._cli_common import (
    BadInputError,
    Reading,
    RunPaths,
    complain,
    print_line,
    safe,
    takes_reading,
)
from grokwatch.records import Run, read_runs


@takes_reading()
def fit_command(
    options: Reading,
    runs: RunPaths,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the forecast.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Adapt the forecast to your own finished runs; 30 are enough to help, never to certify.

    Runs that were cut short, by hand or by grokwatch, tell only that they had not generalised by
    then. Use the result with `--forecast` of the other commands or Monitor(forecast=...). A run
    that cannot be read is told on standard error and left out. Exit status: 0 fine, 2 bad input,
    too few finished runs, or only one outcome.

    For example:

      grokwatch fit runs/ -o mine.json

      grokwatch fit a.csv b.csv lightning_logs -o mine.json --budget 50000 --chance 0.0103
    """
    from grokwatch.forecast.learned import Forecast, shipped

    settings = dict(options.settings)
    base = cast(Forecast, settings.pop("forecast", None) or shipped())
    found: list[Run] = []
    for path in runs:
        try:
            found += read_runs(path, format=options.format, names=options.names)
        except ValueError as error:
            complain(error)
    try:
        fitted = Forecast.fit(found, base=base, **settings)
    except (TypeError, ValueError) as error:
        raise BadInputError(str(error)) from error
    fitted.save(out)
    if as_json:
        print_line({"type": "fit", "out": str(out), **about(fitted.parameters)})
    else:
        _print(out, about(fitted.parameters))


def about(parameters: Any) -> dict[str, Any]:
    """What there was to learn from, and what changed."""
    card, own = parameters["card"], parameters["own"]
    return {
        "runs": card["own_runs"],
        "outcomes": card["own_outcomes"],
        "slope": own["slope"],
        "intercept": own["intercept"],
        "weight": dict(zip(own["terms"], own["weight"], strict=True)),
        "shift": own["shift"],
        "memorised_by": own["memorised_by"],
        "thresholds": card["own_thresholds"],
    }


def _print(out: Path, told: dict[str, Any]) -> None:
    counts = ", ".join(f"{count} {what}" for what, count in told["outcomes"].items() if count)
    weights = {name: weight for name, weight in told["weight"].items() if weight}
    lines = [
        f"{told['runs']} runs: {counts}",
        f"log-odds: {told['slope']:.2f} times the shipped ones {told['intercept']:+.2f}",
        f"time of generalisation: {10 ** told['shift']:.2f} times the shipped one",
    ]
    if weights:
        terms = ", ".join(f"{name.replace('_', ' ')} {w:+.2f}" for name, w in weights.items())
        lines.insert(2, f"log-odds for one standard deviation more: {terms}")
    if told["memorised_by"] is not None:
        lines.append(
            f"a run that has not learnt its training set by step {told['memorised_by']:,} may be "
            f"stopped too"
        )
    lines += [
        "kill thresholds: inherited, so few runs cannot certify their own",
        f"wrote {out}; use it: grokwatch replay RUN --forecast {out}, or "
        f'Monitor(forecast=Forecast.load("{out}"))',
    ]
    for line in lines:
        typer.echo(safe(line))
