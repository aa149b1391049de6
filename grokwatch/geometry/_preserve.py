"""Leave a model, and the random numbers, exactly as they were found."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch

Mode = Literal["eval", "train", "keep"]


def random_state() -> Callable[[], None]:
    """Note the state of every global random generator; what is returned brings it back."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if started else []

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    return restore


@contextmanager
def preserved(model: torch.nn.Module, mode: Mode = "keep") -> Iterator[None]:
    """Give the model back bit for bit: parameters, buffers, train/eval flags, random state.

    Holds one more copy of parameters and buffers. Gradients are not touched, and a graph that was
    built before still takes its backward pass.

    Args:
        model: what may be changed inside.
        mode: "eval" or "train" sets every module's mode inside; "keep" leaves it.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in ("eval", "train", "keep"):
        raise ValueError(f"mode must be 'eval', 'train' or 'keep' but got {mode!r}.")
    restore_random = random_state()
    flags = [(module, module.training) for module in model.modules()]
    slots = [(module._buffers, name) for module in model.modules() for name in module._buffers]
    buffers = [(home, name, home[name]) for home, name in slots]
    held = [*model.parameters(), *(b for _, _, b in buffers if b is not None)]
    copies = [(tensor, tensor.detach().clone()) for tensor in held]
    try:
        if mode != "keep":
            for module, _ in flags:  # not .train(): some networks change their weights there
                module.training = mode == "train"
        yield
    finally:
        for home, name, buffer in buffers:  # a buffer may have been replaced, not only written to
            home[name] = buffer
        for tensor, copy in copies:
            tensor.data.copy_(copy)  # through .data: autograd sees no change in place
        for module, training in flags:
            module.training = training
        restore_random()
