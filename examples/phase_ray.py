"""The sweep on Ray Tune: a worker trains one run at a time, the driver stops and learns."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from phase_run import Cell, Task, Trainee, sidecars
from phase_sweep import Batch
from phase_watch import DECISION, Watching
from ray import tune

from grokwatch.integrations.raytune import GrokWatchStopper

_LOG = "grokwatch-decisions.jsonl"


class OneRun(tune.Trainable):
    """One run; a result every ten steps. Its record is written when Tune ends it."""

    def setup(self, config: dict[str, Any]) -> None:
        """Draw the weights, split the data."""
        torch.set_num_threads(1)
        config = config["run"]
        cell = Cell(config["lr"], config["weight_decay"], config["train_fraction"], config["seed"])
        self._batch = Batch(Task(*config["task"]))
        self._run = Trainee(cell, self._batch.task)
        self._batch.admit([self._run])
        self._folder = Path(config["folder"])

    def step(self) -> dict[str, Any]:
        """Ten steps."""
        at = self._run.step
        self._batch.advance()
        measured = {
            name: values[steps.index(at)] for name, (steps, values) in self._run.columns.items()
        }
        return {"step": at, **measured, "done": self._run.over}

    def cleanup(self) -> None:
        """The run has ended, in whatever way."""
        self._run.record(self._folder)


# Tune saves its callbacks with the experiment, so none can hold what shows the progress.
_listeners: list[Callable[[], None]] = []


def _folder_of(trial: Any) -> str:
    return str(trial.trial_id)


class _Tell(tune.Callback):
    """Tells this process's listeners whenever a trial has ended."""

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """See `ray.tune.Callback`."""
        for listener in _listeners:
            listener()


def sweep(
    cells: Sequence[Cell],
    task: Task,
    folder: Path,
    workers: int,
    watch: Watching | None,
    ended: Callable[[], None],
) -> str:
    """Train the cells in the order given, or go on with an experiment that was ended.

    Args:
        cells: runs.
        task: what they share.
        folder: of the records; Tune's own folder and the log of decisions go beside it.
        workers: runs at a time.
        watch: what grokwatch may do; None leaves every run to its end.
        ended: called when a trial has ended.

    Returns:
        What has come of the sweep, in words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder.parent.resolve()
    here = str(Path(__file__).parent.resolve())
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}},
    )
    _listeners.append(ended)
    try:
        results = _tuner(cells, task, folder, beside, watch).fit()
    finally:
        _listeners.remove(ended)
        ray.shutdown()
    for error in results.errors:
        raise RuntimeError(f"{results.num_errors} of {len(results)} trials failed.") from error
    if watch:
        _note(results, folder, beside / _LOG)
        return _last_report(beside / _LOG)
    return f"{len(results)} trials ended"


def _tuner(
    cells: Sequence[Cell],
    task: Task,
    folder: Path,
    beside: Path,
    watch: Watching | None,
) -> tune.Tuner:
    trainable = tune.with_resources(OneRun, {"cpu": 1})
    if tune.Tuner.can_restore(str(beside / "tune")):
        return tune.Tuner.restore(
            str(beside / "tune"), trainable=trainable, resume_unfinished=True, restart_errored=True
        )
    each = [
        {
            "lr": cell.rate,
            "weight_decay": cell.decay,
            "train_fraction": cell.fraction,
            "seed": cell.seed,
            "task": list(task),
            "folder": str(folder.resolve()),
        }
        for cell in cells
    ]
    stopper = None
    if watch:
        stopper = GrokWatchStopper(
            budget=task.budget,
            chance=1 / task.p,
            log_dir=beside,
            hyper={
                "learning_rate": "run/lr",
                "weight_decay": "run/weight_decay",
                "train_fraction": "run/train_fraction",
            },
            **watch._asdict(),
        )
    return tune.Tuner(
        trainable,
        param_space={"run": tune.grid_search(each)},
        tune_config=tune.TuneConfig(trial_dirname_creator=_folder_of),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(beside),
            stop=stopper,
            callbacks=[_Tell()],
            # A run that was cut off begins anew: it takes a minute.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )


def _decisions(log: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Of each trial the last line of each type."""
    lines = log.read_text().splitlines() if log.exists() else []
    parsed = [json.loads(line) for line in lines]
    return {(line["type"], line["trial"]): line for line in parsed}


def _note(results: Any, folder: Path, log: Path) -> None:
    """Add to the sidecars what Tune's driver decided of the runs."""
    told, done = _decisions(log), sidecars(folder)
    for result in results:
        run, noted = result.config["run"], result.metrics["grokwatch"]
        name = Cell(run["lr"], run["weight_decay"], run["train_fraction"], run["seed"]).name
        verdicts = {
            key: told.get((kind, result.metrics["trial_id"]), {}).get("verdict")
            for key, kind in (("stopped", "stop"), ("would_stop", "would_stop"))
        }
        about = {"control": noted["control"], "forecast": noted["forecast"], **verdicts}
        text = json.dumps({**done[name], DECISION: about}, indent=1)
        (folder / f"{name}.json").write_text(text + "\n")


def _last_report(log: Path) -> str:
    ends = [line["sweep"] for (kind, _), line in _decisions(log).items() if kind == "end"]
    last = max(ends, key=lambda one: one["runs"])
    return (
        f"{last['runs']} trials ended: {last['generalised']} generalised, {last['stopped']} "
        f"stopped as unpromising; {last['share_saved']:.0%} of the steps saved; control arm: "
        f"{last['control']} trials, {last['killed_in_control']} of {last['control_generalised']} "
        f"that generalised would have been stopped"
    )
