"""What each layer puts out on a fixed batch, without a trace left in the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from grokwatch.geometry._preserve import Mode, preserved


def activations(
    model: torch.nn.Module,
    inputs: Any,
    layers: Collection[str] | None = None,
    reduce: Callable[[Tensor], Tensor] | None = None,
    mode: Mode = "eval",
) -> dict[str, Tensor]:
    """Run a fixed batch and collect what each layer puts out.

    The model comes back as it was: parameters, buffers, modes, random state, hooks.

    Args:
        model: run once, without gradients.
        inputs: a tensor of n examples, a tuple of arguments, or a mapping of named ones.
        layers: names as in ``model.named_modules()`` ("" = the whole model); None takes every
            module without children. A layer called several times gives its last output.
        reduce: from an output of shape (n, ...) to what is kept, such as ``lambda h: h[:, -1]``
            for the last position of a sequence; None keeps it all.
        mode: "eval", "train" or "keep".

    Returns:
        Float tensors of shape (n, features) on the CPU by layer, in the order of
        ``named_modules``; outputs that are no tensor of n rows are left out.

    Raises:
        ValueError: a name that the model lacks, or inputs without a tensor.
    """
    modules = dict(model.named_modules())
    if layers is None:
        layers = [name for name, module in modules.items() if not any(module.children())]
    for name in layers:
        if name not in modules:
            raise ValueError(f"the model has no layer {name!r}; it has {sorted(modules)}.")
    n, call = _call(model, inputs)
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(first, Tensor) and first.ndim and len(first) == n:
                kept = first.detach() if reduce is None else reduce(first.detach())
                # A copy: an in-place activation would overwrite it.
                found[name] = kept.reshape(n, -1).to("cpu", torch.float32, copy=True)

        return hook

    handles = []
    try:
        for name in layers:
            handles.append(modules[name].register_forward_hook(keep(name)))
        with preserved(model, mode), torch.no_grad():
            call()
    finally:
        for handle in handles:
            handle.remove()
    return {name: found[name] for name in modules if name in found}


def _call(model: torch.nn.Module, inputs: Any) -> tuple[int, Callable[[], Any]]:
    """Number of examples, and what runs the model on them."""
    named = dict(inputs) if isinstance(inputs, Mapping) else {}
    args = () if named else (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    tensors = [v for v in (*args, *named.values()) if isinstance(v, Tensor) and v.ndim]
    if not tensors:
        raise ValueError("inputs must hold at least one tensor of examples but hold none.")
    return len(tensors[0]), lambda: model(*args, **named)
