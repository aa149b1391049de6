"""A progress bar that says phase, probability and expected step; silent unless on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from grokwatch.verdict import Verdict

_COLOURS = {
    "confusion": "yellow",
    "memorisation": "magenta",
    "transition": "cyan",
    "generalised": "green",
    "ungrokked": "red",
    "diverged": "red",
}


class ConsoleSink:
    """Shows the latest verdict beside a progress bar.

    Args:
        budget: steps that make a full bar.
        console: where to draw; None = standard error.
    """

    def __init__(self, budget: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("watching", total=budget)
        if self.console.is_terminal:
            self._progress.start()

    def observe(self, step: int, measured: dict[str, float]) -> None:
        """See :class:`grokwatch.sinks.Sink`."""
        self._progress.update(self._task, completed=step)

    def verdict(self, verdict: Verdict, news: str | None) -> None:
        """See :class:`grokwatch.sinks.Sink`; news is printed above the bar."""
        self._progress.update(self._task, description=describe(verdict))
        if news is not None and self.console.is_terminal:
            line = f"[dim]step {verdict.step:,}[/dim] {escape(news)}"
            self._progress.print(line, highlight=False)

    def flush(self) -> None:
        """See :class:`grokwatch.sinks.Sink`."""

    def close(self) -> None:
        """See :class:`grokwatch.sinks.Sink`."""
        if self.console.is_terminal:  # elsewhere older versions of rich end an unseen bar's line
            self._progress.stop()


def describe(verdict: Verdict) -> str:
    """One line of rich markup: phase, probability, expected step.

    >>> describe(Verdict(9, "memorisation", 0.8, (10, 20, 30), "continue", ""))
    '[magenta]memorisation[/] P=0.80 expect ~20'
    """
    text = f"[{_COLOURS.get(verdict.phase, 'white')}]{verdict.phase}[/]"
    if verdict.phase in ("generalised", "diverged"):
        return text
    if verdict.probability is not None:
        text += f" P={verdict.probability:.2f}"
    if verdict.eta is not None:
        text += f" expect ~{verdict.eta[1]:,.0f}"
    return text
