"""Classification losses in double precision, for derivatives of what a network is sure of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# One minus the probability of the right class: where that is below 1e-6, single precision has
# one digit left of it, and the Hessian of a memorised network is off by a per cent.
_SATURATING = (functional.cross_entropy, functional.binary_cross_entropy_with_logits)


class WideLosses(TorchFunctionMode):
    """Computes cross-entropies in float64 from the logits on; the loss keeps its type.

    The network itself runs as it is, so that this costs next to nothing.

    >>> logits = torch.tensor([[20.0, 0.0]], requires_grad=True)
    >>> target = torch.tensor([0])
    >>> torch.autograd.grad(functional.cross_entropy(logits, target), logits)[0][0, 0].item()
    0.0
    >>> with WideLosses():
    ...     loss = functional.cross_entropy(logits, target)
    >>> round(1e9 * torch.autograd.grad(loss, logits)[0][0, 0].item(), 4), loss.dtype
    (-2.0612, torch.float32)
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call func; with its numbers in float64 if it is such a loss."""
        kwargs = dict(kwargs or {})
        if func not in _SATURATING:
            return func(*args, **kwargs)
        given = args[0] if args else kwargs.get("input")
        if not isinstance(given, Tensor) or given.device.type == "mps":  # which has no float64
            return func(*args, **kwargs)
        loss = func(*map(_wide, args), **{name: _wide(value) for name, value in kwargs.items()})
        return loss.to(given.dtype)


def _wide(value: Any) -> Any:
    floats = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(torch.float64) if floats else value
