"""How much faster examples/power_train.py trains than a straightforward loop.

    python benchmarks/transformer_speed.py
    python benchmarks/transformer_speed.py --rounds 10 --p 31 --layers 1 --width 32

The network of Power et al. 2022 on division mod p, half of the table, the same weights, batch size
and number of steps. The straightforward loop takes batches from a DataLoader over a TensorDataset,
feeds whole sequences, runs the network once more for the training accuracy and validates after
every epoch. Every line below it drops one of these habits; the last is the trainer of the examples.
All take turns, so that a busy machine slows all of them; processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from _experiment import Opinion
from power_model import Decoder, Equations
from power_tasks import task
from power_train import BETAS, LARGEST_BATCH, Setting, batches, evaluate, start, take_step

VALIDATE_EVERY = 50  # steps, as the trainer does in its preset "paper"


class Loops:
    """The ways to train; each takes ``steps`` steps, with all the measuring that belongs to it."""

    def __init__(self, p: int, layers: int, width: int, steps: int) -> None:
        self.steps = steps
        self.task = task("/", p)
        self.setting = Setting(0.5, layers, width, 1e-3, 1.0, 10**6, VALIDATE_EVERY, 1.0, 0)

    def straightforward(self, again: bool = True, every: int | None = None) -> Decoder:
        """A DataLoader, whole sequences; ``again`` for the training accuracy, validation.

        Args:
            again: whether the network is run a second time for the training accuracy.
            every: steps between validations; None: after every epoch.
        """
        model, _, train_set, val_set = start(self.task, self.setting)
        rate, decay = self.setting.rate, self.setting.decay
        optimizer = torch.optim.AdamW(model.parameters(), rate, BETAS, weight_decay=decay)
        size = min(LARGEST_BATCH, (len(train_set.which) + 1) // 2)
        loader, val_loader = (
            DataLoader(TensorDataset(one.whole().rest, one.answers[:, 0]), size, **options)
            for one, options in (
                (train_set, {"shuffle": True, "drop_last": True}),
                (val_set, {}),
            )
        )
        taken = 0
        while taken < self.steps:
            for rows, answers in loader:
                logits = _answer(model, rows)
                loss = cross_entropy(logits, answers)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()
                if again:
                    with torch.no_grad():
                        logits = _answer(model, rows)
                float((logits.argmax(1) == answers).float().mean())
                taken += 1
                if every is not None and taken % every == 0:
                    self._validate(model, val_loader)
                if taken == self.steps:
                    break
            if every is None:
                self._validate(model, val_loader)
        return model

    @staticmethod
    def _validate(model: Decoder, loader: DataLoader[tuple[Tensor, ...]]) -> None:
        loss, right = 0.0, 0
        with torch.no_grad():
            for rows, answers in loader:
                logits = _answer(model, rows)
                loss += float(cross_entropy(logits, answers, reduction="sum"))
                right += int((logits.argmax(1) == answers).sum())

    def on_device(self, shared: bool = True, watched: bool = True) -> Decoder:
        """The trainer's step on indexed tensors.

        Args:
            shared: whether the beginnings of the sequences are computed once.
            watched: whether grokwatch sees the run, as it does in the trainer.
        """
        model, optimizer, train_set, val_set = start(self.task, self.setting)
        if not shared:
            train_set, val_set = train_set.whole(), val_set.whole()
        opinion = Opinion(10**6, chance=self.task.chance)
        stream, waiting = batches(len(train_set.which), train_set.which.device), []
        for step in range(self.steps):
            waiting.append(take_step(model, optimizer, train_set.take(next(stream))))
            if (step + 1) % VALIDATE_EVERY and step + 1 < self.steps:
                continue
            seen = torch.stack(waiting).tolist()
            waiting.clear()
            val_loss, val_accuracy = (float(value) for value in evaluate(model, val_set))
            if watched:
                for at, (loss, accuracy) in enumerate(seen, start=step + 1 - len(seen)):
                    opinion.see(at, train_loss=loss, train_accuracy=accuracy)
                opinion.see(step, val_loss=val_loss, val_accuracy=val_accuracy)
        return model


def _answer(model: Decoder, rows: Tensor) -> Tensor:
    """Logits after the last token, from a network that computes every position."""
    nothing = rows[:0, :0], rows[:, 0]
    logits: Tensor = model(Equations(*nothing, rows, rows))[:, -1]
    return logits


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Speed of the transformer trainer.")
    parser.add_argument("--p", type=int, default=97)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    loops = Loops(args.p, args.layers, args.width, args.steps)
    ways: dict[str, Callable[[], Decoder]] = {
        "straightforward loop": loops.straightforward,
        "... without a second forward pass": lambda: loops.straightforward(again=False),
        "... and validating as seldom as the trainer": lambda: loops.straightforward(
            again=False, every=VALIDATE_EVERY
        ),
        "trainer, sequences fed whole": lambda: loops.on_device(shared=False),
        "trainer": loops.on_device,
    }
    loops.steps = 2
    for way in ways.values():  # what the first steps of a process cost is no part of it
        way()
    loops.steps = args.steps
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            began = time.process_time()
            way()
            seconds[name].append(time.process_time() - began)
    print(
        f"p = {args.p}, {args.layers} layers of width {args.width}, {args.steps} steps a round, "
        f"{args.rounds} rounds in turn, one thread, load average {os.getloadavg()[0]:.1f}\n"
    )
    print(f"{'':46} {'ms a step':>10} {'times as fast':>14} {'range':>12}")
    base = seconds["straightforward loop"]
    for name, taken in seconds.items():
        ratios = [slow / quick for slow, quick in zip(base, taken, strict=True)]
        each = 1000 * statistics.median(taken) / args.steps
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(f"{name:46} {each:10.1f} {statistics.median(ratios):14.2f} {spread:>12}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
