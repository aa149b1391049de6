"""Walk a model over points of its parameter space, and bring it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import SupportsFloat, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from grokwatch.geometry._directions import Direction, Point, named_parameters, without_prefix
from grokwatch.geometry._preserve import Mode, preserved, random_state

Array = NDArray[np.float64]
Measured = SupportsFloat | Mapping[str, SupportsFloat]
T = TypeVar("T")


def walk(
    model: torch.nn.Module,
    evaluate: Callable[[], Measured],
    directions: Sequence[Point],
    points: Sequence[tuple[float, ...]],
    mode: Mode,
    progress: bool,
) -> dict[str, Array]:
    """Evaluate at every point ``θ + Σ amount · direction``, then bring the model back."""
    parameters = named_parameters(model)
    fitted = [_fit(direction, parameters) for direction in directions]
    moved = {name: parameters[name] for direction in fitted for name in direction}
    found: list[dict[str, float]] = []
    with preserved(model, mode), torch.no_grad():
        restart = random_state()
        buffers = [b for b in model.buffers()]
        origin = {name: p.detach().clone() for name, p in moved.items()}
        still = [b.detach().clone() for b in buffers]
        for point in tracked(points, "landscape", progress):
            for name, p in moved.items():
                place = origin[name]
                for direction, amount in zip(fitted, point, strict=True):
                    if name in direction:
                        place = torch.add(place, direction[name], alpha=amount)
                p.data.copy_(place)
            for buffer, value in zip(buffers, still, strict=True):
                buffer.data.copy_(value)
            restart()
            found.append(_numbers(evaluate()))
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def _fit(direction: Point, parameters: Mapping[str, torch.Tensor]) -> Direction:
    """The direction on the parameters' devices, checked."""
    fitted: Direction = {}
    for name, d in without_prefix(direction).items():
        if name not in parameters:
            raise ValueError(f"the direction names {name!r}, which is no parameter of the model.")
        p = parameters[name]
        if d.shape != p.shape:
            raise ValueError(
                f"the direction of {name} has shape {tuple(d.shape)} but the parameter "
                f"{tuple(p.shape)}."
            )
        fitted[name] = d.detach().to(p.device, p.dtype)
    if not fitted:
        raise ValueError("the direction is empty: it names no parameter.")
    return fitted


def _numbers(measured: Measured) -> dict[str, float]:
    named = measured if isinstance(measured, Mapping) else {"loss": measured}
    return {
        name: float(value.detach() if isinstance(value, torch.Tensor) else value)
        for name, value in named.items()
    }


def axis_of(name: str, values: ArrayLike) -> Array:
    axis = np.asarray(values, dtype=np.float64)
    if axis.ndim != 1 or not len(axis) or not np.isfinite(axis).all():
        raise ValueError(f"{name} must be a list of finite numbers but is of shape {axis.shape}.")
    return axis


def load_into(model: torch.nn.Module, point: Point) -> None:
    """Write a state into the model through .data, so that no graph notices."""
    whole = model.state_dict(keep_vars=True)
    state = without_prefix({k: v for k, v in whole.items() if isinstance(v, torch.Tensor)})
    point = without_prefix(point)
    missing = sorted(state.keys() - point.keys())
    if missing:
        raise ValueError(f"the checkpoint lacks {missing[0]!r}, which the model has.")
    for name, tensor in state.items():
        if point[name].shape != tensor.shape:
            raise ValueError(
                f"{name} has shape {tuple(point[name].shape)} in the checkpoint but "
                f"{tuple(tensor.shape)} in the model."
            )
        tensor.data.copy_(point[name])


def tracked(items: Sequence[T], label: str, show: bool) -> Iterable[T]:
    """The items, with a progress bar on standard error if that is a terminal."""
    if not show:
        return items
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, label, console=console, transient=True, disable=not console.is_terminal)
