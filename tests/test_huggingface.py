"""The callback in real Trainers: what it takes, from where, and what it does not disturb."""

from __future__ import annotations

import copy
import logging
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback

import grokwatch
from grokwatch.integrations.huggingface import GrokWatchCallback
from grokwatch.records import read_run
from grokwatch.replay import replay
from tests.hf_training import (
    Classifier,
    Poison,
    Watched,
    accuracy,
    column,
    grokking,
    language_model,
    logged,
    make,
    verdicts,
)
from tests.loops import CountScalars


@pytest.fixture
def messages(caplog):
    """The log of grokwatch, as text."""
    caplog.set_level(logging.INFO, logger="grokwatch")
    return lambda: caplog.text


# -- what is taken -------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("lm", [False, True])
def test_step_losses_and_validations_are_the_trainers_own(tmp_path, lm, accumulate):
    callback = GrokWatchCallback(norms_every=0)
    trainer = make(
        tmp_path,
        callback,
        lm=lm,
        max_steps=15,
        eval_steps=5,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=accumulate,
        max_grad_norm=0.0,
    )
    trainer.train()
    run = read_run(tmp_path)
    losses, wanted = column(run, "train_loss"), logged(trainer, "loss")
    assert losses.keys() == wanted.keys() == set(range(1, 16))
    # With logging_steps=1 the logged mean is that of one step; it is summed in another order.
    assert np.allclose([*losses.values()], [*wanted.values()], rtol=1e-6)
    assert column(run, "val_loss") == logged(trainer, "eval_loss")
    assert column(run, "val_accuracy") == logged(trainer, "eval_accuracy")
    assert [*column(run, "val_loss")] == [5, 10, 15]
    assert 10 < callback.verdict.step <= 15


def test_train_accuracy_is_that_of_the_answers(tmp_path):
    """Evaluating on the training data before the only step must say the same."""
    for lm in (False, True):
        folder = tmp_path / str(lm)
        callback = GrokWatchCallback()
        trainer = make(folder, callback, lm=lm, max_steps=1, per_device_train_batch_size=512)
        before = trainer.evaluate(trainer.train_dataset)["eval_accuracy"]
        trainer.train()
        assert column(folder, "train_accuracy") == {1: np.float32(before)}


def test_settings_are_found_and_told(tmp_path, messages):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 23}
    config = BertConfig(**sizes, intermediate_size=16, num_labels=23, problem_type=None)
    model = BertForSequenceClassification(config)
    trainer = make(
        tmp_path,
        GrokWatchCallback(train_fraction=0.6, notes={"task": "sums"}),
        model=model,
        max_steps=3,
        eval_steps=3,
        warmup_steps=2,
    )
    batches = trainer.data_collator
    trainer.data_collator = lambda chosen: {
        {"x": "input_ids"}.get(key, key): value for key, value in batches(chosen).items()
    }
    trainer.train()
    run = read_run(tmp_path)
    assert run.settings == {
        "budget": 3,
        "chance": 1 / 23,
        "learning_rate": 3e-3,
        "weight_decay": 1.0,
        "train_fraction": 0.6,
    }
    assert run.notes["optimizer"] == "AdamW" and run.notes["task"] == "sums"
    assert run.notes["model"] == "BertForSequenceClassification"
    for told in ("budget = 3", "learning_rate = 0.003", "weight_decay = 1.0", "chance = 0.04"):
        assert told in messages()
    assert "'eval_accuracy'" in messages() and "train_fraction" not in messages()


def test_validation_every_epoch_and_bfloat16(tmp_path):
    trainer = make(
        tmp_path,
        GrokWatchCallback(),
        lm=True,
        max_steps=-1,
        num_train_epochs=3,
        eval_strategy="epoch",
        bf16=True,
    )
    trainer.train()
    run = read_run(tmp_path)
    assert [*column(run, "val_loss")] == [5, 10, 15]
    assert np.allclose(
        [*column(run, "train_loss").values()], [*logged(trainer, "loss").values()], rtol=1e-6
    )
    assert run.settings["budget"] == 15


def test_same_verdicts_from_callback_watch_and_replay(tmp_path):
    callback = GrokWatchCallback(chance=1 / 23)
    watched = Watched(callback)
    trainer = grokking(tmp_path / "hf", callback, watched)
    trainer.train()
    live, rows = verdicts(watched.spy), watched.spy.merged()
    assert callback.verdict.phase == "generalised" and len(live) > 50
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replayed = replay(tmp_path / "hf").verdicts
    assert {v.step: v for v in replayed} == watched.spy.verdicts

    with grokwatch.watch(
        Classifier(), budget=1400, chance=1 / 23, learning_rate=5e-3, weight_decay=1.0
    ) as watch:
        from tests.nets import Spy

        spy = Spy(watch)
        for step, row in rows.items():
            val = {n.removeprefix("val_"): v for n, v in row.items() if n.startswith("val_")}
            train = {n.removeprefix("train_"): v for n, v in row.items() if n not in val}
            train = {n: v for n, v in train.items() if not n.startswith("val_")}
            watch.train(step=step, **train)
            if val:
                watch.validate(step=step, **val)
    assert verdicts(spy) == live


def test_training_is_the_same_with_and_without(tmp_path):
    weights = []
    for name, callbacks in {"with": [GrokWatchCallback(norms_every=3)], "without": []}.items():
        trainer = make(tmp_path / name, *callbacks, max_steps=20)
        trainer.train()
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
        assert not trainer.model._forward_hooks
    assert torch.equal(*weights)


def test_no_host_sync_per_step(tmp_path, monkeypatch):
    monkeypatch.setattr("grokwatch.integrations._drain._SECONDS", 1e9)
    monkeypatch.setattr("grokwatch.integrations._drain._AT_ONCE", False)  # a CPU as if far off
    monkeypatch.setattr("grokwatch.integrations._norms.SMALL", -1)
    counts = []
    for name, callbacks in {"with": [GrokWatchCallback(norms_every=0)], "without": []}.items():
        trainer = make(
            tmp_path / name, *callbacks, max_steps=200, eval_strategy="no", logging_steps=100
        )
        with CountScalars() as counter:
            trainer.train()
        counts.append(counter.count)
    assert counts[0] <= counts[1] and counts[1] > 200  # draining reads stacks, never one scalar


def test_compiled_model(tmp_path):
    callback = GrokWatchCallback()
    trainer = make(
        tmp_path, callback, max_steps=4, eval_steps=2, torch_compile=True,
        torch_compile_backend="eager",
    )  # fmt: skip
    trainer.train()
    assert np.allclose(
        [*column(tmp_path, "train_loss").values()], [*logged(trainer, "loss").values()], rtol=1e-6
    )


# -- the loss is not in the model's output -------------------------------------------------------


def own_loss(outputs, labels, num_items_in_batch=None):
    return 2 * torch.nn.functional.cross_entropy(outputs["logits"], labels)


def test_logged_means_where_the_model_returns_no_loss(tmp_path, messages):
    trainer = make(
        tmp_path,
        GrokWatchCallback(),
        trainer={"compute_loss_func": own_loss},
        logging_steps=4,
        eval_steps=6,
        max_steps=20,
    )
    trainer.train()
    assert column(tmp_path, "train_loss") == logged(trainer, "loss")
    assert [*column(tmp_path, "train_loss")] == [4, 8, 12, 16, 20]
    assert "the model returns no loss" in messages()


@pytest.mark.parametrize("by_log", [False, True])
def test_nan_weights_are_a_divergence_behind_the_nan_filter(tmp_path, by_log):
    callback = GrokWatchCallback(stop=True)
    trainer = make(
        tmp_path,
        callback,
        Poison(),
        trainer={"compute_loss_func": own_loss} if by_log else {},
        eval_strategy="no",
        max_steps=60,
    )
    trainer.train()
    filtered = logged(trainer, "loss")
    assert trainer.args.logging_nan_inf_filter and filtered[14] == 0.0  # the trap is there
    assert callback.verdict.phase == "diverged"
    assert callback.verdict.recommendation == "stop_diverged"
    assert 13 <= trainer.state.global_step < 20
    assert (tmp_path / f"checkpoint-{trainer.state.global_step}").is_dir()


# -- keys ----------------------------------------------------------------------------------------


def test_missing_key_warns_once_and_training_goes_on(tmp_path):
    callback = GrokWatchCallback(val_accuracy="exact_match", stop=True)
    trainer = make(tmp_path, callback, max_steps=25, eval_steps=5)
    with pytest.warns(RuntimeWarning) as caught:
        trainer.train()
    (message,) = [str(w.message) for w in caught if "grokwatch" in str(w.message)]
    assert "no 'exact_match' (wanted as val_accuracy)" in message
    assert "eval_loss, eval_accuracy, eval_runtime" in message
    assert trainer.state.global_step == 25


def test_missing_key_raises_if_wanted(tmp_path):
    callback = GrokWatchCallback(val_accuracy="exact_match", on_error="raise")
    trainer = make(tmp_path, callback, max_steps=25, eval_steps=5)
    with pytest.raises(LookupError, match="the keys there are: eval_loss, eval_accuracy"):
        trainer.train()
    assert trainer.state.global_step == 5


def test_nothing_found(tmp_path):
    class NoLoss(Classifier):
        def forward(self, x, labels=None):
            return super().forward(x, labels if self.training else None)

    callback = GrokWatchCallback(on_error="raise")
    metrics = lambda prediction: {"f1": 0.5}  # noqa: E731
    trainer = make(tmp_path, callback, model=NoLoss(), metrics=metrics, eval_steps=5)
    trainer.label_names = []
    with pytest.raises(LookupError, match=r"neither a loss nor an accuracy.*are: eval_"):
        trainer.train()


def test_key_named_without_prefix_and_percent(tmp_path):
    metrics = lambda prediction: {"em": 100.0 * accuracy(prediction)["accuracy"]}  # noqa: E731
    callback = GrokWatchCallback(val_accuracy="em", accuracy_unit="percent", train_accuracy=False)
    trainer = make(tmp_path, callback, metrics=metrics, max_steps=10)
    trainer.train()
    wanted = {step: np.float32(v / 100) for step, v in logged(trainer, "eval_em").items()}
    assert column(tmp_path, "val_accuracy") == pytest.approx(wanted)


def test_losses_alone(tmp_path, messages):
    callback = GrokWatchCallback()
    make(tmp_path, callback, metrics=None, max_steps=10).train()
    assert "The evaluation reports no accuracy" in messages()
    assert set(read_run(tmp_path).columns) >= {"train_loss", "val_loss"}


def test_several_validation_sets(tmp_path):
    callback = GrokWatchCallback(val_accuracy="eval_second_accuracy", val_loss="eval_second_loss")
    trainer = make(tmp_path, callback, max_steps=20)
    trainer.eval_dataset = {"first": trainer.train_dataset, "second": trainer.eval_dataset}
    trainer.train()
    assert column(tmp_path, "val_accuracy") == logged(trainer, "eval_second_accuracy")
    first = logged(trainer, "eval_first_loss")
    assert column(tmp_path, "val_loss") == logged(trainer, "eval_second_loss") != first


def test_first_validation_set_unless_told(tmp_path):
    trainer = make(tmp_path, GrokWatchCallback(), max_steps=20)
    trainer.eval_dataset = {"one": trainer.eval_dataset, "two": trainer.train_dataset}
    trainer.train()
    assert column(tmp_path, "val_loss") == logged(trainer, "eval_one_loss")


def test_evaluation_outside_training_is_left_alone(tmp_path):
    callback = GrokWatchCallback()
    trainer = make(tmp_path, callback, max_steps=10)
    trainer.evaluate()
    assert callback.verdict.phase == "unknown"
    trainer.train()
    before = callback.verdict
    trainer.evaluate(trainer.train_dataset)
    assert callback.verdict is before


# -- where it is shown ---------------------------------------------------------------------------


def test_one_event_file_with_the_layout(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    trainer = make(tmp_path / "run", GrokWatchCallback(), max_steps=40, report_to="tensorboard")
    trainer.train()
    (events,) = tmp_path.rglob("*tfevents*")
    found = EventAccumulator(str(events), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    assert "custom_scalars__config__" in found.Tags()["tensors"]
    assert {"train/loss", "grokwatch/train_loss", "grokwatch/forecast/phase"} <= {
        *found.Tags()["scalars"]
    }
    validation = {e.step: e.value for e in found.Scalars("grokwatch/val_loss")}
    assert validation == column(tmp_path / "run", "val_loss")


def test_own_events_if_asked(tmp_path):
    make(tmp_path, GrokWatchCallback(tensorboard=True), max_steps=10).train()
    assert len([*tmp_path.rglob("*tfevents*")]) == 1
    make(tmp_path / "b", GrokWatchCallback(log_dir=False), max_steps=10).train()
    assert not (tmp_path / "b" / "grokwatch.jsonl").exists()


class Logger(TrainerCallback):
    def __init__(self) -> None:
        self.lines = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.lines.append((state.global_step, dict(logs)))


def test_other_loggers_get_the_forecast(tmp_path):
    logger, callback = Logger(), GrokWatchCallback()
    trainer = make(tmp_path, logger, callback, max_steps=40)
    trainer.train()
    lines = [(at, logs) for at, logs in logger.lines if "grokwatch/phase" in logs]
    assert lines and all(logs["grokwatch/step"] <= at for at, logs in lines)
    assert not any("grokwatch/phase" in line for line in trainer.state.log_history)
    assert lines[-1][1]["grokwatch/step"] == callback.verdict.step


def test_verdict_in_the_progress_bar(tmp_path, capsys):
    trainer = make(tmp_path, GrokWatchCallback(), max_steps=20, disable_tqdm=False)
    trainer.train()
    assert "confusion]" in capsys.readouterr().err


# -- robustness ----------------------------------------------------------------------------------


def test_wrong_arguments_raise_at_once():
    for wrong in (
        {"on_stop": "explode"},
        {"on_error": "ignore"},
        {"stop_on": ("stop_soon",)},
        {"chance": 2.0},
        {"on_verdict": 3},
        {"norms_every": -1},
    ):
        with pytest.raises((ValueError, TypeError)):
            GrokWatchCallback(**wrong)
    with pytest.raises(TypeError):
        GrokWatchCallback(learning_rat=1e-3)


def test_what_the_user_calls_may_fail(tmp_path):
    def broken(verdict):
        raise OSError("no network")

    callback = GrokWatchCallback(on_verdict=broken)
    trainer = make(tmp_path, callback, max_steps=20)
    with pytest.warns(RuntimeWarning, match="on_verdict failed and is switched off"):
        trainer.train()
    assert callback.verdict.step > 10 and trainer.state.global_step == 20


def test_training_twice_makes_two_runs(tmp_path, messages):
    callback = GrokWatchCallback()
    trainer = make(tmp_path / "run", callback, max_steps=10)
    trainer.train()
    trainer.train()
    assert callback.log_dir == tmp_path / "run-2"
    assert [*column(tmp_path / "run-2", "val_loss")] == [10]


def test_copies_and_pickles():
    callback = GrokWatchCallback(stop=True, chance=0.1)
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert twin is not callback and isinstance(twin, GrokWatchCallback)
        assert type(twin)() is twin and twin._stop


def test_model_with_two_outputs_in_a_tuple(tmp_path):
    class Tuple(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Classifier()

        def forward(self, x, labels=None):
            output = self.inner(x, labels)
            return output["loss"], output["logits"]

    trainer = make(tmp_path, GrokWatchCallback(), model=Tuple(), max_steps=10)
    trainer.train()
    assert np.allclose(
        [*column(tmp_path, "train_loss").values()], [*logged(trainer, "loss").values()], rtol=1e-6
    )


def test_language_model_says_nothing_on_chance(tmp_path):
    make(tmp_path, GrokWatchCallback(), model=language_model(), lm=True, max_steps=2).train()
    assert "chance" not in read_run(tmp_path).settings


def test_missing_package_names_the_extra():
    program = (
        "import sys; sys.modules['transformers'] = None; import grokwatch.integrations.huggingface"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ModuleNotFoundError" in done.stderr
    assert "pip install 'grokwatch[huggingface]'" in done.stderr
