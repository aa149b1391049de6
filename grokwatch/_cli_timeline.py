"""Verdict changes as a table on the terminal, and what they rest on."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from grokwatch._cli_common import cell, safe
from grokwatch._summary import describe_run
from grokwatch.ingest import MEASUREMENTS
from grokwatch.news import headline
from grokwatch.records import Run
from grokwatch.replay import Replay
from grokwatch.verdict import Verdict


def print_timeline(result: Replay, console: Console | None = None) -> None:
    """Print the verdict changes, the final verdict, and what there was to go on."""
    console = console or Console()
    table = Table(title=cell(result.run.name), title_justify="left", box=None, pad_edge=False)
    table.add_column("step", justify="right")
    table.add_column("phase")
    table.add_column("P", justify="right")
    table.add_column("expected", justify="right")
    table.add_column("what changed")
    before = None
    for verdict in result.changes():
        table.add_row(f"{verdict.step:,}", verdict.phase, *figures(verdict), news(before, verdict))
        before = verdict
    console.print(table)
    print_basis(result.run, console)
    print_final(result.final, console)


def figures(verdict: Verdict) -> tuple[str, str]:
    """Probability and expected step as text; empty = not known."""
    probability = "" if verdict.probability is None else f"{verdict.probability:.2f}"
    return probability, "" if verdict.eta is None else f"{verdict.eta[1]:,.0f}"


def news(before: Verdict | None, verdict: Verdict) -> str:
    """What changed, with nothing in it that a terminal would obey."""
    return safe(headline(before, verdict) or "").replace("[", "\\[")


def print_basis(run: Run, console: Console) -> None:
    """Print what the verdicts rest on."""
    about = describe_run(run)
    told = []
    for name, column in about["columns"].items():
        if name in MEASUREMENTS:
            theirs = about["names"].get(name)
            source = f" from {theirs!r}" if theirs else ""
            every = f"every ~{column['every']:,}" if column["every"] != 1 else "every step"
            often = f"{column['points']:,} points, {every}" if column["points"] > 1 else "1 point"
            told.append(f"{name}{source} ({often})")
    lines = [f"read as {about['format']}: {'; '.join(told)}", *about["basis"]]
    console.print()
    for line in lines:
        console.print(safe(line), style="dim", highlight=False, markup=False)


def print_final(final: Verdict, console: Console) -> None:
    """Print the last verdict."""
    console.print(f"\nat step {final.step:,}: [bold]{final.recommendation}[/bold]", highlight=False)
    console.print(safe(final.reason), highlight=False, markup=False)
