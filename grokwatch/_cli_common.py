"""What the commands share: options, errors, and text that is safe on a terminal."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from grokwatch._run import column_order
from grokwatch.forecast.base import Forecaster
from grokwatch.records import FORMATS, Run
from grokwatch.verdict import STOPS, Recommendation, Verdict, check_stop_on

RunPath = Annotated[Path, typer.Argument(help="A record, a log file, or a folder of these.")]
Budget = Annotated[int | None, typer.Option(help="Optimiser steps the run may take.")]
Chance = Annotated[float | None, typer.Option(help="Accuracy of guessing, 0..1.")]
Unit = Annotated[str, typer.Option(help="Of accuracies: fraction (0..1) or percent.")]
StopOn = Annotated[
    str, typer.Option(help="Recommendations that give exit status 3, comma-separated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="OURS=THEIRS",
        help="What the file calls a measurement (or step), as val_loss=valid/nll; repeatable.",
    ),
]
Format = Annotated[
    str | None, typer.Option("--format", help=f"Instead of guessing: {', '.join(FORMATS)}.")
]
ForecastFile = Annotated[
    Path | None, typer.Option("--forecast", help="Parameters of a forecast, as JSON.")
]
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
    budget: int | None,
    chance: float | None,
    accuracy_unit: str,
    mapping: list[str] | None,
    format: str | None,
    forecast: Path | None,
    stop_on: str = ALL_STOPS,
) -> Reading:
    """The options, checked.

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


def cell(text: object) -> Text:
    """A table's cell that shows the text as it is."""
    return Text(safe(text))


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


def as_line(kind: str, verdict: Verdict, **more: Any) -> dict[str, Any]:
    """A verdict as the object of one JSON line."""
    return {"type": kind, **more, **verdict.as_dict()}
