"""TensorBoard event files: every point, restarts, broken files, and grokwatch's own tags."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

import grokwatch
from grokwatch import Monitor, replay
from grokwatch.integrations.tensorboard import TensorBoardSink
from grokwatch.records import RecordError, read_run, write_csv
from tests.curves import GOLDEN
from tests.nets import Spy, Training


def event_file(folder):
    (path,) = folder.glob("*tfevents*")
    return path


def verdicts(result):
    return [verdict.as_dict() for verdict in result.verdicts]


def test_every_point_is_read_and_tags_are_guessed(tmp_path):
    with SummaryWriter(tmp_path / "run") as writer:
        for step in range(12_000):  # beyond TensorBoard's reservoir of 10,000
            writer.add_scalar("loss/train", 1 / (step + 1), step)
        writer.add_scalar("acc/val", 0.5, 11, new_style=True)
        writer.add_scalar("acc/val", np.float64(0.75), 12, new_style=True)
        writer.add_text("remarks", "none", 3)
        writer.add_histogram("weights", np.arange(9.0), 3)
    run = read_run(tmp_path / "run")
    assert run.name == "run"
    assert run.source["names"] == {"train_loss": "loss/train", "val_accuracy": "acc/val"}
    steps, values = run.columns["train_loss"]
    assert np.array_equal(steps, np.arange(12_000))
    assert np.array_equal(values, (1 / np.arange(1.0, 12_001)).astype(np.float32))
    assert list(zip(*map(np.ndarray.tolist, run.columns["val_accuracy"]), strict=True)) == [
        (11, 0.5),
        (12, 0.75),
    ]
    assert read_run(event_file(tmp_path / "run")).last_step == 11_999


@pytest.mark.parametrize("name", ["grokker", "slingshot"])
def test_the_same_observations_from_jsonl_csv_and_events(name, tmp_path):
    """One verdict stream: live, from the record, from CSV, from events under our tags."""
    record = read_run(GOLDEN / f"{name}.jsonl")
    live, monitor = [], Monitor(**record.settings)
    sink = TensorBoardSink(tmp_path / "tb", record.settings)
    with sink.writer as writer:
        for step, row in record.rows():
            for part in ("train", "val"):  # training first, validation later, as in a loop
                measured = {n: v for n, v in row.items() if n.startswith("val_") == (part == "val")}
                if measured:
                    verdict = monitor.update(step, **measured)
                    if live and live[-1].step == verdict.step:
                        live.pop()
                    if not live or verdict is not live[-1]:
                        live.append(verdict)
                for measurement, value in measured.items():
                    writer.add_scalar(f"grokwatch/{measurement}", value, step)
            writer.add_scalar("loss", -1.0, step)  # somebody else's
        sink.verdict(live[0], None)
    write_csv(record, tmp_path / "r.csv")
    want = [verdict.as_dict() for verdict in live]
    assert len(want) > 60
    assert verdicts(replay(GOLDEN / f"{name}.jsonl")) == want
    assert verdicts(replay(tmp_path / "r.csv")) == want
    events = read_run(tmp_path / "tb")
    assert events.source["names"] == {} and "loss" not in events.columns
    assert events.settings == {k: v for k, v in record.settings.items() if k in events.settings}
    assert {"budget", "chance", "learning_rate", "weight_decay"} <= set(events.settings)
    assert verdicts(replay(tmp_path / "tb", **record.settings)) == want


def test_what_a_watch_writes(recorded, tmp_path):
    """A watch's own folder is read from its record; its events alone say that they are thinned."""
    assert read_run(recorded.folder).source["format"] == "jsonl"
    events = read_run(recorded.folder, format="tensorboard")
    assert "thins training curves" in events.source["basis"][0]
    assert events.settings["budget"] == 5000
    full = read_run(recorded.folder)
    assert np.array_equal(events.columns["val_accuracy"][0], full.columns["val_accuracy"][0])
    assert np.array_equal(events.columns["val_accuracy"][1], full.columns["val_accuracy"][1])


def test_a_watch_that_reports_rarely_loses_nothing_in_its_events(tmp_path):
    training = Training()
    watch = grokwatch.watch(
        training.model, training.optimizer, budget=900, log_dir=tmp_path / "run", chance=1 / 23
    )
    with watch:
        spy = Spy(watch)
        training.run(watch, 79, validate_every=5)  # up to here the curve is not thinned
    (tmp_path / "run" / "grokwatch.jsonl").unlink()
    run = read_run(tmp_path / "run")
    assert run.source["format"] == "tensorboard"
    got = {verdict.step: verdict.as_dict() for verdict in replay(run).verdicts}
    assert got == {step: verdict.as_dict() for step, verdict in spy.verdicts.items()}


def test_a_restart_that_purges(tmp_path):
    with SummaryWriter(tmp_path, filename_suffix=".0") as writer:
        for step in range(10):
            writer.add_scalar("train_loss", 1.0, step)
            writer.add_scalar("val_loss", 1.0, step)
    with SummaryWriter(tmp_path, purge_step=5, filename_suffix=".1") as writer:
        for step in range(5, 8):
            writer.add_scalar("train_loss", 2.0, step)
    first, second = sorted(tmp_path.glob("*tfevents*"), key=lambda path: path.suffix)
    first.rename(tmp_path / "events.out.tfevents.0000000001.host")
    second.rename(tmp_path / "events.out.tfevents.0000000002.host")
    run = read_run(tmp_path)
    assert run.columns["train_loss"][1].tolist() == [1.0] * 5 + [2.0] * 3
    assert run.columns["val_loss"][0].tolist() == [0, 1, 2, 3, 4]


def test_a_restart_that_does_not(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        for step, value in ((1, 1.0), (2, 1.0), (3, 1.0), (2, 2.0), (4, 2.0)):
            writer.add_scalar("train_loss", value, step)
    with pytest.warns(UserWarning, match=r"steps go back .*; 1 value was logged again"):
        run = read_run(tmp_path)
    assert run.columns["train_loss"][1].tolist() == [1.0, 2.0, 1.0, 2.0]


def test_cut_off_and_broken_files(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        for step in range(5):
            writer.add_scalar("train_loss", 1.0, step)
    path = event_file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])  # a writer at work
    assert read_run(tmp_path).last_step == 3
    at = whole.index(b"train_loss") - 30
    path.write_bytes(whole[:at] + b"\xff" * 40 + whole[at + 40 :])
    with pytest.raises(RecordError, match=r"holds no observations|not a TensorBoard event file"):
        with pytest.warns(UserWarning, match=r"broken at byte \d+; what follows is left out"):
            replay(tmp_path, budget=9)
    path.write_bytes(b"hello, I am no event file at all")
    with pytest.raises(RecordError, match=r"tfevents.*: not a TensorBoard event file"):
        read_run(tmp_path)


def test_no_event_file(tmp_path):
    with pytest.raises(RecordError, match="no tensorboard run in this folder"):
        read_run(tmp_path, format="tensorboard")
