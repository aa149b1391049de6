"""Files of the shape in which W&B and MLflow export runs.

W&B's charts as found in public repositories; its history as ``run.history().to_csv()`` gives it.
MLflow's as its own web interface writes them (``MetricsPlotPanel``, ``CsvUtils``), and as pandas
writes what ``MlflowClient.get_metric_history`` of MLflow 3.17 gave.
"""

from __future__ import annotations

import numpy as np
import pytest

from grokwatch.records import RecordError, read_run, read_runs

CHART = (
    '"Step","run one - val/acc","run one - val/acc__MIN","run one - val/acc__MAX",'
    '"run - two - val/acc","run - two - val/acc__MIN","run - two - val/acc__MAX"\n'
    '"0","0.1","0.1","0.1","0.2","0.2","0.2"\n'
    '"100","0.5","0.5","0.5","","",""\n'
)
ONE_RUN = "Step,train_loss,train_loss__MIN,train_loss__MAX\n0,4.5,4.25,4.75\n50,2.5,2.5,2.5\n"
OVER_EPOCHS = (
    '"epoch","calm-sea-7 - _step","calm-sea-7 - _step__MIN","calm-sea-7 - _step__MAX",'
    '"calm-sea-7 - train/loss","calm-sea-7 - train/loss__MIN","calm-sea-7 - train/loss__MAX",'
    '"red-fox-9 - _step","red-fox-9 - _step__MIN","red-fox-9 - _step__MAX",'
    '"red-fox-9 - train/loss","red-fox-9 - train/loss__MIN","red-fox-9 - train/loss__MAX"\n'
    '"1","99","99","99","2.5","2.5","2.5","","","","","",""\n'
    '"2","199","199","199","1.5","1.5","1.5","49","49","49","3.5","3.5","3.5"\n'
)
HISTORY = (
    ",_runtime,_timestamp,_step,train/loss,val/acc,note,trainer/global_step\n"
    "0,1.5,1700000000.25,0,2.5,,begin,10\n"
    "1,2.5,1700000001.25,1,1.5,0.25,,20\n"
)
METRIC_PAGE = (
    "run_id,key,value,step,timestamp\n"
    "1e5,train_loss,2.5,0,1700000000000\n"
    "1e5,train_loss,NaN,1,1700000000001\n"
    "1e5,val_accuracy,0.25,1,1700000000002\n"
    "b2,train_loss,1.5,0,1700000000003\n"
)


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def points(run, name):
    steps, values = run.columns[name]
    return list(zip(steps.tolist(), values.tolist(), strict=True))


# -- W&B -----------------------------------------------------------------------------------------


def test_a_chart_of_several_runs(tmp_path):
    path = write(tmp_path, "chart.csv", CHART)
    first, second = read_runs(path)
    assert (first.name, second.name) == ("run one", "run - two")
    assert points(first, "val_accuracy") == [(0, float(np.float32(0.1))), (100, 0.5)]
    assert points(second, "val_accuracy") == [(0, float(np.float32(0.2)))]
    assert list(first.columns) == ["val_accuracy"]
    assert "W&B thins its charts" in first.source["basis"][0]
    with pytest.raises(
        RecordError, match=r"holds 2 runs: run one, run - two\. Pick one with --run"
    ):
        read_run(path)
    assert read_run(path, run="run - two").name == "run - two"
    with pytest.raises(RecordError, match="no run called 'three'"):
        read_run(path, run="three")


def test_a_chart_on_a_runs_own_page(tmp_path):
    run = read_run(write(tmp_path, "loss.csv", ONE_RUN))
    assert run.source["format"] == "wandb" and "W&B thins" in run.source["basis"][0]
    assert list(run.columns) == ["train_loss"]
    assert points(run, "train_loss") == [(0, 4.5), (50, 2.5)]


def test_a_chart_over_epochs_takes_each_runs_step(tmp_path):
    path = write(tmp_path, "chart.csv", OVER_EPOCHS)
    first, second = read_runs(path)
    assert points(first, "train_loss") == [(99, 2.5), (199, 1.5)]
    assert points(second, "train_loss") == [(49, 3.5)] and second.name == "red-fox-9"
    path.write_text(OVER_EPOCHS.replace('"49","49","49"', '"","",""'), encoding="utf-8")
    with pytest.raises(RecordError, match=r":3: the step \(red-fox-9 - _step\) is missing"):
        read_runs(path)
    path.write_text(OVER_EPOCHS.replace('"49","49","49"', '"48.5","48","49"'), encoding="utf-8")
    with pytest.raises(RecordError, match=r":3: the step \(red-fox-9 - _step\) should be a whole"):
        read_runs(path)


def test_a_chart_over_time_says_how_to_export(tmp_path):
    path = write(tmp_path, "chart.csv", CHART.replace("Step", "Relative Time (Process)"))
    with pytest.raises(RecordError, match=r"x axis is 'Relative Time .*, not the step; export it"):
        read_run(path)
    with pytest.raises(RecordError, match=r"no column 'global' \(--map step=global\)"):
        read_run(path, names={"step": "global"})


def test_a_history(tmp_path):
    run = read_run(write(tmp_path, "history.csv", HISTORY))
    assert run.source["format"] == "wandb"
    assert points(run, "train_loss") == [(10, 2.5), (20, 1.5)]  # not by calls of log
    assert points(run, "val_accuracy") == [(20, 0.25)]
    few = read_run(write(tmp_path, "few.csv", ",_step,loss\n0,0,2.5\n1,100,1.5\n"))
    assert few.source["format"] == "wandb" and points(few, "train_loss") == [(0, 2.5), (100, 1.5)]


def test_histories_of_several_runs_are_not_mixed(tmp_path):
    path = write(tmp_path, "all.csv", ",_step,loss,run_id\n0,0,2.5,a1\n1,0,1.5,b2\n")
    with pytest.raises(RecordError, match="'run_id' tells runs apart; write one file for each"):
        read_run(path)


# -- MLflow --------------------------------------------------------------------------------------


def test_the_metric_page(tmp_path):
    path = write(tmp_path, "metrics.csv", METRIC_PAGE)
    first, second = read_runs(path)
    assert (first.name, second.name) == ("1e5", "b2")
    assert points(first, "val_accuracy") == [(1, 0.25)]
    assert np.isnan(first.columns["train_loss"][1][1])
    for line, message in (
        ("b2,train_loss,high,1,5", r":6: train_loss should be a number but is 'high'"),
        ("b2,train_loss,2,-4,5", r":6: step should be a whole number in 0\.\.2\^53 but is '-4'"),
        ("b2,train_loss,2", r":6: 3 cells, but the header has 5"),
    ):
        path.write_text(METRIC_PAGE + line + "\n", encoding="utf-8")
        with pytest.raises(RecordError, match=message):
            read_runs(path)


def test_a_chart_of_an_experiment(tmp_path):
    def quoted(*cells):
        # A cell that a spreadsheet would take for a formula gets an apostrophe.
        return ",".join(f'"{chr(39) if c[0:1] in ("-", "=") else ""}{c}"' for c in cells) + "\n"

    header = quoted("Run", "Run ID", "metric", "step", "timestamp", "value")
    lines = [
        quoted("calm, sea", "a1", "val/margin", "0", "1700000000000", "-2.5"),
        quoted("calm, sea", "a1", "val/margin", "100", "1700000000001", "0.5"),
        quoted("red-fox", "b2", "val/margin", "0", "1700000000002", "-Infinity"),
        quoted("red-fox", "c3", "train_loss", "5", "1700000000003", "1e-7"),
    ]
    runs = read_runs(write(tmp_path, "chart.csv", header + "".join(lines)))
    assert [run.name for run in runs] == ["calm, sea", "red-fox (b2)", "red-fox (c3)"]
    assert points(runs[0], "val_margin") == [(0, -2.5), (100, 0.5)]
    assert points(runs[1], "val_margin") == [(0, -np.inf)]
    assert points(runs[2], "train_loss") == [(5, float(np.float32(1e-7)))]
    group = quoted("Group", "Run ID", "metric", "step", "timestamp", "value")
    group += quoted("lr: 0.1", "", "loss", "1", "1700000000000", "0.5")
    run = read_run(write(tmp_path, "group.csv", group))
    assert run.name == "lr: 0.1" and points(run, "train_loss") == [(1, 0.5)]


def test_a_table_of_metric_entities(tmp_path):
    recent = (
        ",dataset_digest,dataset_name,key,model_id,run_id,step,timestamp,value\n"
        "0,,,loss,,7834f7c1,0,1795395683895,2.5\n1,,,loss,,7834f7c1,10,1795395683896,1.25\n"
    )
    run = read_run(write(tmp_path, "recent.csv", recent))
    assert run.name == "7834f7c1" and run.source["format"] == "mlflow"
    assert points(run, "train_loss") == [(0, 2.5), (10, 1.25)]
    old = ",key,step,timestamp,value\n0,loss,0,1795395683895,2.5\n"
    run = read_run(write(tmp_path, "old.csv", old))
    assert run.name == "old" and points(run, "train_loss") == [(0, 2.5)]
