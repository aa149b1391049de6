"""``grokwatch watch``: following a file or a folder that is being written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from grokwatch import replay
from grokwatch._cli_common import Reading
from grokwatch._cli_watch import _Follower
from grokwatch.records import read_run, write_csv
from tests.curves import GOLDEN
from tests.shell import run

__all__ = ["run"]  # a fixture
ROOT = Path(__file__).resolve().parent.parent
QUICK = ("--every", 0.05)


@pytest.fixture
def writing():
    """Run something beside the test; it is waited for."""
    threads = []

    def start(work):
        thread = threading.Thread(target=work)
        threads.append(thread)
        thread.start()

    yield start
    for thread in threads:
        thread.join()


def lines_of(out):
    return [json.loads(line) for line in out.splitlines()]


def grow(path, text, pieces=4, pause=0.3):
    with path.open("a") as file:
        size = len(text) // pieces + 1
        for at in range(0, len(text), size):
            time.sleep(pause)
            file.write(text[at : at + size])  # ends within a line
            file.flush()


def test_a_file_that_grows_until_the_run_has_generalised(run, tmp_path, writing):
    record = read_run(GOLDEN / "grokker.jsonl")
    write_csv(record, tmp_path / "whole.csv")
    text = (tmp_path / "whole.csv").read_text()
    path = tmp_path / "run.csv"
    path.write_text("")
    (tmp_path / "run.json").write_text((tmp_path / "whole.json").read_text())
    writing(lambda: grow(path, text))
    status, out, err = run("watch", path, *QUICK, "--json")
    assert (status, err) == (3, "")
    about, *changes, final = lines_of(out)
    assert about["type"] == "run" and final["type"] == "final"
    assert final["recommendation"] == "stop_generalised"
    want = [verdict.as_dict() for verdict in replay(record).changes()]
    got = [{k: v for k, v in change.items() if k != "type"} for change in changes]
    assert got == want[: len(got)] and len(got) >= 4


def test_an_event_folder_and_idling(run, tmp_path, writing):
    def work():
        with SummaryWriter(tmp_path) as writer:
            for step in range(1, 31):
                writer.add_scalar("train/loss", 1.0 / step, step)
                if step % 10 == 0:
                    writer.flush()
                    time.sleep(0.3)

    writing(work)
    status, out, err = run("watch", tmp_path, *QUICK, "--idle", 3, "--budget", 100)
    assert (status, err) == (0, "")
    assert "read as tensorboard: train_loss from 'train/loss'" in out
    assert "at step 30: continue" in out


def test_a_run_taken_back_is_told_anew(capsys, tmp_path):
    path = tmp_path / "r.csv"
    head = "step,train_accuracy,val_accuracy\n1,0,0\n"
    follower = _Follower(path, Reading(None, {}, {"budget": 100}, ()), as_json=True)

    def memorised():
        follower.look()
        lines = lines_of(capsys.readouterr().out)
        return [line["step"] for line in lines if line.get("phase") == "memorisation"]

    path.write_text(head + "2,1,0\n3,1,0\n")
    assert memorised() == [2]
    path.write_text(head + "2,1,0\n3,1,0\n4,1,0\n")
    assert memorised() == []
    path.write_text(head + "2,.5,0\n3,.5,0\n4,1,0\n")
    assert memorised() == [4]


def test_no_budget_is_told_once(run, tmp_path, writing):
    path = tmp_path / "r.csv"
    path.write_text("step,train_loss\n1,3\n")
    writing(lambda: grow(path, "2,3\n3,3\n4,3\n5,3\n"))
    status, out, err = run("watch", path, *QUICK, "--idle", 2)
    assert status == 0 and "at step 5" in out
    assert len(err.splitlines()) == 1 and "no budget is recorded" in err


def test_nothing_to_see(run, tmp_path):
    status, out, err = run("watch", tmp_path, *QUICK, "--idle", 0.2)
    assert (status, err) == (0, "") and "nothing has been logged yet" in " ".join(out.split())
    status, out, err = run("watch", tmp_path / "none", *QUICK)
    assert (status, out) == (2, "") and "no such file or folder" in err


def test_broken_input_is_told_when_it_stays_broken(run, tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("step,loss\n1,x\n")
    status, out, err = run("watch", path, *QUICK)
    assert (status, out) == (2, "") and "r.csv:2: loss should be a number but is 'x'" in err
    assert len(err.splitlines()) == 1


def test_ctrl_c(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("step,train_loss\n1,3\n2,3\n")
    command = [sys.executable, "-u", "-m", "grokwatch", "watch", str(path), "--budget", "9"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # Whoever runs the tests in the background has Ctrl-C ignored, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout is not None
            while "step 1" not in process.stdout.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert "at step 2: continue" in out
