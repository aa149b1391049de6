"""Norms of weights, gradients and updates, read on a cadence through optimizer hooks.

Everything stays on the device: the numbers are zero-dimensional tensors until somebody drains
them. Nothing here changes a parameter, a gradient or a random number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

#: The update angle needs a copy of all weights for one step; larger models do without it.
MAX_PARAMETERS_FOR_ANGLE = 10_000_000

Number = torch.Tensor | float


class NormProbe:
    """Measures every ``every`` optimiser steps: norms, update angle, learning rate.

    Args:
        model: whose parameters are measured.
        every: cadence in optimiser steps.
    """

    def __init__(self, model: torch.nn.Module, every: int) -> None:
        self.every = every
        self.parameters = [p for p in model.parameters() if p.numel()]
        matrices = [p for p in self.parameters if p.ndim >= 2]
        self.last_layer = matrices[-1] if matrices else None
        self._angle = sum(p.numel() for p in self.parameters) <= MAX_PARAMETERS_FOR_ANGLE
        self._before: list[torch.Tensor] | None = None

    def due(self, step: int) -> bool:
        """Whether the optimiser step numbered ``step`` (from 1) is measured."""
        return step % self.every == 0 or step == 1

    @torch.no_grad()
    def before_step(self) -> None:
        """Keep the weights for the update angle."""
        if self._angle:
            self._before = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def after_step(self, optimizer: torch.optim.Optimizer) -> dict[str, Number]:
        """What can be measured right after an optimiser step."""
        found: dict[str, Number] = {}
        weights = _norm(self.parameters)
        if weights is not None:
            found["weight_norm"] = weights
        if self.last_layer is not None:
            found["last_layer_norm"] = torch.linalg.vector_norm(self.last_layer.detach())
        gradients = _norm([p.grad for p in self.parameters if p.grad is not None])
        if gradients is not None:
            found["grad_norm"] = gradients
        if self._before is not None and weights is not None:
            distance = _cosine_distance(self._before, self.parameters, weights)
            if distance is not None:
                found["update_cosine_distance"] = distance
        self._before = None
        if optimizer.param_groups:
            found["learning_rate"] = optimizer.param_groups[0]["lr"]
        return found


def _norm(tensors: Sequence[Any]) -> torch.Tensor | None:
    """Euclidean norm over all tensors, as a 0-d float32 tensor on the first one's device."""
    dense = [t.detach() for t in tensors if t.layout == torch.strided]
    if not dense:
        return None
    home = dense[0].device
    norms = [n.to(home, torch.float32, non_blocking=True) for n in torch._foreach_norm(dense)]
    return torch.linalg.vector_norm(torch.stack(norms))


def _cosine_distance(
    before: list[torch.Tensor], after: list[torch.nn.Parameter], after_norm: torch.Tensor
) -> torch.Tensor | None:
    """``1 - cos(θ_t, θ_{t+1})`` from lengths, since the cosine itself rounds to 1 in float32.

    With u, v the vectors: 1 - cos = (‖u-v‖² - (‖u‖-‖v‖)²) / (2 ‖u‖ ‖v‖).
    """
    before_norm = _norm(before)
    moved = _norm(torch._foreach_sub([p.detach() for p in after], before))
    if before_norm is None or moved is None:
        return None
    u, v, d = before_norm.double(), after_norm.double(), moved.double()
    return ((d * d - (u - v) ** 2) / (2 * u * v)).clamp(min=0.0)
