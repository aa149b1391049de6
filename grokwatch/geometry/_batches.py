"""What a probe needs to know of a batch: its loss, its tensors, its size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss


def standard_loss(model: torch.nn.Module, batch: Any) -> Tensor:
    """The loss of a mapping that a model scores itself, or of a pair (inputs, targets).

    Args:
        model: what is trained.
        batch: a mapping for ``model(**batch).loss``, or a pair; integer targets of shape (...)
            need logits of shape (..., classes), others predictions of their own shape.

    Raises:
        TypeError: the batch is neither.
        ValueError: predictions and targets do not fit.
    """
    loss: Tensor
    if isinstance(batch, Mapping):
        loss = model(**batch).loss
        return loss
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TypeError(
            f"a batch must be a pair (inputs, targets) or a mapping but is "
            f"{type(batch).__name__}; otherwise pass loss_fn=."
        )
    inputs, targets = batch
    outputs = model(inputs)
    if not targets.is_floating_point():
        return cross_entropy(outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1))
    if outputs.shape != targets.shape:
        raise ValueError(
            f"predictions of shape {tuple(outputs.shape)} and targets of shape "
            f"{tuple(targets.shape)} do not fit; pass loss_fn=."
        )
    return mse_loss(outputs, targets)


def each_tensor(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor in nested tuples, lists and mappings."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {key: each_tensor(value, change) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)([each_tensor(value, change) for value in batch])
    return batch


def size_of(batch: Any) -> str:
    """Number of examples, as words; "" if there is no tensor.

    >>> size_of((torch.zeros(7, 2), torch.zeros(7)))
    '7 examples'
    """
    found: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(len(tensor) if tensor.dim() else 1)
        return tensor

    each_tensor(batch, note)
    return f"{found[0]} examples" if found else ""
