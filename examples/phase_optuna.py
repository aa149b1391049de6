"""The sweep on Optuna: processes that share a study in an SQLite file."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState
from phase_run import Cell, Task, Trainee, sidecars
from phase_sweep import Batch
from phase_watch import DECISION, Watching

from grokwatch.integrations.optuna import GrokWatchPruner, report, sqlite_storage
from grokwatch.sweeps import SweepForecast

_STUDY = "phase diagram"
_MEASURED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_margin", "grad_norm",
             "weight_norm")  # fmt: skip


def _study(folder: Path, task: Task, watch: Watching | None) -> optuna.Study:
    storage = sqlite_storage(folder.parent.resolve() / "optuna.db")
    pruner: Any = optuna.pruners.NopPruner()
    if watch:
        pruner = GrokWatchPruner(
            budget=task.budget,
            chance=1 / task.p,
            hyper={
                "learning_rate": "lr",
                "weight_decay": "weight_decay",
                "train_fraction": "train_fraction",
            },
            **watch._asdict(),
        )
    return optuna.create_study(
        study_name=_STUDY, storage=storage, pruner=pruner, load_if_exists=True, direction="maximize"
    )


def _work(folder: Path, task: Task, watch: Watching | None) -> None:
    """One process: takes trials from the queue until there are none."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _study(folder, task, watch)
    arm = SweepForecast(**watch._asdict()) if watch else None
    while study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        trial = study.ask()
        if "queued" not in trial.user_attrs:  # another process took the last one in between
            study.tell(trial, state=TrialState.FAIL)
            return
        cell = Cell(
            trial.suggest_float("lr", 0.0, 1.0),
            trial.suggest_float("weight_decay", 0.0, 10.0),
            trial.suggest_float("train_fraction", 0.0, 1.0),
            trial.suggest_int("seed", 0, 2**31),
        )
        run, pruned = _train(
            trial, cell, task, folder, arm is not None and arm.is_control(str(trial.number))
        )
        if pruned:  # its last intermediate value counts
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, run.columns["val_accuracy"][1][-1])


def _train(
    trial: optuna.Trial, cell: Cell, task: Task, folder: Path, control: bool
) -> tuple[Trainee, bool]:
    """Train one trial and write its record; whether it was pruned."""
    batch, run = Batch(task), Trainee(cell, task)
    batch.admit([run])
    pruned = False
    while not (run.over or pruned):
        at = run.step
        batch.advance()
        report(trial, at, **{name: run.columns[name][1][_at(run, name, at)] for name in _MEASURED})
        pruned = trial.should_prune()
    decision = trial.user_attrs.get("grokwatch:decision")
    run.notes[DECISION] = {
        "control": control,
        "forecast": trial.user_attrs.get("grokwatch:forecast", {}).get("version"),
        "stopped": decision if pruned else None,
        "would_stop": decision if control else None,
    }
    run.record(folder)
    return run, pruned


def _at(run: Trainee, name: str, step: int) -> int:
    return run.columns[name][0].index(step)


def sweep(
    cells: Sequence[Cell],
    task: Task,
    folder: Path,
    workers: int,
    watch: Watching | None,
    ended: Callable[[], None],
) -> str:
    """Train the cells in the order given, or go on with a study that was ended.

    Args:
        cells: runs.
        task: what they share.
        folder: of the records; the study's file goes beside it.
        workers: processes.
        watch: what grokwatch may do; None leaves every run to its end.
        ended: called now and then.

    Returns:
        What has come of the sweep, in words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _study(folder, task, watch)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)  # its process is gone
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    done = sidecars(folder).keys() | {trial.user_attrs["queued"] for trial in waiting}
    for cell in cells:
        if cell.name not in done:
            values = {
                "lr": cell.rate,
                "weight_decay": cell.decay,
                "train_fraction": cell.fraction,
                "seed": cell.seed,
            }
            study.enqueue_trial(values, user_attrs={"queued": cell.name})
    context = multiprocessing.get_context("spawn")
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    processes = [
        context.Process(target=_work, args=(folder, task, watch))
        for _ in range(min(workers, len(waiting)))
    ]
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes):
            time.sleep(1.0)
            ended()
    finally:
        for process in processes:
            process.terminate()
            process.join()
    failed = [process.exitcode for process in processes if process.exitcode]
    if failed:
        raise RuntimeError(f"{len(failed)} of {workers} processes failed; see their messages.")
    if watch and isinstance(study.pruner, GrokWatchPruner):
        return str(study.pruner.report(study))
    return f"{len(study.trials)} trials ended"
