"""The trials of a sweep that one process watches, and the forecast they share."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grokwatch.integrations._sweep_options import SweepOptions, hyper_parameters
from grokwatch.integrations._sweep_trial import TrialWatch, outcome
from grokwatch.integrations._warn import calm, warn
from grokwatch.state import take
from grokwatch.sweeps import SweepReport
from grokwatch.verdict import Verdict

log = logging.getLogger("grokwatch")

STATE_VERSION = 1
DECISIONS = "grokwatch-decisions.jsonl"


class Faults:
    """Tells once of each part that fails; nothing inside :meth:`guard` raises."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    @contextlib.contextmanager
    def guard(self, part: str) -> Iterator[None]:
        """Tell of what fails inside instead of raising it."""
        try:
            with calm():
                yield
        except Exception as error:
            self.tell(part, error)

    def tell(self, part: str, error: Exception) -> None:
        """Warn, once a part."""
        self.once(
            part,
            f"{part} failed and is left out, the sweep goes on: {type(error).__name__}: {error}",
        )

    def once(self, about: str, message: str) -> None:
        """Warn of something once."""
        if about not in self._told:
            self._told.add(about)
            warn(message)

    def refuse(self, name: str, error: Exception) -> None:
        """Tell of a measurement that is wrong."""
        self.tell(f"measurement {name}", error)

    def no_key(self, key: str, there: Any) -> None:
        """Tell of a hyper-parameter that is not where the user said."""
        self.once(
            f"hyper {key}",
            f"hyper names {key!r}, which is no number of the trial's configuration; there are: "
            f"{', '.join(map(repr, there)) or 'none'}. It counts as not known.",
        )


class Trials:
    """Watches trials as their results arrive; may be saved and go on.

    Args:
        options: of the sweep.
        log_dir: folder for the decisions, one JSON object a line; None writes none.
    """

    def __init__(self, options: SweepOptions, log_dir: str | Path | None = None) -> None:
        self.options, self.faults = options, Faults()
        self.log_dir = None if log_dir is None else Path(log_dir)
        self.sweep = options.sweep()
        self._live: dict[str, TrialWatch] = {}
        self._given_up: set[str] = set()  # live trials whose monitor failed

    def take(
        self, name: str, step: int, measured: Mapping[str, Any], config: Mapping[str, Any]
    ) -> TrialWatch | None:
        """Take a result of a trial; None if its monitor has failed.

        Args:
            name: of the trial.
            step: optimiser step.
            measured: measurement -> value.
            config: its hyper-parameters, looked at when it is new.
        """
        if name in self._given_up:
            return None
        with self.faults.guard("the monitor of a trial"):
            watch = self._live.get(name)
            if watch is None:
                watch = self._live[name] = self._begin(name, config)
            before = watch.stop
            watch.take(step, measured)
            if watch.stop is not None and before is None:
                self._tell_stop(watch, watch.stop)
            return watch
        self._live.pop(name, None)
        self._given_up.add(name)
        return None

    def _begin(self, name: str, config: Mapping[str, Any]) -> TrialWatch:
        hyper = hyper_parameters(config, self.options.hyper, self.faults.no_key)
        sweep = self.sweep
        return TrialWatch(
            name,
            self.options,
            hyper,
            forecast=self.options.forecast if sweep is None else sweep.forecast,
            version=0 if sweep is None else sweep.version,
            control=sweep is not None and sweep.is_control(name),
            refuse=self.faults.refuse,
        )

    def _tell_stop(self, watch: TrialWatch, verdict: Verdict) -> None:
        told = "would be stopped, but is of the control arm" if watch.control else "is stopped"
        log.info(
            "trial %s %s at step %s: %s", watch.name, told, f"{verdict.step:,}", verdict.reason
        )
        kind = "would_stop" if watch.control else "stop"
        about = {"forecast": watch.version, "hyper": watch.hyper, "verdict": verdict.as_dict()}
        self._write({"type": kind, "trial": watch.name, **about})

    def end(self, name: str) -> None:
        """A trial has come to its end: learn from it."""
        self._given_up.discard(name)
        watch = self._live.pop(name, None)
        if watch is None:
            return
        report = None
        with self.faults.guard("the sweep's forecast"):
            report = self._learn(watch)
        ended = {"step": watch.last_step, "phase": watch.verdict.phase, "sweep": report}
        self._write({"type": "end", "trial": name, **ended})

    def _learn(self, watch: TrialWatch) -> dict[str, Any] | None:
        if self.sweep is None:
            return None
        verdicts = outcome(watch.stop, watch.control)
        refitted = self.sweep.add(watch.run(), name=watch.name, **verdicts)
        report = self.sweep.report()
        if refitted:
            log.info("the sweep's forecast is now version %d. %s", self.sweep.version, report)
        return report.as_dict()

    def drop(self, name: str) -> None:
        """A trial is gone without an end, as after an error: forget it."""
        self._given_up.discard(name)
        self._live.pop(name, None)

    @property
    def live(self) -> list[str]:
        """The trials that have begun and not ended."""
        return list(self._live)

    def report(self) -> SweepReport | None:
        """What has come of the trials that ended; None if the sweep does not learn."""
        return None if self.sweep is None else self.sweep.report()

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.log_dir is None:
            return
        with self.faults.guard("the log of decisions"):
            self.log_dir.mkdir(parents=True, exist_ok=True)
            with (self.log_dir / DECISIONS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, separators=(",", ":")) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state: what was learnt, and the rows of the live trials."""
        return {
            "version": STATE_VERSION,
            "sweep": None if self.sweep is None else self.sweep.state_dict(),
            "live": {name: watch.state_dict() for name, watch in self._live.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: another version, or a missing key, which is named.
        """
        if take(state, "version") != STATE_VERSION:
            raise ValueError(
                f"the saved sweep is of version {state['version']}; this grokwatch reads "
                f"{STATE_VERSION}."
            )
        learnt = take(state, "sweep")
        if self.sweep is not None and learnt is not None:
            self.sweep.load_state_dict(learnt)
        self._live = {
            name: TrialWatch.from_state(name, self.options, saved, self.faults.refuse)
            for name, saved in take(state, "live").items()
        }
