"""A scheduler that stops trials on grokwatch's verdict and leaves the rest to another one."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grokwatch.integrations._raytune_base import FIFOScheduler, TrialScheduler

if TYPE_CHECKING:
    from grokwatch.integrations.raytune import GrokWatchStopper

STATE = "grokwatch-sweep.json"
_EVERY = 10.0  # seconds between two saves, as Tune's own
_SHARE = 19.0  # a save may take a twentieth of the time, as Tune's own


class GrokWatchScheduler(TrialScheduler):  # type: ignore[misc]
    """Stops what the stopper would stop; all other decisions are another scheduler's.

    Beside ``RunConfig(stop=stopper)`` there is no need of it: a stopper works with any scheduler.
    It is for experiments whose ``stop=`` is taken, and it sees how trials end that others stop.
    Tune does not save schedulers, so the state is kept in ``grokwatch-sweep.json`` in the
    experiment's folder, which Tune copies and brings back.

    Args:
        stopper: decides; do not give it to ``RunConfig(stop=...)`` as well.
        scheduler: makes the other decisions; None = first in, first out.
    """

    def __init__(self, stopper: GrokWatchStopper, scheduler: Any = None) -> None:
        super().__init__()
        self._stopper = stopper
        self._other = FIFOScheduler() if scheduler is None else scheduler
        self._loaded = False
        self._saved, self._took = 0.0, 0.0

    # -- decisions --------------------------------------------------------------------------------

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop, or what the other scheduler says."""
        # Tune hands a scheduler a flat copy; the configuration is the trial's own.
        stop = self._stopper(trial.trial_id, {**result, "config": trial.config})
        self._save(trial, ended=False)
        if stop:
            return str(TrialScheduler.STOP)
        return str(self._other.on_trial_result(tune_controller, trial, result))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial is new, or has been restored."""
        self._load(trial)
        self._other.on_trial_add(tune_controller, trial)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial has ended, whoever ended it."""
        # A result that says itself that it is the last one is not shown to a scheduler before.
        self._stopper(trial.trial_id, {**result, "config": trial.config, "done": True})
        self._save(trial, ended=True)
        self._other.on_trial_complete(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial has failed."""
        if self._stopper.trials is not None:
            self._stopper.trials.drop(trial.trial_id)
        self._other.on_trial_error(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """A trial that was not running is gone."""
        if self._stopper.trials is not None:
            self._stopper.trials.drop(trial.trial_id)
        self._other.on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The other scheduler's choice."""
        return self._other.choose_trial_to_run(tune_controller)

    def debug_string(self) -> str:
        """For Tune's progress output."""
        return f"grokwatch, then: {self._other.debug_string()}"

    @property
    def metric(self) -> Any:
        """The other scheduler's."""
        return self._other.metric

    @property
    def supports_buffered_results(self) -> bool:
        """The other scheduler's."""
        return bool(self._other.supports_buffered_results)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """The other scheduler's."""
        return bool(self._other.set_search_properties(metric, mode, **spec))

    # -- state ------------------------------------------------------------------------------------

    def _load(self, trial: Any) -> None:
        trials, first = self._stopper.trials, not self._loaded
        self._loaded = True
        if trials is None or not first:
            return
        with trials.faults.guard("restoring the sweep's state"):
            with contextlib.suppress(FileNotFoundError):  # a new experiment
                path = Path(trial.local_experiment_path) / STATE
                trials.load_state_dict(json.loads(path.read_text(encoding="utf-8")))

    def _save(self, trial: Any, ended: bool) -> None:
        trials, now = self._stopper.trials, time.monotonic()
        pause = _SHARE * self._took if ended else max(_EVERY, _SHARE * self._took)
        if trials is None or now - self._saved < pause:
            return
        with trials.faults.guard("saving the sweep's state"):
            path = Path(trial.local_experiment_path) / STATE
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".tmp")
            unfinished.write_text(json.dumps(trials.state_dict()), encoding="utf-8")
            unfinished.replace(path)
        self._saved = time.monotonic()
        self._took = self._saved - now
