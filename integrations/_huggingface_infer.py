"""What a Trainer says about the run: settings of the monitor, notes for the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers.trainer_callback import TrainerState
from transformers.training_args import TrainingArguments

from grokwatch.integrations._distributed import is_split


def infer(
    state: TrainerState, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None
) -> dict[str, Any]:
    """Settings of :class:`grokwatch.Monitor`; None for what cannot be told."""
    groups = [] if optimizer is None else optimizer.param_groups
    return {
        "budget": int(state.max_steps) or None,
        # A schedule may begin at zero; biases and norms are usually spared the decay.
        "learning_rate": _largest(groups, "initial_lr") or _largest(groups, "lr"),
        "weight_decay": _largest(groups, "weight_decay"),
        "chance": chance_of(model),
    }


def notes_of(
    args: TrainingArguments, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None
) -> dict[str, Any]:
    """What is worth keeping with the record."""
    return {
        "trainer": "transformers",
        "model": type(model).__name__,
        "optimizer": None if optimizer is None else type(inner(optimizer)).__name__,
        "seed": args.seed,
        "processes": args.world_size,
    }


def chance_of(model: torch.nn.Module) -> float | None:
    """One in the number of classes, for a classifier with one right class; else None.

    A language model's vocabulary says nothing on how many answers are possible.
    """
    whole = getattr(model, "get_base_model", lambda: model)()  # inside an adapter of PEFT
    config = getattr(whole, "config", None)
    classes = getattr(config, "num_labels", 0)
    kind = getattr(config, "problem_type", None) or "single_label_classification"
    if "Classification" not in type(whole).__name__ or kind != "single_label_classification":
        return None
    return 1.0 / classes if isinstance(classes, int) and classes >= 2 else None


def can_measure_norms(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> bool:
    """Whether this process holds all weights, and an optimizer that has hooks."""
    setting = getattr(optimizer, "accelerator_state", None)
    kind = str(getattr(setting, "distributed_type", "NO")).rpartition(".")[2]
    return (
        kind in ("NO", "MULTI_CPU", "MULTI_GPU")
        and not is_split(model)
        and hasattr(inner(optimizer), "register_step_post_hook")
    )


def inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside Accelerate's wrapper, which runs no hooks of its own."""
    found: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return found


def _largest(groups: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [g[key] for g in groups if isinstance(g.get(key), (int, float, torch.Tensor))]
    return max(map(float, values), default=None)
