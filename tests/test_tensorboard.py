"""Event files, read back as TensorBoard reads them."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

import grokwatch
from grokwatch.integrations.tensorboard import LAYOUT, TensorBoardSink
from grokwatch.verdict import PHASES
from tests.conftest import STEPS
from tests.nets import Training

EVERYTHING = {"scalars": 0, "tensors": 0, "images": 0}


def events(folder):
    return EventAccumulator(str(folder), size_guidance=EVERYTHING).Reload()


def series(found, tag):
    return [(event.step, event.value) for event in found.Scalars(f"grokwatch/{tag}")]


@pytest.fixture(scope="module")
def found(recorded):
    return events(recorded.folder)


def test_curves(found, recorded):
    rows = recorded.spy.merged()
    accuracies = [(step, row["val_accuracy"]) for step, row in rows.items() if "val_loss" in row]
    assert series(found, "val_accuracy") == accuracies
    weights = [(step, row["weight_norm"]) for step, row in rows.items() if "weight_norm" in row]
    assert series(found, "weight_norm") == weights
    losses = series(found, "train_loss")
    assert losses == [(step, rows[step]["train_loss"]) for step, _ in losses]
    steps = [step for step, _ in losses]
    assert steps[:10] == list(range(1, 11)) and steps[-1] > 0.97 * STEPS
    assert all(b - a <= max(1, b // 40) for a, b in pairwise(steps))
    assert len(steps) < 250  # thinned


def test_verdicts(found, recorded):
    verdicts = recorded.spy.verdicts
    phases = dict(series(found, "forecast/phase"))
    assert {PHASES[int(p)] for p in phases.values()} == {v.phase for v in verdicts.values()}
    assert list(phases) == list(verdicts)
    assert dict(series(found, "forecast/probability")).keys() == {
        step for step, v in verdicts.items() if v.probability is not None
    }
    low, middle, high = (
        [value for _, value in series(found, f"forecast/{tag}")]
        for tag in ("eta_low", "eta", "eta_high")
    )
    assert low and all(a <= b <= c for a, b, c in zip(low, middle, high, strict=True))


def test_the_page_of_charts_is_there_once_and_names_what_exists(found):
    (config,) = found.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(config.tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == list(LAYOUT)
    tags = [
        tag for charts in LAYOUT.values() for _, chart_tags in charts.values() for tag in chart_tags
    ]
    missing = set(tags) - set(found.Tags()["scalars"])
    assert missing == {"grokwatch/slingshot/spike_amplitude"}  # this run has no spike


def test_news_figure_and_settings(found, recorded):
    news = found.Tensors("grokwatch/news/text_summary")
    assert [event.step for event in news] == [verdict.step for verdict in recorded.news]
    assert b"generalised" in news[-1].tensor_proto.string_val[0]
    images = found.Images("grokwatch/transition")
    assert 1 <= len(images) <= 10 and images[0].encoded_image_string.startswith(b"\x89PNG")
    start = found.SummaryMetadata("_hparams_/session_start_info")
    shown = plugin_data_pb2.HParamsPluginData.FromString(start.plugin_data.content)
    values = shown.session_start_info.hparams
    assert values["budget"].number_value == 5000.0
    assert values["learning_rate"].number_value == pytest.approx(3e-3)


def test_a_resumed_run_purges_what_is_done_again(tmp_path):
    def make(training):
        return grokwatch.watch(
            training.model, training.optimizer, budget=5000, log_dir=tmp_path / "run", norms_every=5
        )

    training = Training()
    watch = make(training)
    training.run(watch, 100)
    saved, twin = json.loads(json.dumps(watch.state_dict())), training.copy()
    training.run(watch, 150)
    watch.close()
    watch = make(twin)
    watch.load_state_dict(saved)
    twin.run(watch, 130)
    watch.close()
    assert len(list((tmp_path / "run").glob("events*"))) == 2
    found = events(tmp_path / "run")
    for tag, every in (("val_loss", 10), ("weight_norm", 5)):
        steps = [step for step, _ in series(found, tag)]
        assert [s for s in steps if s % every == 0] == list(range(every, 131, every))
        assert max(Counter(steps).values()) == 1
    assert len(found.Tensors("custom_scalars__config__")) == 1
    assert max(step for step, _ in series(found, "forecast/phase")) <= 130


def test_validation_at_every_step_leaves_the_training_curve_whole(tmp_path):
    with grokwatch.watch(torch.nn.Linear(1, 1), budget=100, log_dir=tmp_path) as watch:
        for step in range(1, 31):
            watch.train(loss=1.0 / step)
            watch.validate(loss=2.0 / step)
    assert [step for step, _ in series(events(tmp_path), "train_loss")] == list(range(1, 31))


def test_nan_losses(tmp_path):
    with grokwatch.watch(torch.nn.Linear(1, 1), budget=100, log_dir=tmp_path) as watch:
        for step in range(1, 31):
            bad = float("nan") if step > 10 else 1.0
            watch.train(loss=torch.tensor(bad))
            watch.validate(loss=bad, accuracy=bad)
    found = events(tmp_path)
    assert watch.verdict.phase == "diverged"
    assert len(series(found, "val_loss")) == 30
    assert series(found, "forecast/phase")[-1][1] == PHASES.index("diverged")


def test_a_writer_of_somebody_elses_stays_open(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(tmp_path)
    sink = TensorBoardSink(writer, {"budget": 5, "forecast": object()})
    sink.observe(1, {"train_loss": 1.0})
    sink.flush()
    sink.close()
    writer.add_scalar("mine", 1.0, 1)
    writer.close()
    assert {"mine", "grokwatch/train_loss"} <= set(events(tmp_path).Tags()["scalars"])
