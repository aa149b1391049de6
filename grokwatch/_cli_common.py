"""What the commands share: options, errors, and text that is safe on a terminal."""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from grokwatch._summary import describe_run
from grokwatch.forecast.base import Forecaster
from grokwatch.records import FORMATS
from grokwatch.replay import Replay
from grokwatch.verdict import STOPS, Recommendation, Verdict, check_stop_on

RunPath = Annotated[Path, typer.Argument(help="A record, a log file, or a folder of these.")]
RunPaths = Annotated[list[Path], typer.Argument(help="Records, log files, or folders of these.")]
OneRun = Annotated[str | None, typer.Option("--run", help="Which run, where a file holds several.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
ALL_STOPS = ",".join(STOPS)


class BadInputError(Exception):
    """Something the user gave cannot be used; the message says what."""


@dataclass(frozen=True)
class Reading:
    """How to read runs and what to tell the monitor, from the options."""

    format: str | None
    names: dict[str, str]
    settings: dict[str, Any]
    stops: tuple[Recommendation, ...]


def reading(
    *,
    budget: Annotated[int | None, typer.Option(help="Optimiser steps the run may take.")] = None,
    chance: Annotated[float | None, typer.Option(help="Accuracy of guessing, 0..1.")] = None,
    accuracy_unit: Annotated[
        str, typer.Option(help="Of accuracies: fraction (0..1) or percent.")
    ] = "fraction",
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="OURS=THEIRS",
            help="What the file calls a measurement (or step), as val_loss=valid/nll; repeatable.",
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help=f"Instead of guessing: {', '.join(FORMATS)}.")
    ] = None,
    forecast: Annotated[
        Path | None, typer.Option(help="Parameters of a forecast, as JSON.")
    ] = None,
    stop_on: Annotated[
        str, typer.Option(help="Recommendations that give exit status 3, comma-separated.")
    ] = ALL_STOPS,
) -> Reading:
    """The options that most commands have, checked.

    Raises:
        BadInputError: a map without "=", a forecast that cannot be read, an unknown stop.
    """
    names = {}
    for item in mapping or []:
        ours, equals, theirs = item.partition("=")
        if not equals or not ours.strip() or not theirs.strip():
            raise BadInputError(f"--map wants OURS=THEIRS, as val_loss=valid/nll, not {item!r}.")
        names[ours.strip()] = theirs.strip()
    settings: dict[str, Any] = {"accuracy_unit": accuracy_unit}
    settings |= {} if budget is None else {"budget": budget}
    settings |= {} if chance is None else {"chance": chance}
    if forecast is not None:
        settings["forecast"] = load_forecast(forecast)
    try:
        stops = check_stop_on([name.strip() for name in stop_on.split(",") if name.strip()])
    except ValueError as error:
        raise BadInputError(str(error)) from error
    return Reading(format, names, settings, stops)


def takes_reading(stops: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of :func:`reading`; it gets what that returns as ``options``.

    Args:
        stops: also ``--stop-on``.
    """
    asked = inspect.signature(reading, eval_str=True).parameters.values()
    shared = [option for option in asked if stops or option.name != "stop_on"]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def filled(**given: Any) -> None:
            told = {option.name: given.pop(option.name) for option in shared}
            command(options=reading(**told), **given)

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [
            part.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for part in [*own, *shared]
            if part.name != "options"
        ]
        # What typer looks at to tell what there is to parse.
        filled.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        filled.__annotations__ = {part.name: part.annotation for part in parameters}
        return filled

    return decorate


def load_forecast(path: Path) -> Forecaster:
    """A learned forecast from its file."""
    from grokwatch.forecast.learned import Forecast

    try:
        return Forecast.load(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        told = str(error)
        raise BadInputError(told if str(path) in told else f"{path}: {told}") from error


@contextmanager
def told_once(seen: set[str]) -> Iterator[None]:
    """Within it, a warning that differs from one in ``seen`` by numbers only is not shown."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def once(message: Warning | str, *rest: Any, **more: Any) -> None:
            what = re.sub(r"[\d,]+", "", str(message))
            if what not in seen:
                seen.add(what)
                show(message, *rest, **more)

        warnings.simplefilter("always")
        warnings.showwarning = once
        yield


def safe(text: object) -> str:
    r"""Text without anything a terminal would obey or cannot show.

    >>> safe("run\x1b[31m\n1")
    'run?[31m?1'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def for_shell(message: object) -> str:
    """A message in the words of the command line, fit to be shown there."""
    told = str(message)
    return safe(
        told.replace(
            "create the monitor with accuracy_unit='percent'", "pass --accuracy-unit percent"
        )
    )


def cell(text: object) -> Text:
    """A table's cell that shows the text as it is."""
    return Text(safe(text))


def print_line(line: dict[str, Any]) -> None:
    """Print one object as JSON."""
    typer.echo(json.dumps(line, allow_nan=False))


def print_verdict(kind: str, verdict: Verdict, **more: Any) -> None:
    """Print a verdict as the object of one JSON line."""
    print_line({"type": kind, **more, **verdict.as_dict()})


def print_comparison(result: Replay) -> None:
    """Print the last verdict of a run and what it rests on as one JSON line."""
    about = {key: value for key, value in describe_run(result.run).items() if key != "type"}
    print_verdict("comparison", result.final, run=about, steps=result.run.last_step)


def complain(error: Exception) -> None:
    """Tell on standard error what a run was left out for."""
    print(f"grokwatch: {for_shell(error)}", file=sys.stderr)
