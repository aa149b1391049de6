"""The paper's own model over its sixteen weight decays: 400 steps each, at learning rate 1e-3.

The network is `models.Transformer` (two layers, width 128, p = 97), full batch. Nothing is computed
that the answer does not need: the first two positions see a alone, so they take only p values,
and in the last layer only the last position goes on. That is a third of the work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import Block, Transformer
from phase_net import BETAS, WARM_UP, symmetric_split
from phase_run import early_figures, sidecars
from torch import Tensor
from torch.nn import functional as F

from grokwatch.records import Run, write_csv

P, FRACTION, RATE, STEPS = 97, 0.5, 1e-3, 400
EVERY = 20  # steps between validations
#: Notsawo et al. 2023, Fig. 6 at learning rate 1e-3 and r = .5, read off the figure (about ±5 %):
#: weight decay -> spectral energy of the first 400 steps.
PAPER = {
    0.0: 1.26, 0.2: 1.26, 0.4: 1.25, 0.7: 1.11, 0.9: 1.10, 1.1: 1.04, 1.3: 1.00, 1.6: 0.92,
    1.8: 0.76, 2.0: 0.77, 2.5: 0.57, 3.0: 0.44, 3.5: 0.24, 4.0: 0.0, 4.5: 0.0, 5.0: 0.0,
}  # fmt: skip


def answers(model: Transformer, pairs: Tensor) -> Tensor:
    """What `model(pairs)` says, for two post-norm layers, without what it does not depend on.

    >>> _ = torch.manual_seed(0)
    >>> model = Transformer(7, 7, width=8)
    >>> pairs = torch.tensor([[1, 2], [6, 6], [0, 3]])
    >>> torch.allclose(answers(model, pairs), model(pairs), atol=1e-5)
    True
    """
    first, second = model.blocks
    a, b = pairs.unbind(1)
    p, n = model.operator_token, len(pairs)
    token, place = model.embedding.weight, model.position
    signs = token[p:] + place[1::2]  # operator and "="
    left, right = token[:p] + place[0], token[:p] + place[2]
    # Layer 1 at the first two positions: one sequence for each a.
    early = torch.stack([left, signs[0].expand(p, -1)], 1)
    early = _rest(first, early, _mix(first, *_qkv(first, early), causal=True))
    # ... and at the last two: queries, keys and values from one table row each.
    parts = [_qkv(first, rows) for rows in (left[:, None], signs[None], right[:, None])]
    keys, values = (
        torch.cat(
            [
                F.embedding(a, parts[0][i].flatten(1))[:, None],
                parts[1][i][:, 0].flatten(1).expand(n, 1, -1),
                F.embedding(b, parts[2][i].flatten(1))[:, None],
                parts[1][i][:, 1].flatten(1).expand(n, 1, -1),
            ],
            dim=1,
        ).view(n, 4, *parts[0][i].shape[2:])
        for i in (1, 2)
    )
    queries = torch.stack(
        [F.embedding(b, parts[2][0].flatten(1)), parts[1][0][0, 1].flatten().expand(n, -1)], 1
    ).view(n, 2, *keys.shape[2:])
    late = torch.stack([F.embedding(b, right), signs[1].expand(n, -1)], 1)
    late = _rest(first, late, _mix(first, queries, keys, values, causal=True))
    # Layer 2: the last position asks all four.
    queries, *_ = _qkv(second, late[:, 1:])
    seen = [_qkv(second, rows)[1:] for rows in (early, late)]
    keys, values = (
        torch.cat([F.embedding(a, table.flatten(1)).view(n, 2, *table.shape[2:]), own], 1)
        for table, own in zip(*seen, strict=True)
    )
    out = _rest(second, late[:, 1:], _mix(second, queries, keys, values, causal=False))
    logits: Tensor = model.head(out[:, 0])
    return logits


def _qkv(block: Block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys, values, each (n, positions, heads, size), of x, (n, positions, width)."""
    heads = block.attention.n_heads
    q, k, v = block.attention.qkv(x).view(*x.shape[:2], 3, heads, -1).unbind(2)
    return q, k, v


def _mix(block: Block, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Attention of the queries, which come last; heads side by side."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool)
        scores = scores.masked_fill(future.triu(1 + k.shape[2] - q.shape[2]), -math.inf)
    mixed: Tensor = block.attention.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    return mixed


def _rest(block: Block, x: Tensor, mixed: Tensor) -> Tensor:
    """What a post-norm block does after its attention."""
    x = block.norms[0](x + mixed)
    out: Tensor = block.norms[1](x + block.feed_forward(x))
    return out


def train(decay: float, seed: int, steps: int, advance: Callable[[], Any]) -> Run:
    """One run of the row; its record."""
    x, y, u, v = symmetric_split(P, FRACTION, seed)
    torch.manual_seed(seed)
    model = Transformer(P, P)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, BETAS, weight_decay=decay)
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for step in range(steps):
        logits = answers(model, x)
        loss = F.cross_entropy(logits, y)
        seen = {"train_loss": loss.item()}
        if step % EVERY == 0:
            seen["train_accuracy"] = (logits.argmax(1) == y).float().mean().item()
            with torch.no_grad():
                logits = answers(model, u)
            seen["val_loss"] = F.cross_entropy(logits, v).item()
            seen["val_accuracy"] = (logits.argmax(1) == v).float().mean().item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / WARM_UP)
        optimizer.step()
        for name, value in seen.items():
            at, values = columns.setdefault(name, ([], []))
            at.append(step)
            values.append(value)
        advance()
    settings = {
        "budget": 10_000,  # of the paper, of which this is the beginning
        "chance": 1 / P,
        "learning_rate": RATE,
        "weight_decay": decay,
        "train_fraction": FRACTION,
    }
    notes = {"seed": seed, "task": f"a + b mod {P}, a <= b", **early_figures(columns)}
    arrays = {k: (np.array(at), np.array(to, np.float32)) for k, (at, to) in columns.items()}
    return Run(arrays, settings, f"p{P}_lr{RATE:g}_wd{decay:g}_seed{seed}", notes)


def row(
    decays: Iterable[float], seed: int, folder: Path, advance: Callable[[], Any]
) -> dict[str, Any]:
    """Train what the folder does not hold yet.

    Returns:
        For each weight decay the activity here and the paper's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    decays = list(decays)
    for decay in decays:
        name = f"p{P}_lr{RATE:g}_wd{decay:g}_seed{seed}"
        if name not in sidecars(folder):
            write_csv(train(decay, seed, STEPS, advance), folder / f"{name}.csv")
    done = sidecars(folder)
    return {
        f"{decay:g}": {
            "here": done[f"p{P}_lr{RATE:g}_wd{decay:g}_seed{seed}"]["early_activity"],
            "paper": PAPER[decay],
        }
        for decay in decays
    }
