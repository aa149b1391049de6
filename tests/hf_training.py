"""Real Trainers on tasks small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import MLP
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from grokwatch.integrations.huggingface import GrokWatchCallback
from grokwatch.records import Run, read_run
from tests.nets import P, Spy, data

torch.set_num_threads(1)


class Indices(torch.utils.data.Dataset):
    """Example i is a number that the collator looks up; an epoch may go round several times."""

    def __init__(self, first: int, n: int, rounds: int = 1) -> None:
        self.first, self.n, self.rounds = first, n, rounds

    def __len__(self) -> int:
        return self.n * self.rounds

    def __getitem__(self, index: int) -> int:
        return self.first + index % self.n


class Classifier(torch.nn.Module):
    """A quadratic network that memorises addition modulo P, then generalises."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = MLP(n_tokens=P, width=64, n_classes=P, activation="quadratic")

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, Any]:
        logits = self.net(x)
        if labels is None:
            return {"logits": logits}
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def language_model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"n_positions": 8, "n_embd": 16, "n_layer": 1, "n_head": 2}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = GPT2Config(vocab_size=P, **sizes, **dropout, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config)


class Sums:
    """Batches of pairs and their sums; validation pairs come after the training ones."""

    def __init__(self, sequences: bool = False) -> None:
        x, y, x_val, y_val = data()
        self.x, self.y = torch.cat([x, x_val]), torch.cat([y, y_val])
        self.n, self.n_val = len(x), len(x_val)
        self.sequences = sequences

    def __call__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        chosen = torch.tensor(indices)
        x, y = self.x[chosen], self.y[chosen]
        if not self.sequences:
            return {"x": x, "labels": y}
        ids = torch.cat([x, y[:, None]], 1)
        labels = ids.clone()
        labels[:, :-1] = -100
        return {"input_ids": ids, "labels": labels}


def accuracy(prediction: Any) -> dict[str, float]:
    logits, labels = prediction.predictions, prediction.label_ids
    if logits.ndim == 3:
        logits, labels = logits[:, -2], labels[:, -1]
    return {"accuracy": float(np.mean(logits.argmax(-1) == labels))}


class Watched(TrainerCallback):
    """Spies on the monitor of a callback, from before the first step of a training."""

    def __init__(self, callback: GrokWatchCallback) -> None:
        self.callback = callback
        self.spy: Spy | None = None

    def on_epoch_begin(self, args, state, control, **kwargs):
        if self.spy is None:
            self.spy = Spy(self.callback._follower)


class Poison(TrainerCallback):
    """Makes all weights NaN after a step."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 12:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.fill_(torch.nan)


def make(
    folder: Path,
    *callbacks: TrainerCallback,
    lm: bool = False,
    rounds: int = 1,
    metrics: Any = accuracy,
    model: torch.nn.Module | None = None,
    trainer: dict[str, Any] | None = None,
    **changes: Any,
) -> Trainer:
    batches = Sums(sequences=lm)
    chosen: dict[str, Any] = {
        "max_steps": 60,
        "per_device_train_batch_size": 64,
        "per_device_eval_batch_size": 512,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "weight_decay": 1.0,
        "adam_beta2": 0.98,
        "eval_strategy": "steps",
        "eval_steps": 10,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "label_names": ["labels"],
        "seed": 0,
        **changes,
    }
    return Trainer(
        model=model if model is not None else language_model() if lm else Classifier(),
        args=TrainingArguments(output_dir=str(folder), **chosen),
        train_dataset=Indices(0, batches.n, rounds),
        eval_dataset=Indices(batches.n, batches.n_val),
        data_collator=batches,
        compute_metrics=metrics,
        callbacks=list(callbacks),
        **(trainer or {}),
    )


def logged(trainer: Trainer, key: str) -> dict[int, float]:
    """A metric as the Trainer logged it, step -> float32 value."""
    history = trainer.state.log_history
    return {line["step"]: float(np.float32(line[key])) for line in history if key in line}


def column(run: Run | Path, name: str) -> dict[int, float]:
    steps, values = (run if isinstance(run, Run) else read_run(run)).columns[name]
    return dict(zip(steps.tolist(), values.tolist(), strict=True))


def grokking(folder: Path, *callbacks: TrainerCallback, **changes: Any) -> Trainer:
    """A training that generalises after about a thousand steps."""
    settings = {"max_steps": 1400, "rounds": 100, "logging_steps": 100}
    settings |= {"per_device_train_batch_size": 317, "learning_rate": 5e-3, "eval_steps": 20}
    return make(folder, *callbacks, **{**settings, **changes})


def verdicts(spy: Spy, after: int = -1) -> dict[int, dict[str, Any]]:
    kept = {step: v.as_dict() for step, v in spy.verdicts.items() if step > after}
    return json.loads(json.dumps(kept))
