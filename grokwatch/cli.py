"""The command line: ``grokwatch demo``, ``grokwatch replay RUN``.

Exit status: 0 fine, 2 bad input (one line on standard error), 3 stopping is recommended.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from grokwatch._version import __version__
from grokwatch.news import headline
from grokwatch.replay import Replay, replay
from grokwatch.verdict import STOPS, check_stop_on

app = typer.Typer(
    name="grokwatch",
    help="Will this run generalise, when, and should it be stopped?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


class BadInputError(Exception):
    """Something the user gave cannot be used; the message says what."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"grokwatch {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Seed of data split and weights.")] = 0,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda, mps.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for figure, record and TensorBoard.")] = Path(
        "grokwatch-demo"
    ),
    no_stop: Annotated[bool, typer.Option("--no-stop", help="Train on to the budget.")] = False,
) -> None:
    """Train a small network until it groks, and watch it do so (about a minute)."""
    from grokwatch.demo import run_demo

    raise typer.Exit(run_demo(seed=seed, device=device, out=out, stop=not no_stop))


@app.command("replay")
def replay_command(
    run: Annotated[Path, typer.Argument(help="A .jsonl or .csv record, or a log folder.")],
    budget: Annotated[int | None, typer.Option(help="Steps the run may take.")] = None,
    chance: Annotated[float | None, typer.Option(help="Accuracy of guessing, 0..1.")] = None,
    accuracy_unit: Annotated[str, typer.Option(help="fraction (0..1) or percent.")] = "fraction",
    stop_on: Annotated[
        str, typer.Option(help="Recommendations that give exit status 3, comma-separated.")
    ] = ",".join(STOPS),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Judge a recorded run as if it were live.

    Example:  grokwatch replay runs/mod97 --budget 50000
    """
    settings: dict[str, Any] = {"accuracy_unit": accuracy_unit}
    if budget is not None:
        settings["budget"] = budget
    if chance is not None:
        settings["chance"] = chance
    try:
        counts = check_stop_on([name.strip() for name in stop_on.split(",") if name.strip()])
        result = replay(run, **settings)
    except (TypeError, ValueError) as error:
        raise BadInputError(str(error)) from error
    if as_json:
        for verdict in result.changes():
            typer.echo(json.dumps({"type": "change", **verdict.as_dict()}, allow_nan=False))
        typer.echo(json.dumps({"type": "final", **result.final.as_dict()}, allow_nan=False))
    else:
        _print_timeline(result)
    raise typer.Exit(3 if result.final.recommendation in counts else 0)


def _print_timeline(result: Replay) -> None:
    console = Console()
    table = Table(title=escape(result.run.name), title_justify="left", box=None, pad_edge=False)
    for heading, justify in (("step", "right"), ("phase", "left"), ("P", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("expected", justify="right")
    table.add_column("what changed")
    before = None
    for verdict in result.changes():
        probability = "" if verdict.probability is None else f"{verdict.probability:.2f}"
        expected = "" if verdict.eta is None else f"{verdict.eta[1]:,.0f}"
        news = headline(before, verdict) or ""
        table.add_row(f"{verdict.step:,}", verdict.phase, probability, expected, escape(news))
        before = verdict
    console.print(table)
    final = result.final
    console.print(f"\nat step {final.step:,}: [bold]{final.recommendation}[/bold]", highlight=False)
    console.print(final.reason, highlight=False, markup=False)


def main() -> NoReturn:
    """Run the command line; bad input is one line on standard error and exit status 2."""

    def tell(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"grokwatch: {message}", file=sys.stderr)

    warnings.showwarning = tell
    try:
        status = app(standalone_mode=False)
    except (BadInputError, OSError) as error:
        status = _refuse(str(error))
    except typer.Abort:
        sys.exit(130)
    except Exception as error:  # of typer's own, all have this method, whichever click made them
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message().strip()  # empty when help was shown for want of arguments
        status = _refuse(f"{message} Try: grokwatch --help") if message else 0
    sys.exit(status or 0)


def _refuse(message: str) -> int:
    print(f"grokwatch: {message}", file=sys.stderr)
    return 2
