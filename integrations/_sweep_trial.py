"""One trial of a sweep: its rows, its monitor, and whether it was, or would have been, stopped."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from grokwatch.forecast.learned import Forecast, shipped
from grokwatch.integrations._sweep_options import SweepOptions
from grokwatch.integrations._sweep_rows import Refuse, TrialRows
from grokwatch.monitor import Monitor
from grokwatch.records import Run
from grokwatch.state import take
from grokwatch.verdict import Verdict

log = logging.getLogger("grokwatch")


class TrialWatch:
    """Judges one trial from plain numbers; its rows are all the state there is.

    When a trial goes back, the rows that are left are judged anew, so that the verdicts are those
    of the rows that count, bit for bit.

    Args:
        name: of the trial.
        options: of the sweep.
        hyper: learning rate, weight decay and train fraction, as far as known.
        forecast: that of the moment the trial began; None = the shipped one.
        version: of that forecast.
        control: never stop it; remember when it would have been stopped.
        refuse: told of wrong measurements, which are left out from then on.
    """

    def __init__(
        self,
        name: str,
        options: SweepOptions,
        hyper: Mapping[str, float],
        *,
        forecast: Forecast | None = None,
        version: int = 0,
        control: bool = False,
        refuse: Refuse,
    ) -> None:
        self.name, self.version, self.control = name, version, control
        self.forecast = forecast
        self.settings = {**hyper, **options.settings}
        self.hyper = dict(hyper)
        self._options = options
        self._rows = TrialRows(options.percent, refuse)
        self._begin()

    def _begin(self) -> None:
        self.monitor = Monitor(**self.settings, forecast=self.forecast)
        self.monitor._analyzer.fits_jumps = False  # half of what a trial costs its watcher
        self.stop: Verdict | None = None  # the first verdict that recommends a stop

    @property
    def verdict(self) -> Verdict:
        """The latest verdict."""
        return self.monitor.verdict

    @property
    def last_step(self) -> int:
        """The last step reported; -1 = none yet."""
        return self._rows.last

    @property
    def should_stop(self) -> bool:
        """Whether the trial is to be stopped now."""
        return not self.control and self.verdict.recommendation in self._options.stop_on

    def take(self, step: int, measured: Mapping[str, Any]) -> Verdict:
        """Take what was measured at a step.

        Raises:
            TypeError, ValueError: a step that is none.
        """
        last = self.last_step
        back, new = self._rows.take(step, measured)
        if not back:
            self._note(self.monitor.update(step, **new))
            return self.verdict
        log.warning(
            "trial %s went back from step %s to %s; what it reported since is forgotten.",
            self.name, f"{last:,}", f"{step:,}",
        )  # fmt: skip
        self._judge_anew()
        return self.verdict

    def _judge_anew(self) -> None:
        self._begin()
        for verdict in self.monitor.extend(self.run().columns):
            self._note(verdict)

    def _note(self, verdict: Verdict) -> None:
        if self.stop is None and verdict.recommendation in self._options.stop_on:
            self.stop = verdict

    def run(self) -> Run:
        """Everything reported so far, accuracies as fractions."""
        return self._rows.run(self.name, self.settings)

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state."""
        return {
            "hyper": self.hyper,
            "control": self.control,
            "version": self.version,
            "forecast": pack_forecast(self.forecast, self._options.forecast),
            "rows": self._rows.state_dict(),
        }

    @classmethod
    def from_state(
        cls, name: str, options: SweepOptions, state: Mapping[str, Any], refuse: Refuse
    ) -> TrialWatch:
        """The trial that :meth:`state_dict` saved.

        Raises:
            ValueError: a missing key, which is named.
        """
        watch = cls(
            name,
            options,
            take(state, "hyper"),
            forecast=unpack_forecast(take(state, "forecast"), options.forecast),
            version=take(state, "version"),
            control=take(state, "control"),
            refuse=refuse,
        )
        watch._rows.load_state_dict(take(state, "rows"))
        watch._judge_anew()
        return watch


def outcome(stop: Verdict | None, control: bool) -> dict[str, Verdict | None]:
    """What :meth:`SweepForecast.add` is told of a trial's first stop verdict.

    Of the control arm only the unpromising count: nothing is lost with the others.
    """
    would = stop if stop is not None and stop.recommendation == "stop_unpromising" else None
    return {"would_stop": would} if control else {"stopped": stop}


def pack_forecast(forecast: Forecast | None, base: Forecast | None) -> dict[str, Any] | None:
    """What of a forecast's parameters differs from those of the one it was adapted from.

    The trees, by far the most of it, do not change in a refit.

    >>> pack_forecast(None, None) is None, pack_forecast(shipped(), None)
    (True, {})
    """
    if forecast is None:
        return None
    told = (base or shipped()).parameters
    return {
        key: value
        for key, value in forecast.parameters.items()
        if key not in told or (value is not told[key] and value != told[key])
    }


def unpack_forecast(delta: Mapping[str, Any] | None, base: Forecast | None) -> Forecast | None:
    """The inverse of :func:`pack_forecast`."""
    return None if delta is None else Forecast({**(base or shipped()).parameters, **delta})
