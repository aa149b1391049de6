"""Processes that are killed, interrupted, or share a record: what was seen is on record."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from grokwatch import replay
from grokwatch.integrations import _drain
from grokwatch.records import read_run
from grokwatch.sinks import jsonl
from tests.fault_programs import feed, make, measured, validated

ROOT = Path(__file__).parent.parent

#: Rows that a kill may cost: those in the sink's chunk, in the drain, and the step under way.
MOST_LOST = jsonl._ROWS + _drain._ROWS + 1


def start(program: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A program of :mod:`tests.fault_programs` that has begun to train."""
    victim = subprocess.Popen(
        [sys.executable, "-m", "tests.fault_programs", program, str(folder), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'examples'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == "go\n", victim.stderr and victim.stderr.read()
    return victim


def end(victim: subprocess.Popen[str]) -> None:
    victim.kill()
    victim.communicate()


def check_record(folder: Path) -> int:
    """Every row of the record is what was measured, and none is missing; the last step."""
    run = read_run(folder / "run")
    steps, values = run.columns["train_loss"]
    assert np.array_equal(steps, np.arange(1, len(steps) + 1))
    want = [measured(step)["loss"] for step in steps.tolist()]
    assert np.array_equal(values, np.array(want, dtype=np.float32))
    steps, values = run.columns["val_accuracy"]
    assert np.array_equal(steps, 10 * np.arange(1, len(steps) + 1))
    want = [validated(step)["accuracy"] for step in steps.tolist()]
    assert np.array_equal(values, np.array(want, dtype=np.float32))
    return run.last_step


def killed_and_resumed(folder: Path, times: int, seed: int) -> None:
    """Kill -9 at random moments, resume each time; the record is that of an unbroken run."""
    pause, begun = random.Random(seed), 0
    for _ in range(times):
        victim = start("kill", folder)
        wanted, known = begun + pause.randrange(300, 900), 0
        while known < wanted:
            time.sleep(pause.uniform(0.0, 0.02))
            told = (folder / "told").read_text() if (folder / "told").exists() else ""
            known = int(told) if told.endswith(" ") else 0  # else the note is being written
        end(victim)
        (folder / "told").unlink()
        last = check_record(folder)
        assert last >= known - MOST_LOST
        saved = folder / "checkpoint.json"
        if saved.exists():  # what a checkpoint knows is on record, always
            begun = json.loads(saved.read_text())["monitor"]["last_step"]
            assert last >= begun
    assert [path.name for path in folder.glob("run*")] == ["run"]
    assert begun > 0
    watch = make(folder)
    watch.load_state_dict(json.loads((folder / "checkpoint.json").read_text()))
    whole = make(folder / "whole")
    until = begun + 1500
    for step in range(1, until + 1):
        feed(whole, step)
        if step > begun:
            feed(watch, step)
    watch.close()
    whole.close()
    assert check_record(folder) == until
    assert watch.verdict == whole.verdict == replay(folder / "run").final
    for verdict in replay(folder / "run").verdicts[-3:]:
        assert verdict in replay(folder / "whole" / "run").verdicts


def test_killed_at_random_moments(tmp_path):
    killed_and_resumed(tmp_path, times=3, seed=0)


@pytest.mark.slow
def test_killed_fifty_times(tmp_path):
    killed_and_resumed(tmp_path, times=50, seed=1)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_interrupted_again_and_again(tmp_path, name):
    """A Ctrl-C may cost the row under way, never half a row, nor what had been handed over."""
    victim, pause = start("interrupt", tmp_path, "--signal", name), random.Random(0)
    while victim.poll() is None and not (tmp_path / "told").exists():
        victim.send_signal(getattr(signal, name))
        time.sleep(pause.uniform(0.0, 0.02))
    output = victim.communicate()
    assert victim.returncode in (0, -getattr(signal, name)), output
    found = json.loads((tmp_path / "told").read_text())
    assert found["works"] == ["monitor", "judging", "record"]
    run = read_run(tmp_path / "run")
    assert found["step"] - 1 <= run.last_step <= found["step"]
    steps, values = run.columns["train_loss"]
    want = [measured(step)["loss"] for step in steps.tolist()]
    assert np.array_equal(values, np.array(want, dtype=np.float32))
    assert len(steps) >= found["step"] - 2 * found["caught"]
    assert replay(run).final.as_dict() == found["final"]


def test_the_default_sigterm_leaves_a_record_that_reads(tmp_path):
    victim = start("kill", tmp_path)
    record = tmp_path / "run" / "grokwatch.jsonl"
    while not (record.exists() and "val_accuracy" in record.read_text()):  # a chunk, not a row
        assert victim.poll() is None
        time.sleep(0.01)
    victim.send_signal(signal.SIGTERM)
    victim.communicate()
    assert victim.returncode == -signal.SIGTERM
    check_record(tmp_path)


def test_two_processes_that_resume_one_record(tmp_path):
    """The later one goes on; the other is told, and the record stays whole."""
    with make(tmp_path) as watch:
        for step in range(1, 1001):
            feed(watch, step)
        (tmp_path / "checkpoint.json").write_text(json.dumps(watch.state_dict()))
    victims = [start("share", tmp_path) for _ in range(2)]
    for victim in victims:
        assert victim.stdin is not None
        victim.stdin.write("\n")
        victim.stdin.flush()
    off, told = [], ""
    for victim in victims:
        output, error = victim.communicate(timeout=120)
        assert victim.returncode == 0, error
        off.append(json.loads(output))
        told += error
    check_record(tmp_path)
    assert sorted(off) in ([[], ["record"]], [["record"], []]), off
    assert told.count("was written to by somebody else") == 1
    assert read_run(tmp_path / "run").last_step == 5000
