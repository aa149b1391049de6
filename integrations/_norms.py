"""Norms of weights, gradients and updates, read on a cadence through optimizer hooks.

Everything stays on the device: the numbers are zero-dimensional tensors until somebody drains
them. Nothing here changes a parameter, a gradient or a random number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

#: The update angle needs a copy of all weights for one step; larger models do without it.
MAX_PARAMETERS_FOR_ANGLE = 10_000_000

_PIECE = 16_384
_HALF = (torch.float16, torch.bfloat16)

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
        after = [p.detach() for p in self.parameters]
        weights = _norm(after)
        if weights is not None:
            found["weight_norm"] = weights
        last = None if self.last_layer is None else _norm([self.last_layer.detach()])
        if last is not None:
            found["last_layer_norm"] = last
        gradients = _norm([p.grad for p in self.parameters if p.grad is not None])
        if gradients is not None:
            found["grad_norm"] = gradients
        if self._before is not None:
            distance = _cosine_distance(self._before, after, weights)
            if distance is not None:
                found["update_cosine_distance"] = distance
        self._before = None
        if optimizer.param_groups:
            found["learning_rate"] = optimizer.param_groups[0]["lr"]
        return found


def _norm(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Euclidean norm over all tensors, as a 0-d float32 tensor on the first one's device.

    None if there is none, or if one is sparse: the norm of the rest would say something else.
    """
    if not tensors or any(t.layout != torch.strided for t in tensors):
        return None
    norms: list[torch.Tensor] = []
    for half in (False, True):  # in half precision a norm would overflow, or round to 3 digits
        group = [p for t in tensors if (t.dtype in _HALF) == half for p in _pieces(t)]
        if group:
            norms += torch._foreach_norm(group, 2, dtype=torch.float32 if half else None)
    norm: torch.Tensor = torch.linalg.vector_norm(_stack(norms, tensors[0].device))
    return norm


def _pieces(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """The tensor in parts that torch sums well: on a CPU, 10^8 entries at once cost it 1 %."""
    return torch.split(tensor.reshape(-1), _PIECE) if tensor.device.type == "cpu" else (tensor,)


def _cosine_distance(
    before: Sequence[torch.Tensor], after: Sequence[torch.Tensor], v_norm: torch.Tensor | None
) -> torch.Tensor | None:
    """``1 - cos(θ_t, θ_{t+1})`` by way of the update, since the cosine itself rounds to 1.

    With u, v the vectors, d = ‖v - u‖ and r = ‖v‖ - ‖u‖ = <v - u, v + u> / (‖v‖ + ‖u‖):
    1 - cos = (d - r) (d + r) / (2 ‖u‖ ‖v‖), and nothing close to 1 is subtracted.
    """
    before, after = [_wide(t) for t in before], [_wide(t) for t in after]
    moves = [v - u for u, v in zip(before, after, strict=True)]
    dots = [(move * (u + v)).sum() for move, u, v in zip(moves, before, after, strict=True)]
    u_norm, d = _norm(before), _norm(moves)
    if u_norm is None or v_norm is None or d is None:
        return None
    r = _stack(dots, d.device).sum() / (u_norm + v_norm)
    distance: torch.Tensor = ((d - r) / u_norm * ((d + r) / v_norm) / 2.0).clamp(min=0.0)
    return distance


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Real and in at least single precision."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.float() if real.dtype in _HALF else real


def _stack(scalars: Sequence[torch.Tensor], home: torch.device) -> torch.Tensor:
    return torch.stack([scalar.to(home, torch.float32) for scalar in scalars])
