"""``grokwatch watch PATH``: follows what is being written, by judging it anew as it grows.

Judging anew costs a fraction of a second a million rows and gives exactly what a replay would,
whatever the order in which a logger writes its curves, and after a run was taken back and resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from grokwatch._cli_common import (
    AsJson,
    BadInputError,
    Reading,
    RunPath,
    print_line,
    print_verdict,
    safe,
    takes_reading,
    told_once,
)
from grokwatch._cli_timeline import figures, news, print_basis, print_final
from grokwatch._summary import describe_run
from grokwatch.records import RecordError, read_run
from grokwatch.replay import Replay, replay
from grokwatch.verdict import Verdict

_SHARE = 10  # of the time, at most one part in so many goes into reading


@takes_reading(stops=True)
def watch_command(
    options: Reading,
    path: RunPath,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.01)] = 2.0,
    idle: Annotated[
        float | None, typer.Option(help="End after so many seconds without anything new.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow a run that is being written; end when stopping is recommended.

    Prints each verdict change as it comes. Ctrl-C ends it too. It only reads: stopping the
    training is left to you. Exit status: 0 ended, 2 bad input, 3 stopping is recommended.

    For example:

      grokwatch watch runs/mod97 --budget 50000

      grokwatch watch train_log.jsonl --budget 50000 --json && echo "still going"
    """
    if not path.exists():
        raise BadInputError(f"{path}: no such file or folder.")
    follower = _Follower(path, options, as_json)
    try:
        follower.follow(every, idle, time.monotonic, time.sleep)
    except KeyboardInterrupt:
        pass
    final = follower.finish()
    raise typer.Exit(3 if final is not None and final.recommendation in options.stops else 0)


class _Follower:
    """Tells what is new since the last look."""

    def __init__(self, path: Path, options: Reading, as_json: bool) -> None:
        self.path, self.options, self.as_json = path, options, as_json
        self.console = Console()
        self.result: Replay | None = None
        self._told: list[Verdict] = []
        self._warned: set[str] = set()
        self._trouble: str | None = None

    def follow(
        self,
        every: float,
        idle: float | None,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        """Look again and again until a stop is recommended or nothing has come for long."""
        before: Any = None
        changed = clock()
        while True:
            now = clock()
            state = _state(self.path)
            fresh = state != before
            if fresh:
                before, changed = state, now
            if fresh or self._trouble is not None:
                self.look()
                if self.result and self.result.final.recommendation in self.options.stops:
                    return
            if idle is not None and now - changed >= idle:
                return
            sleep(max(every, _SHARE * (clock() - now)))

    def look(self) -> None:
        """Read all there is, and tell the verdict changes that are new.

        Raises:
            BadInputError: input that was as bad the last time: nobody is in the middle of a write.
        """
        options = self.options
        try:
            with told_once(self._warned):
                run = read_run(self.path, format=options.format, names=options.names, growing=True)
                if run.last_step < 0:
                    return
                self.result = replay(run, source=str(self.path), **options.settings)
        except RecordError as error:
            if self._trouble == str(error) and not _nothing_yet(self.path):
                raise BadInputError(str(error)) from error
            self._trouble = str(error)
            return
        except (TypeError, ValueError) as error:
            raise BadInputError(str(error)) from error
        self._trouble = None
        self._tell(self.result)

    def _tell(self, result: Replay) -> None:
        changes = result.changes()
        same = 0
        for old, new in zip(self._told, changes, strict=False):
            if (old.step, old.phase, old.recommendation) != (
                new.step,
                new.phase,
                new.recommendation,
            ):
                break
            same += 1
        if not self._told:
            if self.as_json:
                print_line(describe_run(result.run))
            else:
                print_basis(result.run, self.console)
        for index in range(same, len(changes)):
            self._print(changes[index - 1] if index else None, changes[index])
        self._told = changes

    def _print(self, before: Verdict | None, verdict: Verdict) -> None:
        if self.as_json:
            print_verdict("change", verdict)
            return
        probability, expected = figures(verdict)
        extra = f" P={probability}" if probability else ""
        extra += f" expect ~{expected}" if expected else ""
        what = news(before, verdict)
        self.console.print(f"[dim]step {verdict.step:,}[/dim]{extra} {what}", highlight=False)

    def finish(self) -> Verdict | None:
        """Tell the last verdict."""
        if self.result is None:
            if self._trouble is not None and not _nothing_yet(self.path):
                raise BadInputError(self._trouble)
            if not self.as_json:
                self.console.print(f"{safe(self.path)}: nothing has been logged yet", markup=False)
            return None
        final = self.result.final
        if self.as_json:
            print_verdict("final", final)
        else:
            print_final(final, self.console)
        return final


def _state(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of every file; a change means that something was written."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    found = []
    for file in files:
        try:
            about = file.stat()
        except OSError:
            continue
        found.append((str(file), about.st_size, about.st_mtime_ns))
    return found


def _nothing_yet(path: Path) -> bool:
    """Whether a run could still begin here: an empty file, or a folder without readable files."""
    if path.is_file():
        return path.stat().st_size == 0
    known = (".csv", ".jsonl", ".json")
    return not any(
        file.suffix in known or "tfevents" in file.name
        for file in path.rglob("*")
        if file.is_file()
    )
