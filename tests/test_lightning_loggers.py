"""Loggers and progress bars of Lightning."""

from __future__ import annotations

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.lightning_nets import (
    GrokWatchCallback,
    Net,
    loaders,
    pl,
    trainer,
)
from tests.lightning_runs import MARKS, follow

pytestmark = MARKS


def test_every_logger_gets_the_verdicts_on_the_axis_of_its_other_curves(tmp_path):
    loggers = [pl.loggers.TensorBoardLogger(tmp_path), pl.loggers.CSVLogger(tmp_path, "csv")]
    callback = GrokWatchCallback()
    (spy,), *_ = follow(tmp_path, callback, max_steps=60, logger=loggers)
    folder = callback.log_dir
    assert str(folder) == loggers[0].log_dir and (folder / "grokwatch.jsonl").is_file()
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    assert len(events.Tensors("custom_scalars__config__")) == 1
    mine = [event.step for event in events.Scalars("grokwatch/val_loss")]
    assert mine == [event.step for event in events.Scalars("val_loss")] == [19, 39, 59]
    phases = [event.step + 1 for event in events.Scalars("grokwatch/forecast/phase")]
    assert sorted(set(phases)) == list(spy.verdicts)
    lines = (folder.parents[1] / "csv/version_0/metrics.csv").read_text().splitlines()
    columns = lines[0].split(",")
    step, phase = columns.index("step"), columns.index("grokwatch/phase")
    rows = [line.split(",") for line in lines[1:]]
    assert sorted({int(row[step]) + 1 for row in rows if row[phase]}) == list(spy.verdicts)


def test_the_trainers_own_bar_shows_the_verdict(tmp_path, capsys):
    shown = []

    class Bar(pl.callbacks.TQDMProgressBar):
        def get_metrics(self, *args):
            found = super().get_metrics(*args)
            shown.append(found.get("grokwatch", ""))
            return found

    fit = trainer(tmp_path, [GrokWatchCallback(), Bar()], max_steps=100, enable_progress_bar=True)
    fit.fit(Net(logs=("step", "bar")), *loaders())
    assert {"confusion", "memorisation"} <= {text.split(" ")[0] for text in shown}
    assert "grokwatch=memorisation" in capsys.readouterr().out.replace("'", "")


def test_a_trial_run_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callback = GrokWatchCallback(stop=True)
    follow(tmp_path, callback, fast_dev_run=3)
    assert callback.verdict.step == 3 and not list(tmp_path.rglob("*.jsonl"))
