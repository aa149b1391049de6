"""Checkpoints as they come: state_dicts, files of one, or flat vectors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Checkpoint = Mapping[str, Tensor] | Tensor | NDArray[np.floating] | str | Path


def load_point(checkpoint: Mapping[str, Tensor] | str | Path) -> Mapping[str, Tensor]:
    """A state_dict, read from its file if need be (also out of a Lightning checkpoint).

    Raises:
        ValueError: a file that holds no state_dict.
    """
    if not isinstance(checkpoint, (str, Path)):
        return checkpoint
    found = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not any(isinstance(v, Tensor) for v in found.values()):
        raise ValueError(f"{checkpoint} holds no state_dict but {type(found).__name__}.")
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def shapes(checkpoint: Checkpoint, names: Collection[str] | None) -> dict[str, torch.Size]:
    """Name and shape of what counts of a checkpoint: by default all that is floating-point.

    Raises:
        ValueError: a name that the checkpoint lacks, or nothing left to count.
    """
    point = _point(checkpoint)
    for name in names or ():
        if name not in point:
            raise ValueError(f"the checkpoint has no entry {name!r}.")
    chosen = {
        name: tensor.shape
        for name, tensor in point.items()
        if (tensor.is_floating_point() if names is None else name in names)
    }
    if not sum(shape.numel() for shape in chosen.values()):
        raise ValueError("the checkpoint holds no floating-point numbers.")
    return chosen


def flat(checkpoint: Checkpoint, layout: Mapping[str, torch.Size]) -> Tensor:
    """One vector, on the CPU, of what ``layout`` names, in its order.

    Raises:
        ValueError: an entry missing or of another shape.
    """
    point, parts = _point(checkpoint), []
    for name, shape in layout.items():
        if name not in point or point[name].shape != shape:
            got = tuple(point[name].shape) if name in point else "missing"
            raise ValueError(f"{name} is {got} in a checkpoint but {tuple(shape)} in the first.")
        part = point[name].detach().cpu().reshape(-1)
        parts.append(part if part.dtype == torch.float64 else part.float())
    return torch.cat(parts)


def _point(checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    if isinstance(checkpoint, (str, Path)):
        return load_point(checkpoint)
    if isinstance(checkpoint, Mapping):
        return checkpoint
    vector = torch.as_tensor(checkpoint)
    if vector.ndim != 1:
        raise ValueError(
            f"a checkpoint must be a state_dict, a file of one or a flat vector, but got an array "
            f"of shape {tuple(vector.shape)}."
        )
    return {"": vector}
