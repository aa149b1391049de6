"""Crashes, and several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import torch

from grokwatch.replay import replay
from tests.lightning_nets import (
    GrokWatchCallback,
    Net,
)
from tests.lightning_runs import MARKS, ROOT, follow, validated_alike

pytestmark = MARKS


def run(folder, *arguments, timeout=300):
    """The verdicts of a run in a process of its own, and how it ended."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.lightning_nets", str(folder), *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'examples'}"},
    )
    path = folder / "verdicts.json"
    return done, json.loads(path.read_text()) if path.exists() else None


def test_killed_and_resumed(tmp_path):
    done, verdicts = run(tmp_path / "a", "--kill-after", "190")
    assert done.returncode == -9 and verdicts is None, done.stderr
    done, after = run(tmp_path / "a", "--resume", str(tmp_path / "a" / "step=140.ckpt"))
    assert done.returncode == 0, done.stderr
    spies, *_ = follow(
        tmp_path / "b", GrokWatchCallback(budget=300), Net(returns=True), 50, max_steps=300
    )
    whole = [verdict.as_dict() for verdict in spies[0].verdicts.values()]
    record = tmp_path / "a" / "lightning_logs" / "version_1"  # the earlier rows have come along
    replayed = [v.as_dict() for v in replay(record).verdicts]
    assert [v for v in after if v["step"] > 140] == [v for v in replayed if v["step"] > 140]
    if validated_alike(record, spies[0]):
        assert replayed == whole


def ranks(folder):
    return [json.loads((folder / f"rank{i}.json").read_text())["step"] for i in (0, 1)]


def test_two_processes_stop_together(tmp_path):
    done, verdicts = run(tmp_path, "--devices", "2", "--poison-at", "133")
    assert done.returncode == 0, done.stderr
    assert verdicts[-1]["phase"] == "diverged"
    first, second = ranks(tmp_path)
    assert first == second and 133 < first <= 140
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == 1
    assert len(list(tmp_path.rglob("grokwatch.jsonl"))) == 1
    (path,) = tmp_path.rglob("grokwatch-stop*.ckpt")
    assert "GrokWatchCallback[grokwatch]" in torch.load(path, weights_only=True)["callbacks"]


def test_two_processes_of_which_one_runs_out_of_data(tmp_path):
    done, _ = run(tmp_path, "--devices", "2", "--steps", "60", "--uneven")
    assert done.returncode == 0, done.stderr
    assert ranks(tmp_path) == [60, 60]
