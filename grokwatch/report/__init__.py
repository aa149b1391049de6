"""Figures of a run for papers, and a page of several runs worth sending to a colleague.

:func:`figures` gives matplotlib figures, :func:`html_report` one self-contained page; the command
line has both (``grokwatch report RUN... -o report.html --figures DIR``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grokwatch.records import Run
from grokwatch.replay import Replay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figures", "html_report"]


def figures(run: Replay | Run | str | Path, **settings: Any) -> dict[str, Figure]:
    """Draw everything that is known of a run, one figure a question.

    Args:
        run: a run, the path of anything :func:`grokwatch.records.read_run` reads, or a replay.
        **settings: of :class:`grokwatch.Monitor`, for the replay; they override the run's own.

    Returns:
        Name -> figure of 5.6 x 3.4 inches; of "accuracy", "loss", "probability", "eta",
        "transition", "spectral", "norms" and "curvature" those that there is something to draw
        for. ``figure.savefig("loss.pdf")`` needs no display. The y-range is that of the data, the
        step axis is logarithmic.

    Raises:
        RecordError: the run cannot be read.

    >>> run = Run({"train_loss": (range(1, 5), [1, .5, .25, .125])}, {"budget": 100})
    >>> drawn = figures(run)
    >>> list(drawn)
    ['loss']
    >>> drawn["loss"].savefig("loss.svg")  # doctest: +SKIP
    """
    from grokwatch.report._figures import draw_all
    from grokwatch.report._judged import judged

    return draw_all(judged(run, settings))


def html_report(
    runs: Sequence[Replay | Run | str | Path],
    *,
    progress: Callable[[str], object] | None = None,
    **settings: Any,
) -> str:
    """Write up runs as one HTML page that needs nothing else, no network either.

    Args:
        runs: at least one; see :func:`figures`.
        progress: called with the name of each run before it is drawn.
        **settings: of :class:`grokwatch.Monitor`, for the replays.

    Returns:
        The page; the same runs give the same page, character for character.

    Raises:
        ValueError: no runs.
        RecordError: a run cannot be read.

    >>> run = Run({"train_loss": ([1, 2], [1, .5])}, {"budget": 100}, name="<script>")
    >>> page = html_report([run])
    >>> "<h1>&lt;script&gt;</h1>" in page, "<h1><script>" in page
    (True, False)
    """
    from grokwatch.report._judged import judged
    from grokwatch.report._page import render

    if not runs:
        raise ValueError("a report needs at least one run.")
    return render([judged(run, settings) for run in runs], progress)
