"""Which files of a folder are runs, and names that mean harm."""

from __future__ import annotations

import pytest
from torch.utils.tensorboard import SummaryWriter

from grokwatch.records import FORMATS, RecordError, read_run, read_runs

CSV = "step,train_loss\n1,2\n2,1\n"
RECORD = (
    '{"type":"run","format":1,"settings":{"budget":9}}\n'
    '{"type":"observations","columns":{"train_loss":{"steps":[1],"values":[2]}}}\n'
)


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_one_run_wherever_it_lies(tmp_path):
    put(tmp_path / "a" / "b" / "log.csv", CSV)
    put(tmp_path / "a" / "data.csv", "x,y\n1,2\n")  # somebody's data: no steps
    put(tmp_path / "notes.txt", "step")
    put(tmp_path / "model.json", "{}")
    assert read_run(tmp_path).name == "log"


def test_several_runs_are_listed(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / name / "grokwatch.jsonl", RECORD)
    with pytest.raises(RecordError, match=r"holds 2 runs: a, b\. Pick one with --run NAME"):
        read_run(tmp_path)
    assert [run.name for run in read_runs(tmp_path)] == ["a", "b"]
    assert read_run(tmp_path, run="b").name == "b"


def test_the_fullest_file_of_a_run_counts(tmp_path):
    folder = tmp_path / "run"
    with SummaryWriter(folder) as writer:
        writer.add_scalar("train_loss", 1.0, 1)
    assert read_run(tmp_path).source["format"] == "tensorboard"
    put(folder / "metrics.csv", "epoch,step,train_loss\n0,1,2\n")
    assert read_run(tmp_path).source["format"] == "lightning"
    put(folder / "trainer_state.json", '{"log_history": [{"step": 1, "loss": 2}]}')
    assert read_run(tmp_path).source["format"] == "trainer_state"
    put(folder / "grokwatch.jsonl", RECORD)
    put(folder / "version_0" / "metrics.csv", CSV)
    assert read_run(tmp_path).source["format"] == "jsonl"
    assert read_run(folder, format="tensorboard").source["format"] == "tensorboard"
    with pytest.raises(RecordError, match="no wandb run in this folder"):
        read_run(tmp_path, format="wandb")


def test_nothing_there(tmp_path):
    with pytest.raises(RecordError, match="no recorded run in this folder; wanted is"):
        read_run(tmp_path)
    with pytest.raises(RecordError, match="no such file or folder"):
        read_run(tmp_path / "none")
    with pytest.raises(RecordError, match="unknown format 'excel'; known: jsonl, csv"):
        read_run(tmp_path, format="excel")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b"hello\nworld\n", b"{}", b"[1, 2]"])
def test_any_format_refuses_what_is_no_run_of_it(tmp_path, format, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(RecordError, match="file"):
        run = read_run(path, format=format)
        if run.last_step < 0:
            raise RecordError("file: empty")
