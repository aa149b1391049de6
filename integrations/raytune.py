"""Stop Ray Tune's trials on grokwatch's verdict, and learn from those that end.

    stopper = GrokWatchStopper(budget=20_000, chance=1 / 97)
    tuner = tune.Tuner(train, param_space=..., run_config=tune.RunConfig(stop=stopper))

The trials report as they always do, the step among it:
``tune.report({"step": step, "train_loss": ..., "val_accuracy": ...})``. Tune calls a stopper in the
driver alone, so the monitors and the forecast they share live there; nothing runs in the workers.
Tune saves the stopper with the experiment's state, and ``Tuner.restore`` brings it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grokwatch.forecast.learned import Forecast
from grokwatch.integrations._raytune_base import Stopper
from grokwatch.integrations._raytune_results import Results
from grokwatch.integrations._raytune_scheduler import GrokWatchScheduler
from grokwatch.integrations._sweep_options import options
from grokwatch.integrations._sweep_trial import TrialWatch
from grokwatch.integrations._sweep_trials import Faults, Trials
from grokwatch.sweeps import SweepReport
from grokwatch.verdict import STOPS, Recommendation

__all__ = ["GrokWatchScheduler", "GrokWatchStopper"]


class GrokWatchStopper(Stopper):  # type: ignore[misc]
    """Ends trials that will not generalise within the budget, have generalised, or diverged.

    Every result gains ``grokwatch``: phase, probability, recommendation, reason, whether the trial
    is of the control arm, and which of the sweep's forecasts judges it. So the reason of a stop is
    in ``result.json``, ``progress.csv`` and ``Result.metrics``.

    Args:
        budget: optimiser steps a trial may take, in the unit of ``step``.
        step: key of the optimiser step in a result; None looks for one (``step``, ``global_step``,
            ...) and else takes ``training_iteration``, and says so.
        metrics: measurement -> key, as ``{"val_accuracy": "eval/acc"}``; others are looked for.
        hyper: ``learning_rate``, ``weight_decay``, ``train_fraction`` -> key in a trial's config;
            others are looked for, as ``lr`` or ``optimizer/lr``.
        stop_on: recommendations that end a trial.
        log_dir: folder for ``grokwatch-decisions.jsonl``: every stop with its verdict, every end
            with what has come of the sweep so far. None writes none.
        learn: refit the forecast on the sweep's own ended trials.
        control_fraction: share of trials that are never stopped, to estimate what stopping costs.
        refit_every: ended trials from one refit to the next.
        seed: of the control arm.
        forecast: what the sweep begins with; None = the one that comes along.
        **settings: of :class:`grokwatch.Monitor`, the same for all trials: chance, max_kill_rate,
            memorised_at, generalised_at, accuracy_unit, ...

    Raises:
        TypeError, ValueError: an argument that makes no sense. Later on nothing raises: what fails
            is told once and left out, and no trial is stopped for it.

    >>> stopper = GrokWatchStopper(budget=1000, chance=0.1, learn=False)
    >>> stopper("a", {"step": 10, "train/loss": 1.0, "config": {"lr": 1e-3}})
    False
    >>> results = [{"step": step, "train/loss": float("nan")} for step in (20, 30, 40)]
    >>> [stopper("a", result) for result in results], results[-1]["grokwatch"]["recommendation"]
    ([False, False, True], 'stop_diverged')
    """

    def __init__(
        self,
        *,
        budget: int,
        step: str | None = None,
        metrics: Mapping[str, str] | None = None,
        hyper: Mapping[str, str] | None = None,
        stop_on: Sequence[Recommendation] = STOPS,
        log_dir: str | Path | None = None,
        learn: bool = True,
        control_fraction: float = 0.1,
        refit_every: int = 10,
        seed: int = 0,
        forecast: Forecast | None = None,
        **settings: Any,
    ) -> None:
        chosen = options(
            {"budget": budget, **settings},
            stop_on=stop_on,
            hyper=hyper,
            learn=learn,
            control_fraction=control_fraction,
            refit_every=refit_every,
            seed=seed,
            forecast=forecast,
        )
        self._start(chosen.as_dict(), step, dict(metrics or {}), log_dir)

    def _start(
        self,
        chosen: dict[str, Any],
        step: str | None,
        metrics: dict[str, str],
        log_dir: str | Path | None,
    ) -> None:
        self._options = chosen
        self._step, self._metrics = step, metrics
        self._log_dir = None if log_dir is None else str(log_dir)
        self._trials: Trials | None = Trials(options(**chosen), log_dir)
        self._results = Results(step, metrics, self._trials.faults)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial is to be ended, given its latest result."""
        if self._trials is not None:
            with self._trials.faults.guard("the stopper"):
                return self._decide(self._trials, trial_id, result)
        return False

    def _decide(self, trials: Trials, name: str, result: dict[str, Any]) -> bool:
        found, done = self._results.read(result), bool(result.get("done"))
        begun, budget = name in trials.live, trials.options.settings["budget"]
        watch = None
        # The result that Tune repeats at a trial's end must not begin it again.
        if found is not None and (begun or not (done or found[0] >= budget)):
            watch = trials.take(name, *found, result.get("config") or {})
        stop = watch is not None and watch.should_stop
        if watch is not None:
            result["grokwatch"] = note(watch)
        if stop or done or (watch is not None and watch.last_step >= budget):
            trials.end(name)
        return stop

    def stop_all(self) -> bool:
        """Never: an experiment is not ended as a whole."""
        return False

    def report(self) -> SweepReport | None:
        """What has come of the trials that ended: how many, steps saved, kills in the control arm.

        None if the sweep does not learn.
        """
        return None if self._trials is None else self._trials.report()

    # -- what Tune saves with the experiment, and brings back -------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Plain, JSON-able state. Never raises: that would end the experiment."""
        state = None
        if self._trials is not None:
            with self._trials.faults.guard("saving the sweep's state"):
                state = self._trials.state_dict()
            arguments = [self._options, self._step, self._metrics, self._log_dir]
            self._saved = {"arguments": arguments, "state": state}
        return self._saved

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """Go on. Never raises: Tune would begin the experiment anew, and lose what had ended."""
        faults, self._trials, self._saved = Faults(), None, saved
        with faults.guard("restoring the stopper"):
            self._start(*saved["arguments"])
        if self._trials is not None and saved["state"] is not None:
            with faults.guard("restoring the sweep's state"):
                self._trials.load_state_dict(saved["state"])

    # -- for the scheduler ------------------------------------------------------------------------

    @property
    def trials(self) -> Trials | None:
        """The trials watched; None if restoring has failed."""
        return self._trials


def note(watch: TrialWatch) -> dict[str, Any]:
    """What a result says of its trial.

    >>> from grokwatch.integrations._sweep_options import options
    >>> watch = TrialWatch("a", options({"budget": 9}), {}, refuse=print)
    >>> note(watch)["recommendation"], note(watch)["reason"]
    ('continue', 'Nothing observed yet.')
    """
    verdict = watch.verdict
    return {
        "phase": verdict.phase,
        "probability": verdict.probability,
        "recommendation": verdict.recommendation,
        "reason": verdict.reason,
        "control": watch.control,
        "forecast": watch.version,
    }
