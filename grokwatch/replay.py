"""Judge a recorded run as if it were live: same observations, same verdicts, bit for bit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grokwatch._ahead import judge_ahead
from grokwatch._readers.tidy import Options, brief
from grokwatch.ingest import MEASUREMENTS
from grokwatch.monitor import Monitor
from grokwatch.news import changed
from grokwatch.records import RecordError, Run, read_run
from grokwatch.verdict import Verdict


@dataclass(frozen=True)
class Replay:
    """What a replay saw.

    Attributes:
        run: the run replayed.
        verdicts: every verdict formed, in step order, at most one a step.
    """

    run: Run
    verdicts: list[Verdict]

    @property
    def final(self) -> Verdict:
        """The last verdict."""
        return self.verdicts[-1]

    def changes(self) -> list[Verdict]:
        """The verdicts at which phase, recommendation, spike count or evidence changed."""
        kept: list[Verdict] = []
        for verdict in self.verdicts:
            if changed(kept[-1] if kept else None, verdict):
                kept.append(verdict)
        return kept


def replay(
    run: Run | str | Path,
    monitor: Monitor | None = None,
    *,
    source: str | None = None,
    **settings: Any,
) -> Replay:
    """Feed a recorded run through a monitor.

    Args:
        run: a run, or the path of anything :func:`grokwatch.records.read_run` reads.
        monitor: a fresh monitor to use; None = one made from the run's own settings.
        source: where the run comes from, for messages; None = the path, or the run's name.
        **settings: of :class:`Monitor`; they override the run's own. Without any budget the last
            recorded step is taken, with a warning.

    Raises:
        TypeError: a monitor as well as settings.
        RecordError: the record cannot be read, is empty, or holds an impossible measurement.

    >>> run = Run({"train_loss": (range(1, 5), [1, .5, .25, .125])}, {"budget": 100})
    >>> [verdict.step for verdict in replay(run).verdicts]
    [1, 2, 3, 4]
    """
    if monitor is not None and settings:
        raise TypeError(f"settings {sorted(settings)} do not reach a monitor that is given.")
    if isinstance(run, Run):
        where = source or run.name
    else:
        ahead = judge_ahead(Path(run), settings, Options()) if monitor is None else None
        if ahead is not None:
            return Replay(*ahead)
        where, run = source or str(run), read_run(run)
    if run.last_step < 0:
        raise RecordError(f"{where}: the record holds no observations.")
    if monitor is None:
        settings = {**run.settings, **settings}
        if "budget" not in settings:
            settings["budget"] = max(run.last_step, 1)
            warnings.warn(
                f"{where}: no budget is recorded; taking its last step, {run.last_step}. "
                f"Pass budget=... for a meaningful probability.",
                UserWarning,
                stacklevel=2,
            )
        try:
            monitor = Monitor(**settings)
        except (TypeError, ValueError) as error:
            _blame(run, where)
            raise error
    known = {*MEASUREMENTS, *monitor.extra_inputs}
    columns = {name: column for name, column in run.columns.items() if name in known}
    if not any(steps.size for steps, _ in columns.values()):
        raise RecordError(
            f"{where}: none of its columns is a measurement grokwatch knows: {brief(run.columns)}. "
            f"Name them: --map val_loss=COLUMN."
        )
    try:
        return Replay(run, monitor.extend(columns) or [monitor.verdict])
    except (TypeError, ValueError) as error:
        raise RecordError(f"{where}, {error}") from error


def _blame(run: Run, where: str) -> None:
    """Raise if it is the run's own settings that no monitor takes."""
    try:
        Monitor(**{"budget": 1, **run.settings})
    except (TypeError, ValueError) as error:
        raise RecordError(f"{where}: its settings cannot be: {error}") from error
