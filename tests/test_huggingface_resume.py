"""A run that is resumed, in whatever way, gives the verdicts of one that was never broken off."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import TrainerCallback

from grokwatch.integrations.huggingface import GrokWatchCallback
from grokwatch.records import read_run
from grokwatch.replay import replay
from tests.hf_training import Watched, column, logged, make, verdicts
from tests.test_huggingface import own_loss

ROOT = Path(__file__).parents[1]
STEPS, SAVED, KILLED = 120, 40, 65
SETTINGS = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": SAVED, "eval_steps": 8}


class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)


class Interrupt(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 100:
            raise KeyboardInterrupt


def run_and_die(folder: str) -> None:
    make(Path(folder), GrokWatchCallback(norms_every=7), Kill(), **SETTINGS).train()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: its verdicts and its record."""
    folder = tmp_path_factory.mktemp("whole")
    callback = GrokWatchCallback(norms_every=7)
    watched = Watched(callback)
    make(folder, callback, watched, **SETTINGS).train()
    return verdicts(watched.spy), read_run(folder)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run killed without warning, as a fresh process left it."""
    folder = tmp_path_factory.mktemp("killed")
    program = f"from tests.test_huggingface_resume import run_and_die; run_and_die({str(folder)!r})"
    paths = [str(ROOT), str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    return folder


def copy_of(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


@pytest.mark.parametrize("restore", [False, True])
def test_killed_and_resumed(whole, killed, tmp_path, restore):
    folder = copy_of(killed, tmp_path / "run")
    callback = GrokWatchCallback(norms_every=7)
    watched = Watched(callback)
    trainer = make(
        folder, callback, watched, restore_callback_states_from_checkpoint=restore, **SETTINGS
    )
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{SAVED}"))
    expected, record = whole
    assert verdicts(watched.spy, after=SAVED) == {
        step: verdict for step, verdict in expected.items() if int(step) > SAVED
    }
    assert callback.verdict == watched.spy.verdicts[max(watched.spy.verdicts)]
    assert callback.log_dir == folder and not (tmp_path / "run-2").exists()
    resumed = read_run(folder)  # what the killed process wrote after its checkpoint is replaced
    assert resumed.columns.keys() == record.columns.keys()
    for name in record.columns:
        assert column(resumed, name) == column(record, name)
    assert (
        json.loads(json.dumps(replay(folder).final.as_dict())) == expected[max(expected, key=int)]
    )


def test_state_is_small_plain_and_kept_once(killed):
    state = json.loads((killed / f"checkpoint-{SAVED}" / "trainer_state.json").read_text())
    kept = state["stateful_callbacks"]["GrokWatchCallback"]
    assert kept["args"] == {} and len(json.dumps(kept)) < 64_000


def test_resumed_in_another_folder_takes_the_record_along(whole, killed, tmp_path):
    callback = GrokWatchCallback(norms_every=7, log_dir=tmp_path / "record")
    trainer = make(tmp_path / "out", callback, **SETTINGS)
    trainer.train(resume_from_checkpoint=str(killed / f"checkpoint-{SAVED}"))
    assert column(tmp_path / "record", "train_loss") == column(whole[1], "train_loss")


@pytest.mark.parametrize("by_log", [False, True])
def test_checkpoint_made_without_the_callback(tmp_path, caplog, by_log):
    caplog.set_level(logging.INFO, logger="grokwatch")
    settings = {**SETTINGS, "trainer": {"compute_loss_func": own_loss} if by_log else {}}
    make(tmp_path, **{**settings, "max_steps": 50}).train()
    callback = GrokWatchCallback()
    trainer = make(tmp_path, callback, **settings)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-40"))
    assert trainer.state.global_step == STEPS and (tmp_path / f"checkpoint-{STEPS}").is_dir()
    assert "no state of grokwatch: 40 steps are taken from its log history" in caplog.text
    assert column(tmp_path, "val_loss") == logged(trainer, "eval_loss")
    assert [*column(tmp_path, "train_loss")] == [*range(1, STEPS + 1)]
    assert callback.verdict == replay(tmp_path).final
    # and the state that is saved from now on is whole
    again = GrokWatchCallback()
    trainer = make(tmp_path, again, **settings)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-80"))
    assert again.verdict == callback.verdict


def test_broken_state_is_told_and_training_goes_on(tmp_path):
    make(tmp_path, GrokWatchCallback(), **{**SETTINGS, "max_steps": 40}).train()
    callback = GrokWatchCallback(generalised_at=0.5)
    trainer = make(tmp_path, callback, **SETTINGS)
    with pytest.warns(RuntimeWarning, match="the state was saved with"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-40"))
    assert trainer.state.global_step == STEPS


def test_two_callbacks_keep_their_states_apart(tmp_path):
    def pair():
        return [
            GrokWatchCallback(norms_every=0, log_dir=tmp_path / "one"),
            GrokWatchCallback(norms_every=0, log_dir=tmp_path / "two", train_accuracy=False),
        ]

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, *pair(), Interrupt(), **SETTINGS).train()
    first, second = pair()
    trainer = make(tmp_path, first, second, **SETTINGS)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-80"))
    one, two = read_run(tmp_path / "one"), read_run(tmp_path / "two")
    assert "train_accuracy" in one.columns and "train_accuracy" not in two.columns
    assert [*column(one, "train_loss")] == [*column(two, "train_loss")] == [*range(1, STEPS + 1)]
    assert replay(one).final == first.verdict and replay(two).final == second.verdict
