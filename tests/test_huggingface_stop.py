"""Stopping: only if asked, after a checkpoint, on all processes at the same step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grokwatch.integrations.huggingface import GrokWatchCallback
from grokwatch.records import read_run
from grokwatch.replay import replay
from tests.hf_training import Poison, column, grokking, make

ROOT = Path(__file__).parents[1]
PROGRAM = """
import json, logging, os, sys
from pathlib import Path
from transformers import TrainerCallback
from grokwatch.integrations.huggingface import GrokWatchCallback
from tests.hf_training import Poison, make
from tests.process_group import leave

class Trace(TrainerCallback):
    def __init__(self):
        self.steps, self.stopped = [], []
    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append(state.global_step)
        self.stopped.append(control.should_training_stop)

if __name__ == "__main__":
    folder, settings, poison = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3] == "poison"
    callback, trace = GrokWatchCallback(stop=True), Trace()
    extra = [Poison()] if poison else []
    trainer = make(folder, callback, trace, *extra, ddp_backend="gloo", **settings)
    trainer.train()
    said = {"steps": trace.steps[-1], "stopped": trace.stopped[-1], "phase": callback.verdict.phase}
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(said))
    del trainer
    leave()
"""


def test_stops_with_a_checkpoint_that_can_be_taken_up(tmp_path):
    callback = GrokWatchCallback(stop=True)
    trainer = grokking(tmp_path, callback)
    trainer.train()
    stopped, verdict = trainer.state.global_step, callback.verdict
    assert verdict.recommendation == "stop_generalised"
    assert verdict.signals["t4"] < verdict.step <= stopped <= verdict.step + 20  # not late
    assert stopped < 1400 and (tmp_path / f"checkpoint-{stopped}" / "optimizer.pt").is_file()
    assert replay(tmp_path).final == verdict

    again = GrokWatchCallback(stop=True)  # the verdict that stopped it does not count again
    trainer = grokking(tmp_path, again, max_steps=1400)
    trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{stopped}"))
    last = trainer.state.global_step
    assert last > stopped and again.verdict.phase == "generalised"
    assert [*column(read_run(tmp_path), "train_loss")] == [*range(1, last + 1)]


def poisoned(folder: Path, callback: GrokWatchCallback, **settings) -> int:
    """Train with weights that turn NaN after step 12 of 60; the last step."""
    trainer = make(folder, callback, Poison(), **settings)
    trainer.train()
    assert callback.verdict.recommendation == "stop_diverged"
    return trainer.state.global_step


def test_advises_only_unless_asked(tmp_path):
    assert poisoned(tmp_path, GrokWatchCallback()) == 60
    assert not [*tmp_path.glob("checkpoint-*")]


def test_only_the_chosen_recommendations_stop(tmp_path):
    assert poisoned(tmp_path, GrokWatchCallback(stop=True, stop_on=("stop_generalised",))) == 60


def test_stops_without_a_checkpoint_if_wanted(tmp_path):
    told = []
    stopped = poisoned(tmp_path, GrokWatchCallback(stop=True, on_stop=told.append))
    assert stopped < 20 and not [*tmp_path.glob("checkpoint-*")]
    assert [verdict.recommendation for verdict in told] == ["stop_diverged"]


def test_best_only_saves_the_stop_too(tmp_path):
    settings = {"save_strategy": "best", "metric_for_best_model": "accuracy", "eval_steps": 1}
    stopped = poisoned(tmp_path, GrokWatchCallback(stop=True), **settings)
    assert stopped < 20 and (tmp_path / f"checkpoint-{stopped}").is_dir()


# -- two processes -------------------------------------------------------------------------------


def two_processes(folder: Path, poison: bool = False, **settings) -> list[dict]:
    program = folder.parent / "program.py"
    program.write_text(PROGRAM)
    folder.mkdir()
    paths = [str(ROOT), str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0",
               str(program), str(folder), json.dumps(settings),
               "poison" if poison else "healthy"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "grokwatch:" not in done.stderr
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_stop_together(tmp_path, monkeypatch):
    """64 x 2 examples of 317 a step: one process has none left for the last batch."""
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    ranks = two_processes(
        tmp_path / "run", poison=True, max_steps=200, report_to="tensorboard", eval_steps=25
    )
    assert ranks[0] == ranks[1] and ranks[0]["phase"] == "diverged" and ranks[0]["stopped"]
    assert 12 < ranks[0]["steps"] < 40
    assert (tmp_path / "run" / f"checkpoint-{ranks[0]['steps']}").is_dir()
    assert len([*tmp_path.rglob("grokwatch.jsonl")]) == len([*tmp_path.rglob("*tfevents*")]) == 1
    run = read_run(tmp_path / "run")
    assert run.notes["processes"] == 2
    assert [*column(run, "train_loss")] == [*range(1, ranks[0]["steps"] + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 4])
def test_two_processes_to_the_end(tmp_path, accumulate):
    """Steps of a language model, whose loss is divided by the tokens of both processes."""
    ranks = two_processes(
        tmp_path / "run",
        lm=True,
        max_steps=-1,
        num_train_epochs=3,
        eval_strategy="epoch",
        save_strategy="epoch",
        per_device_train_batch_size=16,
        gradient_accumulation_steps=accumulate,
        max_grad_norm=0.0,
    )
    assert ranks[0]["steps"] == ranks[1]["steps"] and ranks[0]["stopped"]
    run = read_run(tmp_path / "run")
    state = json.loads(
        (tmp_path / "run" / f"checkpoint-{ranks[0]['steps']}" / "trainer_state.json").read_text()
    )
    logged = {line["step"]: line["loss"] for line in state["log_history"] if "loss" in line}
    ours = column(run, "train_loss")
    # Ours is the main process's half of the data, the Trainer's the mean of both halves.
    assert ours.keys() == logged.keys()
    assert all(abs(ours[step] / logged[step] - 1) < 0.2 for step in ours)
