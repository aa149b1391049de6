"""One training run of Power et al. 2022: AdamW on mini-batches, seen by grokwatch.

Made to be quick: the data stay on the device and batches are indexed, the training accuracy comes
from the forward pass that trains, validation is seldom and never repeated, and the losses of many
steps leave the device together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from _experiment import Opinion, log_steps
from power_model import Decoder, Equations
from power_tasks import Task
from tasks import split
from torch import Tensor
from torch.nn.functional import cross_entropy

WARM_UP = 10  # steps
BETAS = (0.9, 0.98)
LARGEST_BATCH = 512
CHUNK = 512  # sequences validated at once: what fits a core's cache


class Setting(NamedTuple):
    """What a run depends on besides its task.

    Attributes:
        fraction: of all equations that are trained on.
        layers: of the network.
        width: of the network.
        rate: learning rate after the warm-up.
        decay: weight decay.
        budget: optimiser steps.
        every: steps between validations at most.
        beyond: how far a run goes on once it has generalised, times t4.
        seed: of the split, the weights and the batches.
        scale: of the initial embeddings, see :class:`power_model.Decoder`.
    """

    fraction: float
    layers: int
    width: int
    rate: float
    decay: float
    budget: int
    every: int
    beyond: float
    seed: int
    scale: float = 1.0


def take_step(model: Decoder, optimizer: torch.optim.Optimizer, batch: Equations) -> Tensor:
    """One optimiser step; the loss before it and the share answered right, left on the device."""
    logits = model(batch)
    loss = cross_entropy(logits.flatten(0, 1), batch.answers.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return torch.stack([loss.detach(), hits(logits, batch.answers) / len(batch.which)])


def evaluate(model: Decoder, equations: Equations) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy per answered token, and share of sequences answered without a mistake."""
    loss, right, n = torch.zeros(()), torch.zeros(()), len(equations.which)
    with torch.no_grad():
        for chosen in torch.arange(n, device=equations.which.device).split(CHUNK):
            part = equations.take(chosen)
            logits = model(part)
            tokens = logits.flatten(0, 1), part.answers.flatten()
            loss = loss + cross_entropy(*tokens, reduction="sum")
            right = right + hits(logits, part.answers)
    return loss / equations.answers.numel(), right / n


def hits(logits: Tensor, answers: Tensor) -> Tensor:
    """Number of sequences of which every token is right.

    >>> logits = torch.eye(3)[torch.tensor([[0, 1], [2, 2]])]
    >>> int(hits(logits, torch.tensor([[0, 1], [2, 0]])))
    1
    """
    return (logits.argmax(-1) == answers).all(1).sum()


def batches(n: int, device: torch.device) -> Any:
    """Indices of one batch after another, for ever; the odd remainder waits for a later pass.

    >>> next(batches(10, torch.device("cpu"))).shape
    torch.Size([5])
    """
    size = min(LARGEST_BATCH, (n + 1) // 2)
    while True:
        yield from torch.randperm(n, device=device).split(size)[: n // size]


def start(
    task: Task, setting: Setting, device: str = "cpu"
) -> tuple[Decoder, torch.optim.Optimizer, Equations, Equations]:
    """Network, optimiser, training and validation set of a run."""
    torch.manual_seed(setting.seed)
    model = Decoder(task.n_tokens, setting.layers, width=setting.width, scale=setting.scale)
    model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=setting.rate,
        betas=BETAS,
        weight_decay=setting.decay,
        fused=True,  # the same update in one pass over the memory
    )
    train, val = split(len(task.equations.which), setting.fraction, setting.seed)
    parts = [task.equations.take(torch.from_numpy(part)).to(device) for part in (train, val)]
    return model, optimizer, parts[0], parts[1]


def train(
    task: Task, setting: Setting, advance: Callable[[int], Any], device: str = "cpu"
) -> dict[str, Any]:
    """One run.

    Args:
        task: what is learnt.
        setting: and how.
        advance: called now and then with the number of steps taken since.
        device: of torch.

    Returns:
        ``curves`` (of every step, and of the validations), ``spikes`` (step and decades of each
        slingshot that grokwatch found), ``grokwatch`` (its milestones and verdicts), ``signals``
        (its last).
    """
    model, optimizer, train_set, val_set = start(task, setting, device)
    opinion = Opinion(
        setting.budget,
        chance=task.chance,
        learning_rate=setting.rate,
        weight_decay=setting.decay,
        train_fraction=setting.fraction,
    )
    checks = set(log_steps(setting.budget, per_decade=20).tolist()) | set(
        range(0, setting.budget, setting.every)
    )
    curves: dict[str, list[float]] = {
        name: [] for name in ("loss", "accuracy", "val_step", "val_loss", "val_accuracy")
    }
    spikes: dict[int, float] = {}
    waiting: list[Tensor] = []  # loss and accuracy of steps that have not left the device
    stream = batches(len(train_set.which), train_set.which.device)
    for step in range(setting.budget):
        for group in optimizer.param_groups:
            group["lr"] = setting.rate * min(1.0, (step + 1) / WARM_UP)
        batch = train_set.take(next(stream))
        waiting.append(take_step(model, optimizer, batch))
        if step not in checks and step + 1 < setting.budget:
            continue
        seen = torch.stack(waiting).tolist()
        for at, (one_loss, accuracy) in enumerate(seen, start=step + 1 - len(seen)):
            curves["loss"].append(one_loss)
            curves["accuracy"].append(accuracy)
            opinion.see(at, train_loss=one_loss, train_accuracy=accuracy)
            _note(spikes, opinion)
        val_loss, val_accuracy = (float(value) for value in evaluate(model, val_set))
        opinion.see(step, val_loss=val_loss, val_accuracy=val_accuracy)
        for name, value in (
            ("val_step", step),
            ("val_loss", val_loss),
            ("val_accuracy", val_accuracy),
        ):
            curves[name].append(value)
        advance(len(seen))
        waiting.clear()
        t4 = opinion.monitor.verdict.signals.get("t4")
        if t4 is not None and step > setting.beyond * t4:
            break
    return {
        "curves": {name: np.array(values) for name, values in curves.items()},
        "spikes": sorted(spikes.items()),
        "grokwatch": opinion.beside(),
        "signals": opinion.monitor.verdict.signals,
    }


def _note(spikes: dict[int, float], opinion: Opinion) -> None:
    """Keep the latest slingshot; its height is known when it is over."""
    signals = opinion.monitor.verdict.signals
    if "spike_step" in signals:
        spikes[int(signals["spike_step"])] = signals["spike_amplitude"]
