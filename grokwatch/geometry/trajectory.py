"""The path of the weights, measured while it is walked: angles and distances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any

import torch
from torch import Tensor

from grokwatch.geometry._pca import TrajectoryPCA, pca, principal_directions
from grokwatch.state import take

__all__ = ["Angles", "Trajectory", "TrajectoryPCA", "pca", "principal_directions"]

_PIECE = 1 << 18  # entries widened to double precision at a time


@dataclass(frozen=True)
class Angles:
    """Where the weights went since the last call, and since the start.

    ``1 - cos`` is kept rather than the cosine, which rounds to 1 for the small steps of training.

    Attributes:
        step_cosine_distance: ``1 - cos(θ_t, θ_{t+1})``.
        initial_cosine_distance: ``1 - cos(θ_t, θ_0)``.
        step_length: ``‖θ_{t+1} - θ_t‖``.
        initial_distance: ``‖θ_t - θ_0‖``.
        weight_norm: ``‖θ_t‖``.
        update_cosine: ``cos(θ_{t+1} - θ_t, θ_t - θ_{t-1})``; nan unless asked for and known.
    """

    step_cosine_distance: float
    initial_cosine_distance: float
    step_length: float
    initial_distance: float
    weight_norm: float
    update_cosine: float = nan

    @property
    def step_cosine(self) -> float:
        """``cos(θ_t, θ_{t+1})``."""
        return 1.0 - self.step_cosine_distance

    @property
    def initial_cosine(self) -> float:
        """``cos(θ_t, θ_0)``."""
        return 1.0 - self.initial_cosine_distance


class Trajectory:
    """Measures, call by call, how the weights turn and how far they have gone.

    The cosines are those of Notsawo et al. 2023 (appendix G.3, figure 14). Memory, however long
    the run: two copies of the parameters (the first and the last seen), three with
    ``updates=True``. A call reads the weights once, in double precision, and ends with one
    transfer to the host; it changes no weight, gradient or random number.

    Args:
        parameters: of the model; copied now as θ_0.
        updates: also measure the cosine between successive updates.

    Raises:
        ValueError: no parameters.

    >>> weights = torch.tensor([1.0, 0.0])
    >>> trajectory = Trajectory([weights], updates=True)
    >>> _ = weights.copy_(torch.tensor([1.0, 1.0]))
    >>> angles = trajectory.update()
    >>> round(angles.step_cosine**2, 12), angles.initial_distance
    (0.5, 1.0)
    >>> _ = weights.copy_(torch.tensor([0.0, 1.0]))
    >>> trajectory.update().update_cosine, trajectory.update().step_length
    (0.0, 0.0)
    """

    def __init__(self, parameters: Iterable[Tensor], *, updates: bool = False) -> None:
        self._parameters = [p for p in parameters if p.numel()]
        if not self._parameters:
            raise ValueError("a trajectory needs at least one parameter but got none.")
        self._initial = [p.detach().clone() for p in self._parameters]
        self._previous = [p.detach().clone() for p in self._parameters]
        self._move = [torch.zeros_like(p) for p in self._previous] if updates else None

    @torch.no_grad()
    def update(self) -> Angles:
        """Measure the weights as they are now against the last call and the start."""
        sums: list[Tensor] = []
        home = self._parameters[0].device
        for i, p in enumerate(self._parameters):
            last = None if self._move is None else self._move[i]
            sums += [s.to(home) for s in _sums(p, self._previous[i], self._initial[i], last)]
        (now, before, start, step, far, moved, step_rise, far_rise, turn) = (
            torch.stack(sums).sum(0).tolist()
        )
        for i, p in enumerate(self._parameters):
            if self._move is not None:
                torch.sub(p.detach(), self._previous[i], out=self._move[i])
            self._previous[i].copy_(p)
        return Angles(
            _cosine_distance(before, now, step, step_rise),
            _cosine_distance(start, now, far, far_rise),
            sqrt(step),
            sqrt(far),
            sqrt(now),
            turn / sqrt(moved * step) if moved > 0 and step > 0 else nan,
        )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as tensors for ``torch.save``."""
        return {"initial": self._initial, "previous": self._previous, "move": self._move}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: a missing key, or tensors that do not fit the parameters.
        """
        initial, previous, move = (take(state, key) for key in ("initial", "previous", "move"))
        wanted = [p.shape for p in self._parameters]
        if (move is None) != (self._move is None):
            raise ValueError("the state was saved with another setting of updates=.")
        for tensors in (initial, previous, move or previous):
            got = [tensor.shape for tensor in tensors]
            if got != wanted:
                raise ValueError(f"the state is of parameters {got} but these are {wanted}.")
        for mine, saved in ((self._initial, initial), (self._previous, previous)):
            for tensor, value in zip(mine, saved, strict=True):
                tensor.copy_(value)
        if self._move is not None:
            for tensor, value in zip(self._move, move, strict=True):
                tensor.copy_(value)


def _sums(p: Tensor, previous: Tensor, initial: Tensor, move: Tensor | None) -> list[Tensor]:
    """Nine sums for each piece of a parameter, stacked."""
    parts = [torch.split(_real(t.detach()), _PIECE) for t in (p, previous, initial)]
    last = [None] * len(parts[0]) if move is None else torch.split(_real(move), _PIECE)
    found: list[Tensor] = []
    for now, before, start, moved in zip(*parts, last, strict=True):
        wide = torch.float32 if now.device.type == "mps" else torch.float64
        now, before, start = now.to(wide), before.to(wide), start.to(wide)
        step, far = now - before, now - start
        old = torch.zeros_like(now) if moved is None else moved.to(wide)
        pairs = [(now, now), (before, before), (start, start), (step, step), (far, far), (old, old),
                 (step, now + before), (far, now + start), (old, step)]  # fmt: skip
        found.append(torch.stack([torch.dot(a, b) for a, b in pairs]))
    return found


def _cosine_distance(u2: float, v2: float, d2: float, rise: float) -> float:
    """``1 - cos(u, v)`` without subtracting from 1.

    With d = ‖v - u‖ and r = ‖v‖ - ‖u‖ = <v - u, v + u> / (‖v‖ + ‖u‖):
    ``1 - cos = (d² - r²) / (2 ‖u‖ ‖v‖)``.
    """
    if not u2 > 0 or not v2 > 0:
        return nan
    r = rise / (sqrt(u2) + sqrt(v2))
    d = sqrt(d2)
    return max(0.0, (d - r) * (d + r) / (2 * sqrt(u2) * sqrt(v2)))


def _real(tensor: Tensor) -> Tensor:
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return tensor.reshape(-1)
