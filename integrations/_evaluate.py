"""Loss, accuracy and margin of logits, on their own device."""

from __future__ import annotations

import torch


def evaluate(
    logits: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cross-entropy, accuracy and margin, 0-d tensors on the device of the logits.

    Args:
        logits: shape (..., classes), at least two classes.
        targets: class indices of shape (...); negative ones, such as -100, are left out.

    Raises:
        TypeError: not a pair of tensors.
        ValueError: shapes that do not fit.

    >>> loss, accuracy, margin = evaluate(torch.tensor([[2., 0.], [0., 1.]]), torch.tensor([0, 0]))
    >>> float(accuracy), float(margin)
    (0.5, 0.5)
    """
    flat, index = _flat(logits, targets)
    with torch.no_grad():
        counts = index >= 0
        column = index.clamp(min=0)[:, None]
        right = flat.gather(1, column)[:, 0]
        margin = right - flat.scatter(1, column, -torch.inf).amax(1)
        loss = flat.logsumexp(1) - right
        return _mean(loss, counts), _mean(flat.argmax(1) == index, counts), _mean(margin, counts)


def accuracy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The accuracy alone; arguments and errors as for :func:`evaluate`."""
    _check(logits, targets)
    hits = (logits.detach().argmax(-1) == targets).sum()  # a negative target equals no class
    return hits / (targets >= 0).sum()


def _flat(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Shapes (n, classes) and (n,), checked."""
    _check(logits, targets)
    flat = logits.detach().reshape(-1, logits.shape[-1])
    return flat.float(), targets.detach().reshape(-1).long()


def _check(logits: torch.Tensor, targets: torch.Tensor) -> None:
    if not isinstance(logits, torch.Tensor) or not isinstance(targets, torch.Tensor):
        raise TypeError(
            f"logits and targets must both be tensors, but are "
            f"{type(logits).__name__} and {type(targets).__name__}."
        )
    if logits.ndim < 2 or logits.shape[:-1] != targets.shape or logits.shape[-1] < 2:
        raise ValueError(
            f"logits must have shape (..., classes) and targets (...), but got "
            f"{tuple(logits.shape)} and {tuple(targets.shape)}."
        )


def _mean(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Mean of the values that count; NaN if none does."""
    return torch.where(counts, values.float(), 0.0).sum() / counts.sum()
