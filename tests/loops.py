"""A loop to watch, and what counts its waits for the device."""

from __future__ import annotations

from collections import Counter

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

SYNCS = ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "__index__")


class CountSyncs(TorchFunctionMode):
    """Counts the tensor methods that wait for a device."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in SYNCS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class CountScalars(TorchDispatchMode):
    """Counts reads of a tensor's value, whoever asked for them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def linear_regression(lr: float = 0.05):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    x, y = torch.randn(32, 4), torch.randint(3, (32,))
    return model, torch.optim.SGD(model.parameters(), lr=lr), x, y


def cross_entropy(model, x, y):
    return torch.nn.functional.cross_entropy(model(x), y)


def one_step(model, optimizer, x, y):
    loss = cross_entropy(model, x, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def feed(watch, steps, start=0):
    for step in range(start + 1, start + steps + 1):
        watch.train(loss=1.0 / step, step=step)
