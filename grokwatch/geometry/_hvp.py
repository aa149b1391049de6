"""Hessian-vector products by double backward on one retained graph, on flat vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from grokwatch.geometry._precision import WideLosses

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | torch.nn.Module


def trainable(params: Params) -> list[Tensor]:
    """The distinct parameters that are trained, in order; tied ones count once.

    Raises:
        TypeError: something is not a tensor.
        ValueError: nothing is trained, or a parameter is complex or an inference tensor.
    """
    found: dict[int, Tensor] = {}
    for item in params.parameters() if isinstance(params, torch.nn.Module) else params:
        tensor: Any = item[1] if isinstance(item, tuple) else item
        if not isinstance(tensor, Tensor):
            raise TypeError(f"params must hold tensors but got {type(tensor).__name__}.")
        if not tensor.requires_grad:
            continue
        if tensor.is_complex():
            raise ValueError("complex parameters have no real Hessian; pass their real view.")
        found[id(tensor)] = tensor
    if not found:
        raise ValueError("no parameter requires a gradient: there is no Hessian to measure.")
    return list(found.values())


class HessianProduct:
    """The Hessian of a loss at the present parameters, as a function of a flat vector.

    Args:
        loss_fn: returns the scalar loss.
        params: distinct parameters that require a gradient.

    Raises:
        TypeError: the loss is not a tensor.
        ValueError: the loss is not a real scalar or has no graph.

    >>> x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    >>> hessian = HessianProduct(lambda: x[0] ** 2 * x[1], [x])  # [[2 b, 2 a], [2 a, 0]]
    >>> hessian(torch.tensor([1.0, 10.0], dtype=torch.float64))
    tensor([24.,  2.], dtype=torch.float64)
    """

    def __init__(self, loss_fn: Callable[[], Tensor], params: list[Tensor]) -> None:
        self.params = params
        self.sizes = [p.numel() for p in params]
        self.n = sum(self.sizes)
        # Half-precision weights get float32 vectors: the iteration needs the digits.
        wide = any(p.dtype == torch.float64 for p in params)
        self.dtype = torch.float64 if wide else torch.float32
        self.device = params[0].device
        self.count = 0
        with WideLosses():
            loss = _checked(loss_fn())
        self.loss = float(loss.detach())
        self._grads: list[tuple[Tensor, int]] = []
        self._gradient: list[Tensor] = []
        if math.isfinite(self.loss):
            gradients = torch.autograd.grad(
                loss, params, create_graph=True, allow_unused=True, materialize_grads=True
            )
            # A gradient without a graph is constant: its rows of the Hessian are zero.
            self._grads = [(g, i) for i, g in enumerate(gradients) if g.requires_grad]
            self._gradient = [g.detach() for g in gradients]

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply the Hessian by a vector of shape (n,)."""
        self.count += 1
        if not self._grads:
            return torch.zeros_like(vector)
        parts = torch.split(vector, self.sizes)
        directions = [parts[i].view(g.shape).to(g) for g, i in self._grads]
        products = torch.autograd.grad(
            [g for g, _ in self._grads],
            self.params,
            directions,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return torch.cat([p.reshape(-1).to(vector) for p in products])

    def alternating(self) -> Tensor | None:
        """The gradient, with its sign turned on every second weight matrix, as a unit vector.

        The gradient lies in the space of large curvature, and costs nothing here. With its own
        signs it sees little of the lower end, where layers pull against each other. Measured in
        docs/curvature.md. Biases go with the weights before them. None where the gradient is
        zero or not finite.
        """
        if not self._gradient:
            return None
        parts, sign, matrices = [], 1.0, 0
        for g in self._gradient:
            if g.dim() > 1:
                sign, matrices = (-1.0) ** matrices, matrices + 1
            parts.append(sign * g.reshape(-1).to(self.dtype))
        vector = torch.cat(parts)
        size = float(torch.linalg.vector_norm(vector, dtype=torch.float64))
        if not 0.0 < size < math.inf:
            return None
        unit: Tensor = vector / size
        return unit

    def draw(self, generator: torch.Generator) -> Tensor:
        """A random unit vector of shape (n,), the same on every device."""
        vector = torch.randn(self.n, generator=generator, dtype=self.dtype)
        unit: Tensor = vector / torch.linalg.vector_norm(vector)
        return unit.to(self.device)


def _checked(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"loss_fn must return the loss as a tensor but returned {type(loss).__name__}."
        )
    if loss.numel() != 1 or not loss.is_floating_point():
        raise ValueError(
            f"loss_fn must return one real number but returned shape {tuple(loss.shape)} of "
            f"{loss.dtype}; take the mean over the batch."
        )
    if not loss.requires_grad:
        raise ValueError(
            "loss_fn returned a loss without a graph; it must not detach it nor run under no_grad."
        )
    return loss.reshape(())
