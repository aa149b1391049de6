"""Directions in parameter space, and their normalisation filter by filter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from grokwatch.geometry.curvature import hessian_extremes

Point = Mapping[str, Tensor]
Direction = dict[str, Tensor]
Normalization = Literal["filter", "unit", "none"]


def named_parameters(model: torch.nn.Module) -> dict[str, Tensor]:
    """Every parameter once, under the name it has in a state_dict of the uncompiled model."""
    inner = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    return {name: p for name, p in inner.named_parameters()}


def without_prefix(point: Point) -> dict[str, Tensor]:
    """A state_dict under the names of the uncompiled model."""
    return {name.removeprefix("_orig_mod."): tensor for name, tensor in point.items()}


def direction_between(here: Point, there: Point) -> Direction:
    """The direction ``there - here`` over the parameters named in ``here``.

    Args:
        here: parameters by name, such as ``dict(model.named_parameters())``.
        there: a state_dict or such a mapping; names beyond those of ``here`` are left out.

    Raises:
        ValueError: a parameter that ``there`` lacks or has in another shape.

    >>> direction_between({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([4.0, 2.0])})
    {'w': tensor([3., 0.])}
    """
    found: Direction = {}
    for name, tensor in here.items():
        if name not in there:
            raise ValueError(f"the point to go to has no parameter {name!r}.")
        _same_shape(name, there[name], tensor)
        origin = tensor.detach()
        found[name] = there[name].detach().to(origin.device, origin.dtype) - origin
    return found


def random_direction(like: Point, seed: int = 0) -> Direction:
    """A standard normal direction, from a generator of its own.

    Args:
        like: parameters by name, giving shapes, dtypes and devices.
        seed: of the draw; the global random state is not touched.

    >>> random_direction({"w": torch.zeros(2, 3)})["w"].shape
    torch.Size([2, 3])
    """
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same on every device
    return {
        name: torch.randn(p.shape, generator=generator).to(p.device, p.dtype)
        for name, p in like.items()
    }


def hessian_directions(
    model: torch.nn.Module, loss_fn: Callable[[], Tensor], n_hvp: int = 32
) -> tuple[Direction, Direction]:
    """Unit eigenvectors of λ_max and λ_min of the loss's Hessian at the present weights.

    See :func:`grokwatch.geometry.curvature.hessian_extremes` for what may be expected of them:
    that of λ_min only where ``resolved_min`` holds. Frozen parameters have no part in them.

    Args:
        model: set to eval meanwhile.
        loss_fn: returns the scalar loss of a fixed batch, with its graph.
        n_hvp: Hessian-vector products to spend.

    Raises:
        ValueError: a loss that is not finite.
    """
    trained = {name: p for name, p in named_parameters(model).items() if p.requires_grad}
    state = hessian_extremes(loss_fn, trained.values(), n_hvp, model=model).state
    if state is None:
        raise ValueError("the loss is not finite here, so its Hessian has no eigenvectors.")
    sizes = [p.numel() for p in trained.values()]
    found = [
        {
            name: part.reshape(p.shape).to(p.dtype)
            for (name, p), part in zip(trained.items(), torch.split(vector, sizes), strict=True)
        }
        for vector in (state.v_max, state.v_min)
    ]
    return found[0], found[1]


def filter_normalized(
    direction: Point, at: Point, vectors: Literal["sign", "zero"] = "sign"
) -> Direction:
    """Scale every filter of a direction to the norm of the same filter of the weights.

    For row k of a weight (all that belongs to one output: entries ``w[k]``)
    ``d_k ← d_k · ‖w_k‖ / ‖d_k‖`` (Li et al. 2018, section 4), so that a step of α = 1 changes each
    filter by 100 % and networks that differ only in the scale of their weights give the same
    slice. A filter with d_k = 0 stays 0.

    Args:
        direction: parameters by name.
        at: the weights, with the same names and shapes.
        vectors: what becomes of parameters with less than two axes (biases, normalisation gains):
            "sign" takes each entry for a filter of its own, ``d ← sign(d)·|b|`` (Notsawo et al.
            2023, appendix G.1); "zero" leaves them where they are (Li et al.'s own plots).

    Raises:
        ValueError: a name that ``at`` lacks, another shape, or an unknown ``vectors``.

    >>> weights = {"w": torch.tensor([[3.0, 4.0], [0.0, 2.0]])}
    >>> filter_normalized({"w": torch.tensor([[1.0, 0.0], [0.0, 9.0]])}, weights)
    {'w': tensor([[5., 0.], [0., 2.]])}
    """
    if vectors not in ("sign", "zero"):
        raise ValueError(f"vectors must be 'sign' or 'zero' but got {vectors!r}.")
    scaled: Direction = {}
    for name, d in direction.items():
        if name not in at:
            raise ValueError(f"the weights have no parameter {name!r} to normalise by.")
        w, d = at[name].detach(), d.detach()
        _same_shape(name, d, w)
        if d.ndim < 2:
            scaled[name] = d.sign() * w.abs() if vectors == "sign" else torch.zeros_like(d)
            continue
        rows = d.flatten(1)
        # By the largest entry first: squares of tiny updates underflow in single precision.
        largest = rows.abs().amax(1, keepdim=True) if rows.shape[1] else rows.sum(1, keepdim=True)
        rows = rows / torch.where(largest > 0, largest, 1.0)
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        wanted = torch.linalg.vector_norm(w.flatten(1), dim=1, keepdim=True)
        scaled[name] = (rows * (wanted / torch.where(norms > 0, norms, 1.0))).reshape(d.shape)
    return scaled


def normalized(direction: Point, at: Point, how: Normalization) -> Direction:
    """Normalise a direction: "filter" (see above), "unit" (Euclidean norm 1), or "none".

    Raises:
        ValueError: an unknown way.
    """
    if how == "filter":
        return filter_normalized(direction, at)
    if how == "none":
        return dict(direction)
    if how != "unit":
        raise ValueError(f"normalize must be 'filter', 'unit' or 'none' but got {how!r}.")
    norm = sum(float(d.detach().double().square().sum()) for d in direction.values()) ** 0.5
    return {name: d.detach() / (norm or 1.0) for name, d in direction.items()}


def _same_shape(name: str, got: Tensor, wanted: Tensor) -> None:
    if got.shape != wanted.shape:
        raise ValueError(
            f"{name} has shape {tuple(got.shape)} here but {tuple(wanted.shape)} in the model."
        )
