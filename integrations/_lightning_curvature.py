"""The loss of a Lightning module on a kept batch: its own ``training_step``, without a trace."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from grokwatch.integrations._callback import Follower
from grokwatch.integrations._curvature import HOW

_CONTAINERS = (list, dict, set, deque, OrderedDict, defaultdict)

# The trainers of `lightning` and `pytorch_lightning` are different classes of the same shape.
Trainer = Any
Module = Any


def whole(trainer: Trainer) -> bool:
    """Whether every process holds all weights."""
    return trainer.world_size == 1 or "DDP" in type(trainer.strategy).__name__


def follow_curvature(follower: Follower, trainer: Trainer, module: Module) -> None:
    """Measure the curvature of a module's loss while it is fitted.

    Args:
        follower: takes what is measured, and is told what cannot be.
        trainer: with its optimizers.
        module: what is trained.
    """
    prober = follower.curvature
    if prober.probe is None:
        return
    with follower.guard("curvature"):
        if not whole(trainer):
            raise NotImplementedError("the weights are split over several processes")
        if not trainer.optimizers:
            raise ValueError("curvature needs an optimizer, whose steps tell when to measure.")
        if not (module.automatic_optimization or prober.own_loss):
            raise ValueError(f"training_step takes optimiser steps of its own; {HOW}.")
        prober.follow(follower, module, trainer.optimizers[0], training_loss)


class KeepsBatch:
    """Keeps the first training batch for the probe, if that has none."""

    _follower: Follower

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Module, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch."""
        if self._follower.curvature.lacks_batch:
            with self._follower.guard("curvature"):
                self._follower.curvature.take_batch(batch)


def training_loss(model: Module, batch: Any) -> torch.Tensor:
    """The loss that ``training_step`` returns for a batch.

    It runs on a stand-in for the module with the same weights: what it logs goes nowhere, and
    attributes that it sets, lists that it appends to and metrics that it updates are copies.

    Raises:
        TypeError: no loss comes back, or the step takes other arguments.
    """
    with _copied_metrics(model):
        stand_in = _stand_in(model)
        outputs = stand_in.training_step(*_arguments(model, batch))
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if not isinstance(loss, torch.Tensor):
        raise TypeError(f"training_step returned {type(loss).__name__}, not a loss; {HOW}.")
    return loss


def _arguments(module: Module, batch: Any) -> list[Any]:
    names = list(inspect.signature(module.training_step).parameters)
    if names == ["dataloader_iter"]:
        raise TypeError(f"training_step fetches its batches itself; {HOW}.")
    return [batch, 0, 0][: min(max(len(names), 1), 3)]


def _stand_in(module: Module) -> Module:
    kind: Any = type(module)
    stand_in: Module = object.__new__(_silenced(kind))
    for name, value in module.__dict__.items():
        stand_in.__dict__[name] = copy.copy(value) if type(value) in _CONTAINERS else value
    return stand_in


@functools.lru_cache(maxsize=8)
def _silenced(kind: Any) -> Any:
    return type(kind.__name__, (_Silent, kind), {"__module__": kind.__module__})


class _Silent:
    """What a module does besides computing a loss."""

    logger = None
    loggers: tuple[Any, ...] = ()

    def log(self, *_: Any, **__: Any) -> None:
        """Log nothing."""

    def log_dict(self, *_: Any, **__: Any) -> None:
        """Log nothing."""

    def print(self, *_: Any, **__: Any) -> None:
        """Print nothing."""

    def all_gather(self, *_: Any, **__: Any) -> Any:
        """Refuse: the other processes are not there."""
        raise NotImplementedError(f"training_step gathers from other processes; {HOW}.")


@contextlib.contextmanager
def _copied_metrics(module: torch.nn.Module) -> Iterator[None]:
    """Lend copies of the metrics in a module (those of torchmetrics hold their state in them)."""
    own: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for part in list(module.modules()):
            for name, child in list(part._modules.items()):
                if all(callable(getattr(child, f, None)) for f in ("update", "compute", "reset")):
                    own.append((part._modules, name, child))
                    part._modules[name] = copy.deepcopy(child)
        yield
    finally:
        for home, name, child in own:
            home[name] = child
