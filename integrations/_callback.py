"""What the callbacks of trainers share: a monitor made once the trainer knows its settings."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn, optim

from grokwatch.integrations._checks import check_follow
from grokwatch.integrations._clock import Clock
from grokwatch.integrations._curvature import Prober, Wanted
from grokwatch.integrations._drain import Drain
from grokwatch.integrations._going_on import KEPT, bring, next_check, settle
from grokwatch.integrations._outlet import RECORD, Destinations, Outlet, tell
from grokwatch.monitor import Monitor
from grokwatch.news import headline
from grokwatch.sinks import Sink
from grokwatch.state import take
from grokwatch.verdict import STOPS, Recommendation, Verdict, check_stop_on

__all__ = ["Follower", "next_check"]

log = logging.getLogger("grokwatch")

_NOTHING_YET = Verdict(0, "unknown", None, None, "continue", "Nothing observed yet.")


class Follower:
    """Follows one training run on behalf of a callback.

    Wrong arguments raise at once. The monitor is made by :meth:`start`; what comes before it, or
    after :meth:`close`, is left out. Then nothing raises unless ``on_error`` says so.

    Args:
        stop_on: recommendations that set :attr:`should_stop`.
        on_verdict: called with every verdict that is news.
        on_error: "warn" tells once, switches the part that failed off and lets training go on;
            "raise" raises.
        norms_every: cadence of norms in optimiser steps; 0 measures none.
        curvature: measure it too, see :class:`Prober`.
        settings: of :class:`grokwatch.Monitor`, as the user gave them; None = not given.
    """

    def __init__(
        self,
        *,
        stop_on: Sequence[Recommendation] = STOPS,
        on_verdict: Callable[[Verdict], object] | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        norms_every: int = 50,
        curvature: Wanted = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error must be 'warn' or 'raise' but got {on_error!r}.")
        check_follow(norms_every, on_verdict)
        self._given = {name: v for name, v in (settings or {}).items() if v is not None}
        Monitor(**{"budget": 1, **self._given})  # raises for a wrong setting
        self._stop_on = check_stop_on(stop_on)
        self._on_verdict, self._raises = on_verdict, on_error == "raise"
        self._norms_every, self.curvature = norms_every, Prober(curvature)
        self._state: dict[str, Any] | None = None  # loaded, waiting for the start
        self._verdict = _NOTHING_YET
        self._begin()

    def _begin(self) -> None:
        self._outlet: Outlet | None = None
        self._failed = False
        self.settings: dict[str, Any] = {}  # in force, once started
        self._closed = False
        self._known: Verdict | None = None  # the verdict a resumed run began with
        self._probed = 0  # optimiser steps seen by the probe before the start
        self._clock: Clock | None = None

    # -- a run ----------------------------------------------------------------------------------

    def start(
        self,
        inferred: Mapping[str, Any],
        *,
        log_dir: str | Path | None = None,
        tensorboard: bool = False,
        notes: Mapping[str, Any] | None = None,
        sinks: Mapping[str, Callable[[], Sink]] | None = None,
    ) -> None:
        """Begin a run, or go on from the state loaded last.

        Args:
            inferred: settings of the monitor found in the trainer (None = unknown); what the
                user gave comes first. A budget must be among them or given.
            log_dir: folder for the record (and TensorBoard events); None writes nothing. One
                that holds a record already is left alone, see :class:`Destinations`.
            tensorboard: write TensorBoard events into ``log_dir``.
            notes: for the record, plain JSON-able Python.
            sinks: name -> what makes a further sink, such as one that feeds the trainer's log.
        """
        with self.guard():
            self._leave()
            self._begin()
            state, self._state = self._state, None
            self.settings = settings = settle(inferred, self._given, state)
            percent = settings.get("accuracy_unit") == "percent"
            monitor = Monitor(**{k: v for k, v in settings.items() if k != "accuracy_unit"})
            folder = None if log_dir is None else Path(log_dir)
            kept, others = {**self.curvature.notes, **(notes or {})}, dict(sinks or {})
            where = Destinations(folder, tensorboard, False, settings, kept, others)
            self._outlet = Outlet(monitor, where, self._news, percent, raises=self._raises)
            self._drain = Drain(self._outlet.submit, self._outlet.refuse)
            if state is not None:
                self._resume(self._outlet, state)

    def _resume(self, outlet: Outlet, state: dict[str, Any]) -> None:
        written, closed = take(state, "outlet"), take(state, "closed")
        probed, record = take(state, "probed"), take(state, "record")
        row, folder = take(written, "row"), take(written, "folder")
        outlet.monitor.load_state_dict(take(state, "monitor"))
        outlet.resume((row[0], row[1]), folder)
        self._drain.restart(closed)
        self._probed, self._known = probed, outlet.monitor.verdict
        if outlet.destinations.log_dir is not None and record is not None:
            bring(Path(record), outlet.destinations.log_dir / RECORD)

    def measure_norms(self, model: nn.Module, optimizer: optim.Optimizer) -> None:
        """Measure norms of the model when this optimizer steps, until :meth:`close`."""
        if self.works and self._norms_every:
            with self.guard("norms"):
                every, fault = self._norms_every, lambda part, error: self.fault(error, part)
                self._clock = Clock(model, [optimizer], every, lambda: self.works, fault)
                self._clock.restart(0, self._probed)

    # -- measurements ---------------------------------------------------------------------------

    def train(self, step: int, loss: Any = None, accuracy: Any = None, **others: Any) -> None:
        """Take a training batch; those of one optimiser step are averaged, on their device."""
        if self.works:
            with self.guard():
                measured = {"train_loss": loss, "train_accuracy": accuracy, **others}
                if self.curvature.measured:
                    measured = {**self.curvature.row(), **measured}
                if self._clock is not None and self._clock.measured:
                    measured = {**self._clock.norms(), **measured}
                self._drain.train(step, measured)

    def observe(self, step: int, **measurements: Any) -> None:
        """Take any measurement of the monitor (None = not measured) and judge all there is."""
        if self.works:
            with self.guard():
                self._drain.now(step, measurements)

    def flush(self) -> Verdict:
        """Judge everything handed over; batches still to come for this step are left out."""
        if self.works:
            with self.guard():
                self._drain.flush(everything=True)
        return self.verdict

    # -- answers --------------------------------------------------------------------------------

    @property
    def works(self) -> bool:
        """Whether a run is followed: started, not closed, nothing failed, no probe under way."""
        outlet, off = self._outlet, self._closed or self._failed or self.curvature.busy
        return outlet is not None and not off and outlet.works()

    @property
    def waiting(self) -> bool:
        """Whether a state has been loaded that the next start goes on from."""
        return self._state is not None

    @property
    def verdict(self) -> Verdict:
        """The latest verdict; before the start the one of a loaded state."""
        return self._verdict if self._outlet is None else self._outlet.monitor.verdict

    @property
    def should_stop(self) -> bool:
        """Whether a verdict of this process recommends stopping on a ground in ``stop_on``."""
        # What a resumed run begins with does not count: a stop could not be undone otherwise.
        verdict, known = self.verdict, self._known
        return self.works and verdict is not known and verdict.recommendation in self._stop_on

    @property
    def log_dir(self) -> Path | None:
        """The folder written to; settled with the first row."""
        return None if self._outlet is None else self._outlet.destinations.log_dir

    # -- faults ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def guard(self, part: str = "monitor") -> Iterator[None]:
        """Run what a callback does so that its failure is told once and training goes on."""
        try:
            yield
        except Exception as error:
            self.fault(error, part)

    def fault(self, error: Exception, part: str = "monitor") -> None:
        """Tell of an error and switch that part off, or raise it, as ``on_error`` says."""
        if self._raises:
            raise error
        if part != "monitor":
            (tell if self._outlet is None else self._outlet.fault)(part, error)
        elif not self._failed and (self._outlet is None or self._outlet.works()):
            self._failed = True
            tell(part, error)

    def _news(self, verdict: Verdict) -> None:
        log.info("step %s: %s", f"{verdict.step:,}", headline(None, verdict))
        if self._on_verdict is not None:
            self._on_verdict(verdict)

    # -- saved state ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state for a checkpoint, {} if there is none; writes the record."""
        if self._outlet is None:
            return dict(self._state or {})
        self.flush()
        folder = self.log_dir
        return {
            "settings": {name: self.settings[name] for name in KEPT if name in self.settings},
            "monitor": self._outlet.monitor_state(),
            "closed": self._drain.closed,
            "probed": self._probed if self._clock is None else self._clock.probed,
            "outlet": self._outlet.state_dict(),
            "record": None if folder is None else str((folder / RECORD).resolve()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep a saved state for the next :meth:`start`, which goes on from it."""
        with self.guard("saved state"):
            verdict = Verdict.from_dict(take(take(state, "monitor"), "verdict"))
            self._leave()
            self._outlet, self._state, self._verdict = None, dict(state), verdict

    def close(self) -> None:
        """Judge and write what is left, remove every hook; harmless if called twice."""
        with self.guard():
            self._leave()

    def _leave(self) -> None:
        self.curvature.close()
        if self._clock is not None:
            self._clock.close()
        if self._outlet is not None and not self._closed:
            self.flush()
            self._closed = True
            self._outlet.close()
