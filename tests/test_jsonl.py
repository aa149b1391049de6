"""The record on disk: chunks, crashes, resuming, size."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from grokwatch import Verdict
from grokwatch.records import RecordError, read_run
from grokwatch.sinks.jsonl import _ROWS, JsonlSink

SETTINGS = {"budget": 100, "chance": np.float32(0.5), "forecast": object(), "weight_decay": None}
VERDICT = Verdict(3, "memorisation", 0.5, (1.0, 2.0, 3.0), "continue", "Wait.", {"t2": 2.0})


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_a_record(tmp_path):
    path = tmp_path / "new" / "folder" / "r.jsonl"
    sink = JsonlSink(path, SETTINGS, {"seed": 3})
    for step in range(2500):
        row = {"train_loss": float(np.float32(1 / (step + 1)))}
        if step % 100 == 0:
            row["val_loss"] = 2.0
        sink.observe(step, row)
    sink.verdict(VERDICT, None)
    sink.verdict(VERDICT, "news")
    sink.close()
    sink.close()
    head, *chunks = lines(path)
    assert head["settings"] == {"budget": 100, "chance": 0.5}
    assert [line["type"] for line in chunks] == ["observations"] * 3 + ["verdict"]
    for chunk, start, count in zip(chunks[:3], (0, 1000, 2000), (1000, 1000, 500), strict=True):
        packed = {"from": start, "every": 1, "count": count}
        assert chunk["columns"]["train_loss"]["steps"] == packed
        assert chunk["columns"]["val_loss"]["steps"]["every"] == 100
    assert Verdict.from_dict({k: v for k, v in chunks[3].items() if k != "type"}) == VERDICT
    run = read_run(path)
    assert run.columns["train_loss"][0].tolist() == list(range(2500))
    assert np.array_equal(run.columns["train_loss"][1], (1 / np.arange(1, 2501)).astype(np.float32))
    assert (run.settings, run.notes) == ({"budget": 100, "chance": 0.5}, {"seed": 3})


def test_nan_and_infinities_are_plain_json(tmp_path):
    path = tmp_path / "r.jsonl"
    sink = JsonlSink(path, SETTINGS)
    values = [math.nan, math.inf, -math.inf, 1e-45, 3.4028234663852886e38]
    for step, value in enumerate(values):
        sink.observe(step, {"train_loss": value})
    sink.close()
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    got = read_run(path).columns["train_loss"][1]
    assert np.array_equal(got, np.array(values, np.float32), equal_nan=True)


def test_irregular_steps_are_kept_as_they_are(tmp_path):
    sink = JsonlSink(tmp_path / "r.jsonl", SETTINGS)
    steps = [5, 6, 9, 1000, 2**40]
    for step in steps:
        sink.observe(step, {"train_loss": 1.0})
    sink.close()
    assert read_run(tmp_path / "r.jsonl").columns["train_loss"][0].tolist() == steps


def test_slow_runs_are_written_by_the_clock(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    sink = JsonlSink(tmp_path / "r.jsonl", SETTINGS)
    for step in range(4):
        now[0] += 6.0
        sink.observe(step, {"train_loss": 1.0})
    assert read_run(tmp_path / "r.jsonl").last_step == 3
    sink.close()


def test_ten_million_steps_stay_below_a_gigabyte(tmp_path):
    noise, path, rows = random.Random(0), tmp_path / "r.jsonl", 100_000
    sink = JsonlSink(path, SETTINGS)
    for step in range(1, rows + 1):
        row = {
            "train_loss": 1e-3 * math.exp(noise.gauss(0, 1)),
            "train_accuracy": noise.randrange(1024) / 1024,
        }
        if step % 50 == 0:
            row.update({name: noise.random() for name in ("weight_norm", "grad_norm", "lr", "cos")})
        if step % 100 == 0:
            row.update({name: noise.random() for name in ("val_loss", "val_accuracy")})
        sink.observe(step, row)
    sink.close()
    per_row = path.stat().st_size / rows
    assert per_row * 10**7 < 1e9, f"{per_row:.1f} bytes a row"
    assert per_row < 40  # two decimals, and no steps
    run = read_run(path)
    assert {name: len(steps) for name, (steps, _) in run.columns.items()}["val_loss"] == 1000
    observed = [line for line in lines(path) if line["type"] == "observations"]
    assert len(observed) == rows / _ROWS or len(observed) < 1.1 * rows / _ROWS
    for line in observed:
        for column in line["columns"].values():
            assert isinstance(column["steps"], dict) or len(column["steps"]) < 3


# -- going on ------------------------------------------------------------------------------------


def write(path, steps, resumed_after=None, resumed_row=None, value=1.0):
    sink = JsonlSink(path, SETTINGS, None, resumed_after, resumed_row)
    for step in steps:
        sink.observe(step, {"train_loss": value})
    sink.close()


def test_resuming_takes_back_what_came_after(tmp_path):
    path = tmp_path / "r.jsonl"
    write(path, range(1, 101))
    write(path, range(51, 61), resumed_after=50, value=2.0)
    write(path, range(56, 71), resumed_after=55, value=3.0)
    steps, values = read_run(path).columns["train_loss"]
    assert steps.tolist() == list(range(1, 71))
    assert values.tolist() == [1.0] * 50 + [2.0] * 5 + [3.0] * 15
    assert sum(line["type"] == "run" for line in lines(path)) == 1


def test_of_the_step_itself_only_what_was_known_stays(tmp_path):
    path = tmp_path / "r.jsonl"
    sink = JsonlSink(path, SETTINGS)
    sink.observe(1, {"train_loss": 1.0, "val_loss": 1.0})
    sink.observe(2, {"train_loss": 1.0, "val_loss": 1.0})
    sink.close()
    write(path, [3], resumed_after=2, resumed_row=["train_loss"])
    columns = read_run(path).columns
    assert columns["train_loss"][0].tolist() == [1, 2, 3]
    assert columns["val_loss"][0].tolist() == [1]


def test_resuming_where_there_is_no_record_begins_one(tmp_path):
    write(tmp_path / "r.jsonl", [11, 12], resumed_after=10)
    run = read_run(tmp_path / "r.jsonl")
    assert run.columns["train_loss"][0].tolist() == [11, 12] and run.settings["budget"] == 100


def test_resuming_before_the_first_step_takes_back_everything(tmp_path):
    write(tmp_path / "r.jsonl", [0, 1, 2])
    write(tmp_path / "r.jsonl", [0, 1], resumed_after=-1, resumed_row=[], value=2.0)
    assert read_run(tmp_path / "r.jsonl").columns["train_loss"][1].tolist() == [2.0, 2.0]


def test_after_a_tear_at_any_byte_the_record_reads_and_goes_on(tmp_path):
    whole = tmp_path / "whole.jsonl"
    sink = JsonlSink(whole, SETTINGS)
    for step in range(1, 13):
        sink.observe(step, {"train_loss": 1.0 / step})
        if step % 4 == 0:
            sink.flush()
    sink.close()
    content = whole.read_bytes()
    first = content.index(b"\n") + 1
    for cut in range(first - 1, len(content) + 1):
        path = tmp_path / "torn.jsonl"
        path.write_bytes(content[:cut])
        last = read_run(path).last_step
        assert last in (-1, 4, 8, 12)
        known = max(last, 0)
        write(path, [known + 1, known + 2], resumed_after=known)
        assert read_run(path).last_step == known + 2
    for cut in range(first - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(RecordError, match=r"torn\.jsonl:1"):
            read_run(path)


def test_killed_at_any_moment(tmp_path):
    program = """
        import sys
        from grokwatch.sinks.jsonl import JsonlSink
        sink = JsonlSink(sys.argv[1], {"budget": 100})
        print("go", flush=True)
        step = 0
        while True:
            step += 1
            sink.observe(step, {"train_loss": 1.0 / step, "train_accuracy": 0.5})
            if step % 97 == 0:
                sink.flush()
                print(step, flush=True)
    """
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    pause = random.Random(1)
    for attempt in range(5):
        path = tmp_path / f"{attempt}.jsonl"
        victim = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), str(path)],
            env={**os.environ, "PYTHONPATH": root},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert victim.stdout is not None
        assert victim.stdout.readline() == "go\n"
        time.sleep(pause.uniform(0.005, 0.05))
        victim.send_signal(signal.SIGKILL)
        told = victim.stdout.read().split()
        victim.stdout.close()
        victim.wait()
        # The last line told may itself be torn.
        flushed = int(told[-2]) if len(told) > 1 else 0
        run = read_run(path)
        assert run.last_step >= flushed
        steps, values = run.columns["train_loss"]
        assert np.array_equal(steps, np.arange(1, run.last_step + 1))
        assert np.array_equal(values, (1.0 / steps).astype(np.float32))


# -- faults --------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_an_oserror():
    with pytest.raises(OSError, match="No space left"):
        JsonlSink("/dev/full", SETTINGS)


def test_a_removed_file_is_an_oserror(tmp_path):
    sink = JsonlSink(tmp_path / "r.jsonl", SETTINGS)
    sink.observe(1, {"train_loss": 1.0})
    (tmp_path / "r.jsonl").unlink()
    with pytest.raises(OSError, match="was removed"):
        sink.flush()
    sink.close()
