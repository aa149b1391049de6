"""The README's snippets for Lightning and Hugging Face, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers import TrainingArguments

from tests.hf_training import Classifier, Indices, Sums
from tests.hf_training import accuracy as compute_accuracy
from tests.lightning_nets import QUIET, Net, loaders

pytestmark = [pytest.mark.filterwarnings(text) for text in QUIET]
README = Path(__file__).resolve().parent.parent / "README.md"


def snippet(name: str) -> str:
    found = re.search(rf"<!-- {name} snippet -->\n```python\n(.*?)```", README.read_text(), re.S)
    assert found is not None, f"the README has no {name} snippet"
    return found.group(1)


def test_lightning(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train_loader, val_loader = loaders(count=2)
    space = {"module": Net(), "train_loader": train_loader, "val_loader": val_loader}
    exec(snippet("lightning"), space)
    assert space["callback"].verdict.step >= 190
    assert space["callback"].verdict.reason in capsys.readouterr().out


def test_huggingface(tmp_path, capsys):
    collator = Sums()
    space = {
        "model": Classifier(),
        "arguments": TrainingArguments(
            str(tmp_path), max_steps=40, eval_strategy="steps", eval_steps=10,
            per_device_train_batch_size=collator.n, use_cpu=True, report_to="none",
        ),
        "train_set": Indices(0, collator.n),
        "val_set": Indices(collator.n, collator.n_val),
        "collator": collator,
        "compute_accuracy": compute_accuracy,
    }  # fmt: skip
    exec(snippet("huggingface"), space)
    assert space["callback"].verdict.step >= 39
    assert space["callback"].verdict.reason in capsys.readouterr().out
