"""Norms of weights, gradients and updates, read on a cadence through optimizer hooks.

Everything stays on the device: the numbers are zero-dimensional tensors until somebody drains
them. Nothing here changes a parameter, a gradient or a random number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from grokwatch.integrations._norms_small import SMALL, FloatArray, cosine_distance, flat, norm

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
        entries = sum(p.numel() for p in self.parameters)
        self._angle, self._small = entries <= MAX_PARAMETERS_FOR_ANGLE, entries <= SMALL
        self._before: list[torch.Tensor] | FloatArray | None = None

    def next_after(self, step: int) -> int:
        """The first optimiser step after ``step`` (numbered from 1) that is measured."""
        return step - step % self.every + self.every if step > 0 else 1

    def before_step(self) -> None:
        """Keep the weights for the update angle."""
        if self._angle:
            self._before = flat(self.parameters) if self._small else None
            if self._before is None:
                self._before = [p.detach().clone() for p in self.parameters]

    @np.errstate(all="ignore")  # NaN and inf are news, not mistakes
    def after_step(self, optimizer: torch.optim.Optimizer) -> dict[str, Number]:
        """What can be measured right after an optimiser step."""
        before, self._before = self._before, None
        grads = [p.grad for p in self.parameters if p.grad is not None]
        after = flat(self.parameters) if self._small else None
        if after is None:
            moved = before if isinstance(before, list) else None
            found = self._of_tensors(grads, moved)
        else:
            found = self._of_vectors(
                after, grads, before if isinstance(before, np.ndarray) else None
            )
        if optimizer.param_groups:
            found["learning_rate"] = optimizer.param_groups[0]["lr"]
        return found

    def _of_vectors(
        self, after: FloatArray, grads: list[torch.Tensor], before: FloatArray | None
    ) -> dict[str, Number]:
        found: dict[str, Number] = {"weight_norm": norm(after)}
        last = None if self.last_layer is None else flat([self.last_layer])
        if last is not None:
            found["last_layer_norm"] = norm(last)
        gradient = flat(grads)
        if gradient is not None:
            found["grad_norm"] = norm(gradient)
        else:
            with torch.no_grad():
                found |= _norms({"grad_norm": grads})
        if before is not None:
            found["update_cosine_distance"] = cosine_distance(before, after)
        return found

    @torch.no_grad()
    def _of_tensors(
        self, grads: list[torch.Tensor], before: list[torch.Tensor] | None
    ) -> dict[str, Number]:
        after = [p.detach() for p in self.parameters]
        groups: dict[str, Sequence[torch.Tensor]] = {
            "weight_norm": after,
            "last_layer_norm": [] if self.last_layer is None else [self.last_layer.detach()],
            "grad_norm": grads,
        }
        move = Move(before, after) if before else None
        if move is not None:
            groups |= {"before": move.before, "moves": move.moves}
        norms = _norms(groups)
        found: dict[str, Number] = {name: norms[name] for name in list(groups)[:3] if name in norms}
        if move is not None and {"weight_norm", "before", "moves"} <= norms.keys():
            found["update_cosine_distance"] = move.cosine_distance(
                norms["before"], norms["weight_norm"], norms["moves"]
            )
        return found


def _norms(groups: Mapping[str, Sequence[torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Euclidean norm over all tensors of a group, a 0-d float32 tensor on the first one's device.

    All groups in few calls: of a small network a call costs more than what it computes. A group
    that is empty or holds a sparse tensor has none: the norm of the rest would say something else.
    """
    pieces: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    owners: dict[bool, list[str]] = {False: [], True: []}
    for name, tensors in groups.items():
        if all(tensor.layout == torch.strided for tensor in tensors):
            for tensor in tensors:
                half = tensor.dtype in _HALF
                parts = _pieces(tensor)
                pieces[half] += parts
                owners[half] += [name] * len(parts)
    norms: dict[str, list[torch.Tensor]] = {}
    for half in (False, True):  # in half precision a norm would overflow, or round to 3 digits
        if pieces[half]:
            dtype = torch.float32 if half else None
            found = torch._foreach_norm(pieces[half], 2, dtype=dtype)
            for name, norm in zip(owners[half], found, strict=True):
                norms.setdefault(name, []).append(norm)
    stacked = [_stack(parts, groups[name][0].device) for name, parts in norms.items()]
    return dict(zip(norms, torch._foreach_norm(stacked, 2) if stacked else (), strict=True))


def _pieces(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """The tensor in parts that torch sums well: on a CPU, 10^8 entries at once cost it 1 %."""
    whole = tensor.device.type != "cpu" or (tensor.numel() <= _PIECE and tensor.is_contiguous())
    return (tensor,) if whole else torch.split(tensor.reshape(-1), _PIECE)


class Move:
    """What an optimiser step did to the weights.

    Args:
        before: the weights before it, u in the end.
        after: the weights now, v.
    """

    def __init__(self, before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> None:
        self.before, after = [_wide(t) for t in before], [_wide(t) for t in after]
        self.moves = torch._foreach_sub(after, self.before)
        products = torch._foreach_mul(self.moves, torch._foreach_add(self.before, after))
        self._dots = [product.sum() for product in products]

    def cosine_distance(
        self, u_norm: torch.Tensor, v_norm: torch.Tensor, d: torch.Tensor
    ) -> torch.Tensor:
        """``1 - cos(θ_t, θ_{t+1})`` by way of the update, since the cosine itself rounds to 1.

        With u, v the vectors, d = ‖v - u‖ and r = ‖v‖ - ‖u‖ = <v - u, v + u> / (‖v‖ + ‖u‖):
        1 - cos = (d - r) (d + r) / (2 ‖u‖ ‖v‖), and nothing close to 1 is subtracted.
        """
        r = _stack(self._dots, d.device).sum() / (u_norm + v_norm)
        distance: torch.Tensor = ((d - r) / u_norm * ((d + r) / v_norm) / 2.0).clamp(min=0.0)
        return distance


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Real and in at least single precision."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.float() if real.dtype in _HALF else real


def _stack(scalars: list[torch.Tensor], home: torch.device) -> torch.Tensor:
    there = all(s.device == home and s.dtype is torch.float32 for s in scalars)
    return torch.stack(scalars if there else [s.to(home, torch.float32) for s in scalars])
