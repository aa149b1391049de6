"""Train a two-layer transformer on modular arithmetic, watched.

    python examples/train_pytorch.py                                  # groks within a minute
    python examples/train_pytorch.py --operator "x^2+y^2" --seed 3
    python examples/train_pytorch.py --preset paper --operator +      # hours on a CPU
    tensorboard --logdir runs

The preset "paper" is the set-up of Power et al. 2022 (arXiv:2201.02177) with weight decay 1, under
which that network groks in thousands of optimiser steps. A symmetric operator trains on less of
its table, because a network soon takes the mirror image b∘a of every a∘b for granted: that share
of the validation set is known early, and the rest is what grokking adds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from models import Transformer
from tasks import equations, split
from torch.nn.functional import cross_entropy

import grokwatch


class Preset(NamedTuple):
    """What the two sizes of run differ in."""

    p: int
    width: int
    norm: Literal["pre", "post"]
    symmetric_fraction: float  # of the table to train on, for operators with a∘b = b∘a
    other_fraction: float
    lr: float
    budget: int


PRESETS = {
    "small": Preset(31, 32, "pre", 0.4, 0.6, 2e-3, 20_000),
    "paper": Preset(97, 128, "post", 0.3, 0.5, 1e-3, 50_000),
}
# Operator, and what to call its log folder.
OPERATORS = {"+": "plus", "-": "minus", "*": "times", "/": "over", "x^2+y^2": "squares"}
SYMMETRIC = ("+", "*", "x^2+y^2")
WEIGHT_DECAY = 1.0
BETAS = (0.9, 0.98)
WARM_UP = 10  # steps
LARGEST_BATCH = 512
VALIDATE_EVERY = 20  # steps


def main() -> int:
    """Train one network; the exit status is 0 if it generalised."""
    parser = argparse.ArgumentParser(description="Train a two-layer transformer, watched.")
    parser.add_argument("--operator", choices=OPERATORS, default="/")
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the weights")
    parser.add_argument("--out", type=Path, help="log folder (default: under runs/)")
    parser.add_argument("--budget", type=int, help="optimiser steps (default: the preset's)")
    parser.add_argument("--no-stop", action="store_true", help="go on until the budget is spent")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    preset = PRESETS[args.preset]
    budget = preset.budget if args.budget is None else args.budget
    symmetric = args.operator in SYMMETRIC
    fraction = preset.symmetric_fraction if symmetric else preset.other_fraction
    name = f"{args.preset}-{OPERATORS[args.operator]}-seed{args.seed}"

    torch.manual_seed(args.seed)
    pairs, answers, n_classes = equations(args.operator, preset.p)
    x = torch.from_numpy(pairs).to(args.device)
    y = torch.from_numpy(answers).to(args.device)
    train, val = split(len(pairs), fraction, args.seed)
    x_train, y_train, x_val, y_val = x[train], y[train], x[val], y[val]
    n_train = len(train)
    batch = min(LARGEST_BATCH, n_train // 2)

    model = Transformer(n_classes, n_classes, width=preset.width, norm=preset.norm)
    model.to(args.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=preset.lr, betas=BETAS, weight_decay=WEIGHT_DECAY
    )
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / WARM_UP, total_iters=WARM_UP - 1)

    with grokwatch.watch(
        model,
        optimizer,
        budget=budget,
        log_dir=args.out or Path("runs") / name,
        chance=1 / n_classes,
        learning_rate=preset.lr,  # the optimizer itself starts at a tenth, for the warm-up
        train_fraction=fraction,
        console=True,
        notes={"task": f"{args.operator} mod {preset.p}", "seed": args.seed},
    ) as watch:
        for step in range(budget):
            start = step * batch % (n_train - n_train % batch)
            if start == 0:  # a new pass over the data; the odd remainder waits for a later one
                order = torch.randperm(n_train, device=args.device)
            chosen = order[start : start + batch]
            logits = model(x_train[chosen])
            loss = cross_entropy(logits, y_train[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            warm_up.step()
            watch.train(loss=loss, logits=logits, targets=y_train[chosen])
            if step % VALIDATE_EVERY == 0:
                with torch.no_grad():
                    watch.validate(logits=model(x_val), targets=y_val)
            if watch.should_stop and not args.no_stop:
                break

    verdict = watch.verdict
    print(f"step {verdict.step:,}: {verdict.recommendation}. {verdict.reason}")
    print(f"tensorboard --logdir {watch.log_dir}")
    return 0 if verdict.phase == "generalised" else 1


if __name__ == "__main__":
    raise SystemExit(main())
