"""A forecast that learns from a sweep's own trials as they end, and checks itself.

A random share of the trials, the control arm, is never stopped: it says how many of those that
would have generalised are lost, and stands, in the next refit, for those that were stopped.
See docs/scaling.md.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import numpy as np

from grokwatch._sweep_record import Trial, pack, reduced, unpack
from grokwatch._sweep_report import SweepReport, report
from grokwatch._sweep_rules import loosened, rule, weights_of
from grokwatch.forecast._own_record import OwnRun, ranges, replay_one
from grokwatch.forecast.learned import Forecast, shipped
from grokwatch.forecast.own import adapted_to, check_enough, shipped_parameters
from grokwatch.monitor import Monitor
from grokwatch.records import Run
from grokwatch.state import decode, encode, take
from grokwatch.verdict import Verdict

STATE_VERSION = 1
_GROWTH = 0.1  # of the trials known: a refit costs as much as there are, so they get rarer

__all__ = ["SweepForecast", "SweepReport", "shuffled"]

T = TypeVar("T")


class SweepForecast:
    """A forecast that learns from a sweep's own finished runs, and checks itself.

    Args:
        base: what to begin with; None = the forecast that comes with grokwatch.
        control_fraction: share of the trials that are never stopped, 0..1.
        refit_every: trials that end between two refits, or a tenth of all, whichever is more.
        seed: decides which trials are in the control arm.
        thresholds: "inherited" = a stop's threshold on the probability stays the shipped one;
            "sweep" = it may rise with what became of the sweep's own trials, which certifies
            nothing.
        **settings: of :class:`Monitor`, common to all trials; a run's own go before them.

    Raises:
        ValueError: a share outside 0..1, or a setting outside its range.

    >>> sweep = SweepForecast(budget=1000, chance=0.1, control_fraction=0.25)
    >>> [name for name in "abcdefgh" if sweep.is_control(name)]
    ['h']
    >>> sweep.forecast is None, sweep.version, sweep.report().runs
    (True, 0, 0)
    """

    def __init__(
        self,
        base: Forecast | None = None,
        *,
        control_fraction: float = 0.1,
        refit_every: int = 10,
        seed: int = 0,
        thresholds: Literal["inherited", "sweep"] = "inherited",
        **settings: Any,
    ) -> None:
        if not 0.0 <= control_fraction <= 1.0:
            raise ValueError(f"control_fraction must lie in 0..1 but got {control_fraction}.")
        if refit_every < 1:
            raise ValueError(f"refit_every must be at least 1 trial but got {refit_every}.")
        if thresholds not in ("inherited", "sweep"):
            raise ValueError(f"thresholds must be 'inherited' or 'sweep' but got {thresholds!r}.")
        Monitor(**{"budget": 1, **settings})  # raises for a wrong setting
        self.control_fraction, self.refit_every, self.seed = control_fraction, refit_every, seed
        self.thresholds, self.settings = thresholds, settings
        self._rate = float(settings.get("max_kill_rate", 0.02))
        parameters = (shipped() if base is None else base).parameters
        self._parameters = shipped_parameters(parameters)
        self._base = Forecast(self._parameters)
        self._first = base
        self._told: set[str] = set()
        self._reset()

    def _reset(self) -> None:
        self.forecast: Forecast | None = self._first
        self.version = 0
        self._trials: dict[str, Trial] = {}
        self._left_out: set[str] = set()
        self._box = ranges([])
        self._waiting = 0  # trials that ended since the last refit
        self._fitted = 0  # trials there were then

    def is_control(self, name: str) -> bool:
        """Whether a trial is never stopped; every worker finds the same."""
        digest = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.control_fraction * 2.0**64

    def add(
        self,
        run: Run,
        *,
        name: str,
        stopped: Verdict | None = None,
        would_stop: Verdict | None = None,
    ) -> bool:
        """Take a trial that ended; adding a name again replaces it.

        Args:
            run: all that was measured.
            name: of the trial, as given to :meth:`is_control`.
            stopped: the verdict that ended it, if one did.
            would_stop: for a control run, the first verdict that would have.

        Returns:
            Whether the forecast was refitted.
        """
        trial = self._trial(run, name, stopped, would_stop)
        if isinstance(trial, str):
            self._trials.pop(name, None)
            self._left_out.add(name)
            self._tell(trial)
            return False
        return self._take(name, trial)

    def _take(self, name: str, trial: Trial) -> bool:
        self._trials.pop(name, None)
        self._left_out.discard(name)
        self._trials[name] = trial
        self._waiting += 1
        if self._waiting < max(self.refit_every, math.ceil(_GROWTH * self._fitted)):
            return False
        return self._refit()

    def _trial(
        self, run: Run, name: str, stopped: Verdict | None, would_stop: Verdict | None
    ) -> Trial | str:
        """What is kept of a run, or why it cannot be used."""
        settings = {**self.settings, **run.settings}
        if "budget" not in settings:
            return f"{name}: neither the run nor the sweep says what its budget is"
        try:
            found = replay_one(Run(run.columns, {}, name), settings)
        except (TypeError, ValueError) as error:
            return f"{name}: {error}"
        if isinstance(found, str):
            return found
        unpromising = stopped is not None and stopped.recommendation == "stop_unpromising"
        if unpromising and found.outcome == "never":
            found = OwnRun(**{**vars(found), "outcome": "cut short"})
        if found.outcome != "cut short":
            self._box = ranges([np.stack(self._box), found.x])
        return Trial(
            *reduced(self._base, found),
            self.is_control(name) and not unpromising,
            stopped.step if unpromising and stopped is not None else None,
            None if would_stop is None else would_stop.step,
        )

    def _tell(self, what: str) -> None:
        if not self._told:
            warnings.warn(
                f"a trial is left out of the sweep's forecast: {what}. Others like it will be "
                f"left out without a word; the report counts them.",
                RuntimeWarning,
                stacklevel=3,
            )
        self._told.add(what)

    def _refit(self) -> bool:
        trials = list(self._trials.values())
        runs = [trial.seen for trial in trials]
        try:
            check_enough(runs, [])
        except ValueError:
            return False  # until more have ended
        weights = weights_of(trials, self.control_fraction)
        adapted = adapted_to(self._parameters, runs, weights, self._box)
        del adapted["card"]["own_made"]  # same trials, same forecast: whatever the day
        estimate = self.thresholds == "sweep"
        self.forecast = Forecast(loosened(adapted, trials, weights, self._rate, estimate))
        self.version += 1
        self._waiting, self._fitted = 0, len(trials)
        return True

    def report(self) -> SweepReport:
        """Where the sweep stands."""
        parameters = None if self.forecast is None else self.forecast.parameters
        return report(
            list(self._trials.values()),
            left_out=len(self._left_out),
            rule=rule(parameters, self._rate),
            version=self.version,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as plain JSON-able Python; some 600 bytes a trial."""
        adapted = None
        if self.version and self.forecast is not None:
            adapted = {
                key: value
                for key, value in self.forecast.parameters.items()
                if value is not self._parameters.get(key)
            }
        return {
            "version": STATE_VERSION,
            "sweep": [self.control_fraction, self.refit_every, self.seed],
            "refits": self.version,
            "waiting": self._waiting,
            "fitted": self._fitted,
            "left_out": sorted(self._left_out),
            "box": [encode(side) for side in self._box],
            "adapted": adapted,
            "trials": pack(list(self._trials.values())),
            "keys": list(self._trials),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: another version, another control arm, or a missing key, which is named.
        """
        if take(state, "version") != STATE_VERSION:
            raise ValueError(
                f"the sweep was saved in version {state['version']}; this grokwatch reads "
                f"{STATE_VERSION}."
            )
        mine = [self.control_fraction, self.refit_every, self.seed]
        if list(take(state, "sweep")) != mine:
            raise ValueError(
                f"the sweep was saved with control_fraction, refit_every and seed "
                f"{state['sweep']}, but this one has {mine}; its control arm would be another."
            )
        trials = unpack(take(state, "trials"))
        low, high = (decode(side) for side in take(state, "box"))
        adapted = take(state, "adapted")
        forecast = self._first if adapted is None else Forecast({**self._parameters, **adapted})
        self.version, self._waiting, self._fitted = (
            int(take(state, key)) for key in ("refits", "waiting", "fitted")
        )
        self._left_out = set(take(state, "left_out"))
        self._trials = dict(zip(take(state, "keys"), trials, strict=True))
        self._box, self.forecast = (low, high), forecast


def shuffled(configs: Iterable[T], seed: int = 0) -> list[T]:
    """The configurations in random order, so that early trials stand for all.

    >>> shuffled(range(8))
    [2, 4, 3, 6, 5, 0, 1, 7]
    """
    listed = list(configs)
    return [listed[i] for i in np.random.default_rng(seed).permutation(len(listed))]
