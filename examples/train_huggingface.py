"""Train a small causal language model on modular arithmetic with the Hugging Face Trainer, watched.

    python examples/train_huggingface.py                       # groks within minutes on a CPU
    python examples/train_huggingface.py --resume              # from the last checkpoint
    grokwatch replay runs/hf-small-over-seed0

The model is a Llama made from a configuration, nothing is downloaded. A text is three tokens, a, b
and the answer a∘b, on which alone there is a label. What counts as right is the task's business,
so the Trainer is given `answer_accuracy` as `compute_metrics`; in training batches the callback
measures the accuracy by itself, over the tokens that have labels.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import NamedTuple

import torch
from tasks import equations, split
from transformers import EvalPrediction, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from grokwatch.integrations.huggingface import GrokWatchCallback


class Preset(NamedTuple):
    """What the two sizes of run differ in."""

    p: int
    width: int
    layers: int
    fraction: float  # of the table to train on
    lr: float
    budget: int


PRESETS = {
    "small": Preset(31, 64, 1, 0.6, 2e-3, 10_000),
    "paper": Preset(97, 128, 2, 0.5, 1e-3, 50_000),
}
OPERATORS = {"+": "plus", "-": "minus", "*": "times", "/": "over"}  # and what to call them


def collate(texts: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch; the label -100 marks what is not to be learnt."""
    ids = torch.stack(texts)
    labels = ids.clone()
    labels[:, :-1] = -100
    return {"input_ids": ids, "labels": labels}


def answer_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of right answers; the answer is predicted at the token before it."""
    guesses = prediction.predictions[:, -2].argmax(-1)
    return {"accuracy": float((guesses == prediction.label_ids[:, -1]).mean())}


def main() -> int:
    """Train one model; the exit status is 0 if it generalised."""
    parser = argparse.ArgumentParser(description="Train a small language model, watched.")
    parser.add_argument("--operator", choices=OPERATORS, default="/")
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the weights")
    parser.add_argument("--out", type=Path, help="output folder (default: under runs/)")
    parser.add_argument("--no-stop", action="store_true", help="go on until the budget is spent")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    args = parser.parse_args()
    preset = PRESETS[args.preset]
    name = f"hf-{args.preset}-{OPERATORS[args.operator]}-seed{args.seed}"
    logging.basicConfig(format="%(message)s")
    logging.getLogger("grokwatch").setLevel(logging.INFO)

    pairs, answers, n_classes = equations(args.operator, preset.p)
    texts = torch.cat([torch.from_numpy(pairs), torch.from_numpy(answers)[:, None]], 1)
    train, val = split(len(texts), preset.fraction, args.seed)
    torch.manual_seed(args.seed)
    config = LlamaConfig(
        vocab_size=n_classes,
        hidden_size=preset.width,
        intermediate_size=4 * preset.width,
        num_hidden_layers=preset.layers,
        num_attention_heads=4,
    )
    settings = TrainingArguments(
        output_dir=str(args.out or Path("runs") / name),
        max_steps=preset.budget,
        per_device_train_batch_size=min(512, len(train) // 2),
        per_device_eval_batch_size=1024,
        learning_rate=preset.lr,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=10,
        weight_decay=1.0,
        adam_beta2=0.98,
        eval_strategy="steps",
        eval_steps=20,
        save_steps=2000,
        seed=args.seed,
    )
    callback = GrokWatchCallback(
        stop=not args.no_stop, chance=1 / n_classes, train_fraction=preset.fraction
    )
    trainer = Trainer(
        model=LlamaForCausalLM(config),
        args=settings,
        train_dataset=list(texts[train]),
        eval_dataset=list(texts[val]),
        data_collator=collate,
        compute_metrics=answer_accuracy,
        callbacks=[callback],
    )
    trainer.train(resume_from_checkpoint=args.resume or None)
    verdict = callback.verdict
    print(f"step {verdict.step:,}: {verdict.recommendation}. {verdict.reason}")
    return 0 if verdict.phase == "generalised" else 1


if __name__ == "__main__":
    raise SystemExit(main())
