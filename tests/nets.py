"""A real small network that memorises and then generalises, and a loop that trains it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from models import MLP

from grokwatch import Verdict

torch.set_num_threads(1)

P = 23


def data(fraction: float = 0.6) -> tuple[torch.Tensor, ...]:
    pairs = torch.cartesian_prod(torch.arange(P), torch.arange(P))
    pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(1))]
    y, n = pairs.sum(1) % P, round(fraction * len(pairs))
    return pairs[:n], y[:n], pairs[n:], y[n:]


class Training:
    """Full-batch training of a quadratic network on addition modulo P."""

    def __init__(self, dropout: float = 0.0) -> None:
        torch.manual_seed(0)
        network = MLP(n_tokens=P, width=64, n_classes=P, activation="quadratic")
        self.model = torch.nn.Sequential(network, torch.nn.Dropout(dropout))
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=3e-3, weight_decay=1.0, betas=(0.9, 0.98)
        )
        self.x, self.y, self.x_val, self.y_val = data()
        self.steps = 0

    def step(self) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimiser step; loss and logits before it."""
        logits = self.model(self.x)
        loss = torch.nn.functional.cross_entropy(logits, self.y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        return loss, logits

    def validation(self) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return {"logits": self.model(self.x_val), "targets": self.y_val}

    def run(self, watch: Any, until: int, validate_every: int = 10) -> None:
        while self.steps < until:
            loss, logits = self.step()
            watch.train(loss=loss, logits=logits, targets=self.y)
            if self.steps % validate_every == 0:
                watch.validate(**self.validation())

    def copy(self) -> Training:
        """The same training, as a checkpoint would bring it back."""
        twin = Training()
        twin.model.load_state_dict(copy.deepcopy(self.model.state_dict()))
        twin.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        twin.steps = self.steps
        return twin


class Spy:
    """Keeps every verdict a watch's monitor gives, and every row it gets, in order."""

    def __init__(self, watch: Any) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.verdicts: dict[int, Verdict] = {}  # the last one of each step
        monitor = watch._outlet.monitor
        update = monitor.update

        def listen(step: int, **row: Any) -> Any:
            verdict = update(step, **row)
            self.rows.append((step, row))
            self.verdicts[verdict.step] = verdict
            return verdict

        monitor.update = listen

    def merged(self) -> dict[int, dict[str, float]]:
        """Everything measured at each step."""
        found: dict[int, dict[str, float]] = {}
        for step, row in self.rows:
            found.setdefault(step, {}).update({k: v for k, v in row.items() if v is not None})
        return found
