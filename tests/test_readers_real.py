"""Files made by the real tools, read without options."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from grokwatch import replay
from grokwatch.records import RecordError, read_run, read_runs

torch.set_num_threads(1)


def data():
    source = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=source)
    return x, torch.randint(0, 3, (64,), generator=source)


@pytest.fixture(scope="module")
def lightning_logs(tmp_path_factory):
    import lightning
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    class Net(lightning.LightningModule):
        def __init__(self, lr=1e-2, weight_decay=0.1):
            super().__init__()
            self.save_hyperparameters()
            self.net = torch.nn.Linear(4, 3)
            self.seen = []

        def both(self, batch):
            x, y = batch
            logits = self.net(x)
            accuracy = (logits.argmax(1) == y).float().mean()
            return torch.nn.functional.cross_entropy(logits, y), accuracy

        def training_step(self, batch, index):
            loss, accuracy = self.both(batch)
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            self.log("train/acc", accuracy)
            self.seen.append(float(loss))
            return loss

        def validation_step(self, batch, index):
            loss, accuracy = self.both(batch)
            self.log("val_loss", loss)
            self.log("val/acc", accuracy)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)

    folder = tmp_path_factory.mktemp("lightning")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), 16)
    model = Net()
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        log_every_n_steps=1,
        logger=[CSVLogger(folder / "csv"), TensorBoardLogger(folder / "tb")],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(model, loader, loader)
    return folder, model.seen


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning on loaders and workers
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_lightning(lightning_logs):
    folder, seen = lightning_logs
    run = read_run(folder / "csv")
    assert run.source["format"] == "lightning" and run.name == "lightning_logs/version_0"
    assert run.settings == {"learning_rate": 0.01, "weight_decay": 0.1}
    steps, losses = run.columns["train_loss"]  # at the step, not the mean over the epoch
    assert steps.tolist() == list(range(12))
    assert np.array_equal(losses, np.float32(seen))
    assert run.columns["val_accuracy"][0].tolist() == [3, 7, 11]
    events = read_run(folder / "tb")
    assert events.source["format"] == "tensorboard"
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert np.array_equal(run.columns[name][0], events.columns[name][0])
        assert np.array_equal(run.columns[name][1], events.columns[name][1])
    assert verdicts(run) == verdicts(events)
    with pytest.raises(RecordError, match=r"holds 2 runs: csv/lightning_logs/version_0, tb/light"):
        read_run(folder)
    assert [r.name for r in read_runs(folder)] == [
        "csv/lightning_logs/version_0",
        "tb/lightning_logs/version_0",
    ]


def verdicts(run):
    return [verdict.as_dict() for verdict in replay(run, budget=100).verdicts]


@pytest.fixture(scope="module")
def hf_folder(tmp_path_factory):
    from transformers import Trainer, TrainingArguments

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(4, 3)

        def forward(self, x, labels):
            logits = self.net(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    folder = tmp_path_factory.mktemp("hf") / "out"
    pairs = [{"x": x, "labels": y} for x, y in zip(*data(), strict=True)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=30,
        logging_steps=3,
        eval_strategy="steps",
        eval_steps=6,
        save_steps=10,
        report_to=[],
        per_device_train_batch_size=16,
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        label_names=["labels"],
    )

    def accuracy(predicted):
        return {"accuracy": float((predicted.predictions.argmax(1) == predicted.label_ids).mean())}

    trainer = Trainer(
        model=Net(),
        args=arguments,
        train_dataset=pairs,
        eval_dataset=pairs,
        compute_metrics=accuracy,
    )
    trainer.train()
    return folder, trainer.state.log_history


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_hugging_face_trainer(hf_folder):
    folder, history = hf_folder
    run = read_run(folder)  # of checkpoint-10, -20, -30 the last
    assert run.source["format"] == "trainer_state" and run.name == "out"
    assert run.settings == {"budget": 30}
    losses = [(e["step"], e["loss"]) for e in history if "loss" in e]
    assert run.columns["train_loss"][0].tolist() == [step for step, _ in losses]
    assert np.array_equal(run.columns["train_loss"][1], np.float32([loss for _, loss in losses]))
    assert run.columns["val_accuracy"][0].tolist() == [6, 12, 18, 24, 30]
    assert len(run.columns["grad_norm"][0]) == 10
    basis = " ".join(run.source["basis"])
    assert "train_loss is the mean of about 3 steps a point" in basis
    assert "t1 and t2 are guesses" in basis
    assert replay(run).final.step == 30
    state = folder / "checkpoint-10" / "trainer_state.json"
    assert read_run(state).last_step == 9  # logged every third step


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"trainer_state\.json:1: not JSON"),
        ("[1]", "no list 'log_history'"),
        ('{"log_history": 3}', "no list 'log_history'"),
        ('{"log_history": [3]}', "entry 1 of log_history is no object but 3"),
        ('{"log_history": [{"loss": 1}]}', "entry 1 of log_history has no whole step but None"),
    ],
)
def test_trainer_states_that_are_none(tmp_path, text, message):
    (tmp_path / "trainer_state.json").write_text(text)
    with pytest.raises(RecordError, match=message):
        read_run(tmp_path)


def test_rounded_losses_are_told(tmp_path):
    history = [{"loss": 0.5, "step": 10}, {"loss": math.nan, "step": 20}, {"train_runtime": 1}]
    state = json.dumps({"log_history": history, "max_steps": -1})
    (tmp_path / "trainer_state.json").write_text(state)
    run = read_run(tmp_path)
    assert "budget" not in run.settings and run.last_step == 20
