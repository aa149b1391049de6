"""From finished rows to monitor, sinks and alerts; what fails is told once and switched off."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import scipy.optimize  # the fit of a jump needs it: not in the middle of a training
import scipy.special  # noqa: F401

from grokwatch.ingest import LAST_STEP, MEASUREMENTS, StepError, check_step
from grokwatch.integrations._deferred import at_once, deferred
from grokwatch.integrations._destinations import RECORD, Destinations
from grokwatch.integrations._distributed import rank
from grokwatch.integrations._sieve import Sieve
from grokwatch.integrations._warn import warn
from grokwatch.monitor import Monitor
from grokwatch.news import headline
from grokwatch.sinks import Sink
from grokwatch.verdict import Verdict

__all__ = ["RECORD", "Destinations", "Outlet", "tell"]


class Outlet:
    """Takes finished rows; never raises unless asked to.

    Args:
        monitor: judges the rows; takes accuracies as fractions.
        destinations: where to write.
        on_verdict: called with every verdict that is news.
        percent: accuracies arrive as 0..100.
        raises: raise what fails instead.
    """

    def __init__(
        self,
        monitor: Monitor,
        destinations: Destinations,
        on_verdict: Callable[[Verdict], object] | None = None,
        percent: bool = False,
        raises: bool = False,
    ) -> None:
        self.monitor, self.destinations = monitor, destinations
        self._on_verdict, self._raises = on_verdict, raises
        self._sieve = Sieve(MEASUREMENTS.keys() | monitor.extra_inputs, self.refuse, percent)
        self._off: set[str] = set()
        self._sinks: dict[str, Sink] | None = None  # made with the first row
        self._resumed: tuple[int, list[str]] | None = None
        self._told: Verdict | None = None
        self._row: tuple[int, set[str]] = (-1, set())  # what was measured at the last step
        self._may_go_back = False  # right after a resume
        self._process = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this is a copy in a child process."""
        return os.getpid() != self._process

    def works(self, part: str = "monitor") -> bool:
        """Whether nothing has failed in that part."""
        return part not in self._off

    def submit(self, step: int, measured: Mapping[str, Any]) -> None:
        """Take one finished row."""
        if "monitor" in self._off:
            return
        try:
            row = self._sieve.good(measured)
            if not row:  # nothing measured is nothing observed
                return
            self._check_step(step)
            row = self._sieve.first_of(step, row)
            verdict = self._judge(step, row)
            if not self._repeats:
                self._publish(step, self._new(step, row), verdict)
        except Exception as error:
            self.fault("monitor", error)

    @property
    def _repeats(self) -> bool:
        """Whether rows are those from before a resume, which are on record."""
        return "judging" not in self._off and self.monitor.catching_up

    def _check_step(self, step: int) -> None:
        if step > LAST_STEP:
            check_step(step)  # raises, before anything remembers that step
        may_go_back, self._may_go_back = self._may_go_back or self._repeats, False
        last = self._row[0] if "judging" in self._off else self.monitor.last_step
        if last is not None and step < last and not may_go_back:
            raise StepError(f"step went backwards from {last} to {step}; steps may only grow.")

    def _judge(self, step: int, row: dict[str, float]) -> Verdict:
        """The verdict on a row; if judging fails, what is observed is written all the same."""
        if "judging" not in self._off:
            try:
                return self.monitor.update(step, **row)
            except StepError:
                raise
            except Exception as error:
                self.fault("judging", error)
        return self.monitor.verdict

    def _new(self, step: int, row: dict[str, float]) -> dict[str, float]:
        """The row without what came before for the same step, as the monitor takes it."""
        if step != self._row[0]:
            self._row = (step, set(row))
            return row
        new = {name: value for name, value in row.items() if name not in self._row[1]}
        self._row[1].update(new)
        return new

    def _publish(self, step: int, row: dict[str, float], verdict: Verdict) -> None:
        if self._sinks is None:
            self._sinks = self._make_sinks()
        fresh = verdict is not self._told
        if not (fresh or self._sinks):
            return
        news = headline(self._told, verdict) if fresh else None
        self._told = verdict
        for name, sink in list(self._sinks.items()):
            try:
                sink.observe(step, row)
                if fresh:
                    sink.verdict(verdict, news)
            except Exception as error:
                self._drop(name, error)
        # Last, since it may save a checkpoint, and with it submit the rows that wait.
        if news is not None and self._on_verdict is not None and self.works("on_verdict"):
            try:
                with at_once():
                    self._on_verdict(verdict)
            except Exception as error:
                self.fault("on_verdict", error)

    def _make_sinks(self) -> dict[str, Sink]:
        if rank():  # one writer in a distributed run
            return {}
        if self._resumed is None:
            try:
                self.destinations.claim()
            except Exception as error:
                self.fault("log_dir", error)
                self.destinations.log_dir = None
        sinks: dict[str, Sink] = {}
        for name, make in self.destinations.makers(self._resumed).items():
            if self.works(name):
                try:
                    sinks[name] = make()
                except Exception as error:
                    self.fault(name, error)
        return sinks

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same record."""
        folder = self.destinations.log_dir
        self.flush()
        return {
            "row": [self._row[0], sorted(self._row[1])],
            "folder": None if folder is None else folder.name,
        }

    def resume(self, row: tuple[int, list[str]], folder: str | None) -> None:
        """Go on, in the same record, from the state that the monitor has just loaded."""
        if self._sinks is None:
            self.destinations.reclaim(folder)
        self.close()
        self._sinks, self._resumed = None, row
        self._row = (row[0], set(row[1]))
        self._may_go_back = True
        self._told = self.monitor.verdict

    def flush(self) -> None:
        """Write what must not be lost."""
        with deferred():
            for name, sink in list((self._sinks or {}).items()):
                try:
                    sink.flush()
                except Exception as error:
                    self._drop(name, error)

    def close(self) -> None:
        """Close the sinks; rows that come later are judged, but written nowhere."""
        with deferred():
            sinks, self._sinks = self._sinks or {}, {}
            for name, sink in sinks.items():
                try:
                    sink.close()
                except Exception as error:
                    self.fault(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        sink = (self._sinks or {}).pop(name, None)
        self.fault(name, error)
        if sink is not None:
            with contextlib.suppress(Exception):
                sink.close()

    def refuse(self, name: str, error: Exception) -> None:
        """Take no more of one measurement that was wrong."""
        self._sieve.refused.add(name)
        self.fault(f"measurement {name}", error)

    def fault(self, part: str, error: Exception) -> None:
        """Tell once, then leave that part off; training must go on."""
        if self._raises:
            raise error
        if part == "monitor" and isinstance(error, StepError):  # costs what came with it, no more
            if "step" not in self._off:
                self._off.add("step")
                warn(f"a row is left out, as every row of a wrong step will be: {error}")
        elif part not in self._off:
            self._off.add(part)
            tell(part, error)

    def monitor_state(self) -> dict[str, Any] | None:
        """The monitor's state for a checkpoint; None, and told, if it cannot be had."""
        try:
            return self.monitor.state_dict()
        except Exception as error:
            self.fault("saving the monitor", error)
            return None


def tell(part: str, error: Exception) -> None:
    """Warn of what has failed."""
    warn(f"{part} failed and is switched off, training goes on: {type(error).__name__}: {error}")
