"""The command line: ``grokwatch demo | replay | watch | compare | report | fit``.

Exit status: 0 fine, 2 bad input (one line on standard error), 3 stopping is recommended.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from grokwatch._cli_common import BadInputError, for_shell, safe
from grokwatch._cli_compare import compare_command
from grokwatch._cli_fit import fit_command
from grokwatch._cli_replay import replay_command
from grokwatch._cli_report import report_command
from grokwatch._cli_watch import watch_command
from grokwatch._version import __version__

app = typer.Typer(
    name="grokwatch",
    help="Will this run generalise, when, and should it be stopped?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


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


# One file a command.
app.command("replay")(replay_command)
app.command("watch")(watch_command)
app.command("compare")(compare_command)
app.command("report")(report_command)
app.command("fit")(fit_command)


def main() -> NoReturn:
    """Run the command line; bad input is one line on standard error and exit status 2."""

    def tell(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, (DeprecationWarning, PendingDeprecationWarning)):
            return  # what one package says to the writers of another
        print(f"grokwatch: {safe(message)}", file=sys.stderr)

    warnings.showwarning = tell
    try:
        status = app(standalone_mode=False)
    except BrokenPipeError:  # `| head`: nobody wants the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
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
    print(f"grokwatch: {for_shell(message)}", file=sys.stderr)
    return 2
