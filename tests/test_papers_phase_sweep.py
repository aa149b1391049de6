"""The phase diagram's sweep: in batches, resumed, watched, and on Ray and Optuna."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import phase_sweep
import pytest
import torch
from models import Transformer
from phase_board import Board
from phase_net import Net, symmetric_split
from phase_run import Cell, Task, Trainee, sidecars
from phase_watch import Overseer, Watching, agreement, unpromising
from torch.nn import functional as F

from grokwatch.records import read_run
from grokwatch.replay import replay
from tests.curves import recorded

ROOT = Path(__file__).parent.parent
TASK = Task(p=11, width=16, budget=60)


def trained(cells: list[Cell], folder: Path, together: int, task: Task = TASK) -> list[str]:
    """Names of the runs that were trained now."""
    names: list[str] = []
    phase_sweep.train(cells, task, folder, together, lambda run, _: names.append(run.cell.name))
    return names


def test_runs_are_the_same_alone_and_in_company(tmp_path: Path) -> None:
    cells = [Cell(3e-3, decay, 0.6, seed) for decay in (0.0, 1.0) for seed in (0, 1)]
    assert sorted(trained(cells, tmp_path / "batch", 3)) == sorted(cell.name for cell in cells)
    for cell in cells:
        trained([cell], tmp_path / "alone", 1)
        one, other = (
            read_run(tmp_path / where / f"{cell.name}.csv") for where in ("batch", "alone")
        )
        assert one.columns.keys() == other.columns.keys()
        for name, (steps, values) in one.columns.items():
            np.testing.assert_array_equal(steps, other.columns[name][0])
            np.testing.assert_allclose(values, other.columns[name][1], rtol=2e-3, atol=2e-4)


def test_records_hold_what_was_measured_and_are_judged_the_same(tmp_path: Path) -> None:
    cell = Cell(5e-3, 1.0, 0.8, 0)
    seen: list[Trainee] = []
    phase_sweep.train([cell], TASK, tmp_path, 1, lambda run, _: seen.append(run))
    run = read_run(tmp_path / f"{cell.name}.csv")
    assert run.settings["budget"] == 60 and run.settings["weight_decay"] == 1.0
    assert replay(run).final == seen[0].opinion.monitor.verdict
    # The first row, from the network itself.
    net = Net(11, 16)
    model = Transformer(11, 11, 1, 4, 16)
    torch.nn.utils.vector_to_parameters(net.start(0), model.parameters())
    x, y, u, v = symmetric_split(11, 0.8, 0)
    with torch.no_grad():
        logits, val = model(x), model(u)
    others = val.masked_fill(F.one_hot(v, 11).bool(), -math.inf)
    margin = (val[torch.arange(len(v)), v] - others.max(1).values).mean()
    expected = {
        "train_loss": F.cross_entropy(logits, y),
        "train_accuracy": (logits.argmax(1) == y).float().mean(),
        "val_loss": F.cross_entropy(val, v),
        "val_accuracy": (val.argmax(1) == v).float().mean(),
        "val_margin": margin,
        "weight_norm": net.start(0).norm(),
    }
    _, first = next(iter(run.rows()))
    for name, value in expected.items():
        assert first[name] == pytest.approx(float(value), rel=1e-4, abs=1e-5), name


def test_sweep_goes_on_where_it_was_ended(tmp_path: Path) -> None:
    cells = [Cell(3e-3, 1.0, 0.6, seed) for seed in range(3)]
    assert len(trained(cells[:2], tmp_path, 2)) == 2
    torn = tmp_path / f"{cells[1].name}.json"
    torn.write_text(torn.read_text()[:50])  # the sidecar is what is written last
    assert trained(cells, tmp_path, 2) == [cells[1].name, cells[2].name]
    assert trained(cells, tmp_path, 2) == []
    assert sorted(sidecars(tmp_path)) == sorted(cell.name for cell in cells)


def test_folder_of_another_task_is_refused(tmp_path: Path) -> None:
    trained([Cell(3e-3, 1.0, 0.6, 0)], tmp_path, 1)
    with pytest.raises(ValueError, match=r"budget 60 .* not 90"):
        trained([Cell(3e-3, 1.0, 0.6, 1)], tmp_path, 1, TASK._replace(budget=90))


def test_run_that_diverges_leaves_the_others_alone(tmp_path: Path) -> None:
    wild, calm = Cell(1e30, 0.0, 0.6, 0), Cell(1e-3, 0.0, 0.6, 0)
    trained([wild, calm], tmp_path, 2)
    done = sidecars(tmp_path)
    assert done[wild.name]["diverged"] and done[wild.name]["steps"] < 60
    assert not done[calm.name]["diverged"] and done[calm.name]["steps"] == 60


# -- sweeps that grokwatch stops runs of ----------------------------------------------------------

LONG = Task(p=23, width=16, budget=6000)


def memorised(run: Trainee, watch: Overseer) -> int:
    """Let a run see what a recorded one saw that never generalised; steps until it ended."""
    seen = recorded("never").columns
    losses = seen["train_loss"][1]
    for i, at in enumerate(seen["val_loss"][0]):
        names = ("val_loss", "val_accuracy", "val_margin")
        measured = {name: float(seen[name][1][i]) for name in names}
        measured["train_accuracy"] = float(seen["train_accuracy"][1][at - 1])
        run.see([float(one) for one in losses[at - 1 : at + 19]], measured)
        if run.over or watch.stops(run):
            break
    return run.step


def watched_sweep(folder: Path, cells: list[Cell]) -> tuple[Overseer, dict[str, int]]:
    watch = Overseer(LONG, folder, Watching(0, 0.5))
    steps = {}
    for cell in cells:
        run = watch.begin(cell)
        steps[cell.name] = memorised(run, watch)
        watch.end(run, run.record(folder))
    return watch, steps


def test_overseer_stops_runs_but_none_of_the_control_arm(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    folder.mkdir()
    cells = [Cell(3e-3, 0.1, 0.3, seed) for seed in range(6)]
    watch, steps = watched_sweep(folder, cells)
    done = sidecars(folder)
    arm = {cell.name for cell in cells if watch.sweep.is_control(cell.name)}
    assert 0 < len(arm) < len(cells)
    for cell in cells:
        decision = done[cell.name]["sweep"]
        if cell.name in arm:
            assert steps[cell.name] == LONG.budget and decision["stopped"] is None
            assert decision["would_stop"]["recommendation"] == "stop_unpromising"
        else:
            assert steps[cell.name] < LONG.budget and unpromising(done[cell.name])
    report = watch.sweep.report()
    assert report.stopped == len(cells) - len(arm) and report.control == len(arm)
    assert report.killed_in_control == 0  # none of them generalised

    # A new process knows the same: from the saved state, or from the records if that was lost.
    assert Overseer(LONG, folder, Watching(0, 0.5)).sweep.report() == report
    (tmp_path / "records-forecast.json").unlink()
    assert Overseer(LONG, folder, Watching(0, 0.5)).sweep.report() == report


def test_stopped_runs_leave_the_batch_and_others_take_their_place(tmp_path: Path) -> None:
    class AfterTwenty:
        """Ends every second run at step 20."""

        def begin(self, cell: Cell) -> Trainee:
            return Trainee(cell, TASK)

        def stops(self, run: Trainee) -> bool:
            return run.cell.seed % 2 == 1 and run.step >= 20

        def end(self, run: Trainee, record: Any) -> None:
            assert record.name == run.cell.name

    cells = [Cell(3e-3, 1.0, 0.6, seed) for seed in range(5)]
    phase_sweep.train(cells, TASK, tmp_path / "some", 2, lambda run, _: None, AfterTwenty())
    trained(cells, tmp_path / "all", 2)
    some, every = sidecars(tmp_path / "some"), sidecars(tmp_path / "all")
    for cell in cells:
        assert some[cell.name]["steps"] == (20 if cell.seed % 2 else 60)
        if cell.seed % 2 == 0:  # what its neighbours did makes no difference to a run
            assert some[cell.name]["last_train_loss"] == pytest.approx(
                every[cell.name]["last_train_loss"], rel=1e-3
            )


def test_agreement_is_counted() -> None:
    def run(decay: float, t4: int | None, steps: int, control: bool = False) -> dict[str, Any]:
        stopped = None if t4 or steps == 100 else {"recommendation": "stop_unpromising"}
        decision = {"stopped": stopped, "control": control}
        about = {"learning_rate": 1.0, "weight_decay": decay, "seed": 0}
        return {**about, "t4": t4, "steps": steps, "sweep": decision}

    full = [run(0.0, None, 100), run(1.0, 50, 60), run(2.0, 70, 80), run(3.0, None, 100, True)]
    some = [run(0.0, None, 20), run(1.0, 50, 55), run(2.0, None, 40), run(3.0, None, 100, True)]
    found = agreement(some, full, 100)
    assert found["runs with the same outcome"] == found["cells with the same outcome"] == 0.75
    assert found["generalisers stopped"] == [[1.0, 2.0, 0]]
    assert found["compute saved of those that never generalise"] == pytest.approx(0.4)
    assert found["... without the control arm"] == pytest.approx(0.8)


def test_heat_maps_reach_tensorboard_as_runs_end(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs = [
        {"learning_rate": 1e-3, "weight_decay": decay, "last_val_accuracy": decay, "t4": None}
        for decay in (0.1, 0.5, 0.9)
    ]
    board = Board(tmp_path, total=3)
    for ended in (1, 2, 2, 3):  # the second comes too soon after the first, the last always counts
        board.show(runs[:ended])
    board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [image.step for image in events.Images("phase diagram")] == [1, 3]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "optuna"])
def test_engines_train_every_cell_and_go_on(tmp_path: Path, engine: str) -> None:
    script = f"""
import phase_{engine} as engine
from pathlib import Path
from phase_run import Cell, Task
from phase_watch import Watching

if __name__ == "__main__":
    cells = [Cell(3e-3, decay, 0.6, seed) for decay in (0.0, 1.0) for seed in (0, 1)]
    folder = Path({str(tmp_path)!r}) / "records"
    print(engine.sweep(cells, Task(11, 16, 60), folder, 2, Watching(), lambda: None))
"""
    (tmp_path / "sweep.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "examples"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "sweep.py")]

    def once() -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "4 trials ended" in once()
    done = sidecars(tmp_path / "records")
    assert len(done) == 4
    for name, run in done.items():
        assert run["steps"] == 60 and run["sweep"]["stopped"] is None
        assert read_run(tmp_path / "records" / f"{name}.csv").last_step == 59
    written = {path: path.stat().st_mtime for path in (tmp_path / "records").glob("*.csv")}
    once()
    assert {path: path.stat().st_mtime for path in written} == written  # nothing was run again
