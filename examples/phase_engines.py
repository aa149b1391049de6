"""Runs the sweep of the diagram on one of three engines, with or without stops, and compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import phase_board
import phase_plots
from _experiment import Experiment, in_words
from phase_run import Cell, Task, Trainee, sidecars
from phase_sweep import train
from phase_watch import Overseer, Watching, agreement, unpromising

from grokwatch.records import Run


def run_sweep(
    run: Experiment,
    cells: Sequence[Cell],
    task: Task,
    full: Path,
    engine: str,
    watch: Watching | None,
    workers: int,
) -> None:
    """Train the cells; leave heat maps in TensorBoard, a figure and results.

    Args:
        run: where everything goes.
        cells: runs in the order of their launch.
        task: what they share.
        full: records of the same sweep without stops, if there are any.
        engine: local, ray or optuna.
        watch: what grokwatch may do; None leaves every run to its end.
        workers: processes of ray and optuna.
    """
    folder = run.out / "records"
    board = phase_board.Board(run.out / "tensorboard", len(cells))

    with run.progress(f"training ({engine})", len(cells)) as advance:
        told: set[str] = set()

        def ended() -> None:
            done = sidecars(folder)
            for name in done.keys() - told:
                print(in_words(name, done[name]["grokwatch"]), flush=True)
                told.add(name)
                advance()
            board.show(list(done.values()))

        told.update(sidecars(folder))
        advance(len(told))
        report = _train(engine, cells, task, folder, workers, watch, ended)
        ended()
    board.close()
    done = sidecars(folder)
    runs = [done[cell.name] for cell in cells]
    print(report)
    run.results |= {
        "engine": engine,
        "watch": None if watch is None else watch._asdict(),
        "report": report,
        "runs": {
            cell.name: {key: done[cell.name].get(key) for key in ("t2", "t4", "steps", "sweep")}
            for cell in cells
        },
    }
    if not watch:
        seeds = len({cell.seed for cell in cells})
        run.save(phase_plots.diagram(runs, seeds), "phase_diagram")
        return
    beside = None
    whole = sidecars(full) if full.is_dir() else {}
    if all(cell.name in whole for cell in cells):
        beside = agreement(runs, [whole[cell.name] for cell in cells], task.budget)
        print(f"beside the full sweep: {beside}")
    run.results |= {
        "stopped as unpromising": sum(unpromising(one) for one in runs),
        "beside the full sweep": beside,
    }
    run.save(phase_board.watched(runs, task.budget, report, beside), "phase_watched")


def _train(
    engine: str,
    cells: Sequence[Cell],
    task: Task,
    folder: Path,
    workers: int,
    watch: Watching | None,
    ended: Any,
) -> str:
    if engine == "ray":
        import phase_ray

        return phase_ray.sweep(cells, task, folder, workers, watch, ended)
    if engine == "optuna":
        import phase_optuna

        return phase_optuna.sweep(cells, task, folder, workers, watch, ended)
    overseer = Overseer(task, folder, watch) if watch else None

    def finished(one: Trainee, record: Run) -> None:
        ended()

    train(cells, task, folder, 8, finished, overseer)
    return str(overseer.sweep.report()) if overseer else f"{len(cells)} runs ended"
