"""A study as one process sees it: the trials it runs, and what was learnt from those that ended."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grokwatch.forecast.learned import Forecast
from grokwatch.integrations._optuna_base import ENDED
from grokwatch.integrations._optuna_rows import PREFIX, rows
from grokwatch.integrations._sweep_options import SweepOptions, hyper_parameters
from grokwatch.integrations._sweep_rows import TrialRows
from grokwatch.integrations._sweep_trial import (
    TrialWatch,
    outcome,
    pack_forecast,
    unpack_forecast,
)
from grokwatch.integrations._sweep_trials import Faults
from grokwatch.state import take
from grokwatch.verdict import Verdict

log = logging.getLogger("grokwatch")

FORECAST, DECISION = f"{PREFIX}forecast", f"{PREFIX}decision"


@dataclass
class _Live:
    watch: TrialWatch
    taken: int  # rows of its log


class StudyWatch:
    """Watches the trials of one study that run in this process.

    All there is to know is in the storage: the rows of each trial, which forecast it began with,
    the verdict that ended it. Every process takes ended trials from there, in the order in which
    they ended, each once, and so comes to the same forecasts without talking to the others.

    Args:
        options: of the sweep.
        value: the measurement that Optuna's intermediate values are, for trials that report
            nothing else.
        faults: told of what fails.
    """

    def __init__(self, options: SweepOptions, value: str, faults: Faults) -> None:
        self._options, self._value, self._faults = options, value, faults
        self.sweep = options.sweep()
        self._live: dict[int, _Live] = {}
        self._added: set[int] = set()  # numbers of the trials that were taken
        self._stored: set[str] = set()  # forecasts this process has put into the storage

    def judge(self, study: Any, trial: Any) -> TrialWatch:
        """Take what a running trial has reported since the last time."""
        live = self._live.get(trial.number)
        if live is None:
            self.learn(study)
            live = self._live[trial.number] = _Live(self._begin(study, trial), 0)
        watch, before = live.watch, live.watch.stop
        log_rows = list(rows(trial.user_attrs, live.taken))
        live.taken += len(log_rows)
        if not live.taken:
            log_rows = self._plain_rows(trial, watch.last_step)
        for step, measured in log_rows:
            watch.take(step, measured)
        if watch.stop is not None and watch.stop is not before:
            self._tell(study, trial, watch, watch.stop)
        return watch

    def _plain_rows(self, trial: Any, after: int) -> list[tuple[int, dict[str, float]]]:
        """What a trial reported that knows nothing of grokwatch."""
        values = sorted(trial.intermediate_values.items())
        return [(step, {self._value: value}) for step, value in values if step > after]

    # -- a trial begins, and is to stop -------------------------------------------------------

    def _begin(self, study: Any, trial: Any) -> TrialWatch:
        forecast, version = self._forecast(study, trial)
        return TrialWatch(
            f"trial {trial.number}",
            self._options,
            hyper_parameters(trial.params, self._options.hyper, self._faults.no_key),
            forecast=forecast,
            version=version,
            control=self._is_control(trial),
            refuse=self._faults.refuse,
        )

    def _is_control(self, trial: Any) -> bool:
        return self.sweep is not None and self.sweep.is_control(_name(trial))

    def _forecast(self, study: Any, trial: Any) -> tuple[Forecast | None, int]:
        """The forecast a trial began with, from the storage if it goes on."""
        known = trial.user_attrs.get(FORECAST)
        base = self._options.forecast
        if known is not None:
            key, version = take(known, "key"), take(known, "version")
            if key is None:
                return base, version
            return unpack_forecast(json.loads(take(study.user_attrs, key)), base), version
        if self.sweep is None or not self.sweep.version:
            forecast, version, key = base, 0, None
        else:
            forecast, version = self.sweep.forecast, self.sweep.version
            text = json.dumps(pack_forecast(forecast, base), separators=(",", ":"))
            # Named after its content: whoever writes it, and how often, it is the same.
            key = f"{FORECAST}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
            if key not in self._stored:
                study.set_user_attr(key, text)
                self._stored.add(key)
        _set(study, trial, FORECAST, {"version": version, "key": key})
        return forecast, version

    def _tell(self, study: Any, trial: Any, watch: TrialWatch, verdict: Verdict) -> None:
        told = "would be pruned, but is of the control arm" if watch.control else "is pruned"
        log.info("%s %s at step %s: %s", watch.name, told, f"{verdict.step:,}", verdict.reason)
        decision = {"control": watch.control, "at": watch.last_step, **verdict.as_dict()}
        _set(study, trial, DECISION, decision)

    # -- trials that ended ----------------------------------------------------------------------

    def learn(self, study: Any) -> None:
        """Take the trials that have ended since the last time, in any process."""
        ended = []
        for trial in study.get_trials(deepcopy=False):
            if trial.state.is_finished():
                self._live.pop(trial.number, None)
                if trial.state in ENDED and trial.number not in self._added:
                    ended.append(trial)
        for trial in sorted(ended, key=lambda trial: (trial.datetime_complete, trial.number)):
            self._added.add(trial.number)
            if self.sweep is not None:
                with self._faults.guard("the sweep's forecast"):
                    self._add(trial)

    def _add(self, trial: Any) -> None:
        kept = TrialRows(self._options.percent, lambda name, error: None)  # told while it ran
        for step, measured in list(rows(trial.user_attrs)) or self._plain_rows(trial, -1):
            kept.take(step, measured)
        if kept.last < 0 or self.sweep is None:  # a trial without reports
            return
        hyper = hyper_parameters(trial.params, self._options.hyper)
        run = kept.run(f"trial {trial.number}", {**hyper, **self._options.settings})
        decision: Mapping[str, Any] | None = trial.user_attrs.get(DECISION)
        stop, control = None, self._is_control(trial)
        # Unless the objective did not heed it, or the decision is of the trial's earlier life.
        if decision is not None and (control or kept.last == take(decision, "at")):
            stop = Verdict.from_dict(decision)
        if self.sweep.add(run, name=_name(trial), **outcome(stop, control)):
            version, report = self.sweep.version, self.sweep.report()
            log.info("the sweep's forecast is now version %d. %s", version, report)


def _name(trial: Any) -> str:
    """What decides on the control arm; a trial that is tried again stays in it, or out of it."""
    return str(trial.system_attrs.get("failed_trial", trial.number))


def _set(study: Any, trial: Any, key: str, value: Any) -> None:
    # Optuna gives a pruner a copy of the trial; its own pruners write to the storage as well.
    study._storage.set_trial_user_attr(trial._trial_id, key, value)
    trial.user_attrs[key] = value
