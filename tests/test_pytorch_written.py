"""Where a watch writes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import textwrap

import pytest

import grokwatch
from grokwatch.records import read_run
from tests.loops import feed, linear_regression


def test_two_watches_of_one_folder_are_kept_apart(tmp_path):
    model, *_ = linear_regression()
    first = grokwatch.watch(model, budget=100, log_dir=tmp_path / "run", tensorboard=False)
    second = grokwatch.watch(model, budget=100, log_dir=tmp_path / "run", tensorboard=False)
    feed(first, 60)
    feed(second, 70)
    saved = json.loads(json.dumps(second.state_dict()))
    first.close()
    second.close()
    assert (first.log_dir, second.log_dir) == (tmp_path / "run", tmp_path / "run-2")
    again = grokwatch.watch(model, budget=100, log_dir=tmp_path / "run", tensorboard=False)
    again.load_state_dict(saved)
    feed(again, 20, start=70)
    again.close()
    assert read_run(tmp_path / "run").last_step == 60
    assert read_run(tmp_path / "run-2").last_step == 90
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run-2"]


def test_an_unusable_folder_is_told_once(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    model, *_ = linear_regression()
    with pytest.warns(RuntimeWarning, match="log_dir failed") as told:
        with grokwatch.watch(model, budget=100, log_dir=tmp_path / "file" / "run") as watch:
            feed(watch, 60)
    assert len(told) == 1
    assert watch._outlet.monitor.last_step == 60


def test_a_folder_removed_under_way_is_told(tmp_path):
    model, *_ = linear_regression()
    with pytest.warns(RuntimeWarning, match="record failed.*was removed") as told:
        with grokwatch.watch(
            model, budget=9000, log_dir=tmp_path / "run", tensorboard=False
        ) as watch:
            feed(watch, 60)
            (tmp_path / "run" / "grokwatch.jsonl").unlink()
            feed(watch, 2000, start=60)
    assert len(told) == 1
    assert watch._outlet.monitor.last_step == 2060


def run_program(program: str, cwd) -> subprocess.CompletedProcess[str]:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_full_disk(tmp_path):
    done = run_program(
        """
        import resource, signal, sys, warnings
        import torch, grokwatch
        import torch.utils.tensorboard
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # no file may grow further
        with grokwatch.watch(model, optimizer, budget=9000, log_dir="run") as watch:
            for step in range(1500):
                loss = model(torch.ones(1, 2)).square().mean() + 1
                optimizer.zero_grad(); loss.backward(); optimizer.step()
                watch.train(loss=loss)
                if step % 20 == 0:
                    watch.validate(loss=loss)
        print("finished", watch._outlet.monitor.last_step)
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "finished 1500\n"
    assert done.stderr.count("record failed and is switched off") == 1
    assert done.stderr.count("tensorboard failed and is switched off") == 1
    assert read_run(tmp_path / "run").last_step > 100  # what was written stays readable


def test_a_watch_that_nobody_closes_still_writes_its_tail(tmp_path):
    done = run_program(
        """
        import torch, grokwatch
        def main(name):
            watch = grokwatch.watch(torch.nn.Linear(2, 2), budget=100, log_dir=name)
            for step in range(1, 70):
                watch.train(loss=1.0 / step)
            return watch
        main("local")
        kept = main("global")
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("local", "global"):
        assert read_run(tmp_path / name).last_step == 69


def test_a_watch_goes_with_its_optimizer():
    model, optimizer, *_ = linear_regression()
    watch = grokwatch.watch(model, optimizer, budget=100)
    ends = watch._finish
    del watch, model, optimizer
    gc.collect()
    assert not ends.alive


def test_only_rank_zero_judges_and_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    model, *_ = linear_regression()
    with grokwatch.watch(model, budget=100, log_dir=tmp_path / "run") as watch:
        feed(watch, 60)
    assert not (tmp_path / "run").exists() and watch._outlet.monitor.last_step is None
