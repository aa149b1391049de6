"""``grokwatch report RUN... -o report.html``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from grokwatch._cli_common import (
    AsJson,
    BadInputError,
    OneRun,
    Reading,
    RunPaths,
    complain,
    print_comparison,
    print_line,
    safe,
    takes_reading,
    told_once,
)
from grokwatch.records import read_runs
from grokwatch.replay import Replay

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@takes_reading(stops=True)
def report_command(
    options: Reading,
    runs: RunPaths,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "report.html"
    ),
    figures: Annotated[
        Path | None, typer.Option(help="Folder for every figure as PNG and SVG, for papers.")
    ] = None,
    name: OneRun = None,
    as_json: AsJson = False,
) -> None:
    """Write up recorded runs as one HTML page that needs no network.

    Verdict, figures, what a stop would have saved, every signal; of several runs also a summary
    that can be sorted. Exit status: 0 fine, 2 bad input (a run that cannot be read is told, the
    page has the others), 3 stopping is recommended on the only run there is.

    For example:

      grokwatch report runs/mod97

      grokwatch report runs/ -o sweep.html --budget 50000

      grokwatch report log.csv --map val_loss=valid/nll --figures figures/
    """
    _check_place(out)
    with told_once(set()):
        judged, failed = _judge(runs, options, name)
    if not judged:
        raise typer.Exit(2)
    page, written = _draw(judged, figures)
    out.write_text(page, encoding="utf-8", newline="\n")
    if as_json:
        for result in judged:
            print_comparison(result)
        files = [str(path) for path in written]
        print_line({"type": "report", "path": str(out), "figures": files})
    else:
        s = "s" if len(judged) > 1 else ""
        typer.echo(f"{safe(out)}: {len(judged)} run{s}, {len(page.encode()) / 1e6:.2f} MB")
        if figures is not None:
            typer.echo(f"{safe(figures)}: {len(written)} files")
    stop = len(judged) == 1 and judged[0].final.recommendation in options.stops
    raise typer.Exit(2 if failed else 3 if stop else 0)


def _check_place(out: Path) -> None:
    """Refuse a place that cannot be written to before the work is done."""
    if out.is_dir():
        raise BadInputError(f"{out}: is a folder; -o wants the name of a file.")
    if not out.parent.is_dir():
        raise BadInputError(f"{out}: there is no folder {out.parent}.")


def _judge(paths: list[Path], options: Reading, name: str | None) -> tuple[list[Replay], bool]:
    """Replay every run that can be read; whether any could not."""
    from grokwatch.report._judged import judged

    results: list[Replay] = []
    failed = False
    with _bar() as bar:
        for path in bar.track(paths, description="judging"):
            try:
                for run in read_runs(path, format=options.format, names=options.names, run=name):
                    source = f"{path} ({run.name})"
                    results.append(judged(run, options.settings, source))
            except (TypeError, ValueError) as error:
                failed = True
                complain(error)
    return results, failed


def _draw(judged: list[Replay], folder: Path | None) -> tuple[str, list[Path]]:
    """The page, and the figures that were written."""
    from grokwatch.report import figures, html_report

    written: list[Path] = []
    with _bar() as bar:
        task = bar.add_task("drawing", total=len(judged))

        def begun(name: str) -> None:
            bar.update(task, description=safe(f"drawing {name[:40]}"), advance=1)

        page = html_report(judged, progress=begun)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            stems = file_names([result.run.name for result in judged])
            for stem, result in zip(stems, judged, strict=True):
                drawn = figures(result)
                prefix = f"{stem}-" if len(judged) > 1 else ""
                for title, figure in drawn.items():
                    written += _save(figure, folder / f"{prefix}{title}")
    return page, written


@contextmanager
def _bar() -> Iterator[Progress]:
    """Progress on standard error, gone when done; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    # Older versions of rich end an unseen bar's line.
    with bar if console.is_terminal else nullcontext():
        yield bar


def _save(figure: Figure, stem: Path) -> list[Path]:
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    figure.savefig(paths[0], dpi=200)
    figure.savefig(paths[1])
    return paths


def file_names(names: list[str]) -> list[str]:
    """Names that any file system takes, no two of them the same.

    >>> file_names(["a/b", "../a b", "", "<script>"])
    ['a-b', 'a-b-2', 'run', 'script']
    """
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w.]+", "-", name).strip("-.")[:80] or "run"
        unique, number = plain, 1
        while unique.casefold() in {other.casefold() for other in found}:
            number += 1
            unique = f"{plain}-{number}"
        found.append(unique)
    return found
