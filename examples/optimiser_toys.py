"""Which optimisers reach the bottom of a ravine, or of a box of eggs (Notsawo et al. 2023, App. I).

    python examples/optimiser_toys.py
    python examples/optimiser_toys.py --preset paper --out toys

log(f + 1e-8) of the Rosenbrock and the Rastrigin function of two variables: the logarithm makes
the global minimum sharp. The paper (arXiv:2306.13253) does not print its learning rates and starts,
so here every optimiser has several of both: a path counts as having reached the minimum if it stays
within 0.01 of it for the last hundred steps. Figures 24 to 29.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from _experiment import Experiment
from matplotlib import pyplot as plt
from torch import Tensor

FLOOR = 1e-8
NEAR, LAST = 0.01, 100  # distance, and for how many last steps


class Preset(NamedTuple):
    """What the two sizes of run differ in."""

    steps: int
    starts: int
    rates: tuple[float, ...]


PRESETS = {
    "small": Preset(3_000, 20, (1e-3, 1e-2)),
    "paper": Preset(8_000, 100, (1e-4, 1e-3, 1e-2, 1e-1)),
}
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "momentum": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "Adagrad": torch.optim.Adagrad,
    "Adadelta": torch.optim.Adadelta,
    "RMSProp": torch.optim.RMSprop,
    "Rprop": torch.optim.Rprop,
    "Adam": torch.optim.Adam,
    "Adamax": torch.optim.Adamax,
}
REACH_IN_PAPER = {
    "Rosenbrock": {"RMSProp": True, "Rprop": True, "Adam": True, "Adamax": True}
    | {"SGD": False, "momentum": False},
    "Rastrigin": dict.fromkeys(OPTIMISERS, False),
}


def rosenbrock(x: Tensor) -> Tensor:
    """Rosenbrock function of x, shape (..., 2); 0 at (1, 1).

    >>> rosenbrock(torch.tensor([[1.0, 1.0], [0.0, 0.0], [-1.0, 2.0]])).tolist()
    [0.0, 1.0, 104.0]
    """
    a, b = x.unbind(-1)
    return 100 * (b - a**2) ** 2 + (a - 1) ** 2


def rastrigin(x: Tensor) -> Tensor:
    """Rastrigin function with a = 10 of x, shape (..., 2); 0 at the origin.

    >>> rastrigin(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.0]])).round(decimals=3).tolist()
    [0.0, 1.0, 20.25]
    """
    return 20 + (x**2 - 10 * torch.cos(2 * torch.pi * x)).sum(-1)


class Toy(NamedTuple):
    """A function, its minimum, and the square that starts are drawn from and figures show."""

    function: Callable[[Tensor], Tensor]
    minimum: tuple[float, float]
    low: float
    high: float


TOYS = {
    "Rosenbrock": Toy(rosenbrock, (1.0, 1.0), -2.0, 2.0),
    "Rastrigin": Toy(rastrigin, (0.0, 0.0), -5.12, 5.12),
}


def descend(toy: Toy, name: str, rate: float, starts: Tensor, steps: int) -> np.ndarray:
    """Paths from all starts, shape (steps + 1, starts, 2); a step is the same for each alone."""
    x = starts.clone().requires_grad_()
    optimiser = OPTIMISERS[name]([x], lr=rate)
    path = np.empty((steps + 1, *starts.shape))
    for step in range(steps):
        path[step] = x.detach().numpy()
        optimiser.zero_grad()
        torch.log(toy.function(x) + FLOOR).sum().backward()
        optimiser.step()
    path[steps] = x.detach().numpy()
    return path


def distances(path: np.ndarray, toy: Toy) -> np.ndarray:
    """Euclidean distance from the minimum, shape (steps + 1, starts); far away where it broke."""
    return np.nan_to_num(np.linalg.norm(path - np.array(toy.minimum), axis=-1), nan=1e9)


def main(argv: list[str] | None = None) -> int:
    """Descend, count, draw."""
    torch.set_num_threads(1)
    run = Experiment("optimiser_toys", "Rosenbrock and Rastrigin.", PRESETS, argv)
    preset = run.preset
    with run.progress("paths", len(TOYS) * len(OPTIMISERS) * len(preset.rates)) as advance:
        for toy_name, toy in TOYS.items():
            draws = torch.Generator().manual_seed(run.seed)
            unit = torch.rand(preset.starts, 2, dtype=torch.float64, generator=draws)
            starts = toy.low + (toy.high - toy.low) * unit
            found: dict[str, Any] = {}
            best: dict[str, np.ndarray] = {}
            for name in OPTIMISERS:
                found[name] = {}
                paths = {}
                for rate in preset.rates:
                    paths[rate] = descend(toy, name, rate, starts, preset.steps)
                    off = distances(paths[rate], toy)
                    found[name][f"{rate:g}"] = {
                        "reached": float((off[-LAST:].max(0) < NEAR).mean()),
                        "touched": float((off.min(0) < NEAR).mean()),
                        "median error": float(np.median(off[-1])),
                    }
                    advance()
                chosen = max(
                    preset.rates,
                    key=lambda r: (
                        found[name][f"{r:g}"]["reached"],
                        -found[name][f"{r:g}"]["median error"],
                    ),
                )
                best[f"{name}, rate {chosen:g}"] = paths[chosen]
                shares = [found[name][f"{rate:g}"]["reached"] for rate in preset.rates]
                words = ", ".join(f"{s:.0%}" for s in shares)
                said = {True: "reaches", False: "does not", None: "not named"}
                paper = said[REACH_IN_PAPER[toy_name].get(name)]
                print(f"{toy_name:>10} {name:>8}: stayed near in {words} (paper: {paper})")
            run.results[toy_name] = found
            draw_surface(run, toy_name, toy)
            draw_paths(run, toy_name, toy, best)
    run.results["paper"] = REACH_IN_PAPER
    return run.finish()


def draw_surface(run: Experiment, name: str, toy: Toy) -> None:
    """Figs. 24 and 27: the surface, its contours, its gradients."""
    axis = np.linspace(toy.low, toy.high, 150)
    grid = np.stack(np.meshgrid(axis, axis), -1)
    z = np.log(toy.function(torch.from_numpy(grid)).numpy() + FLOOR)
    figure = plt.figure(figsize=(13, 4), layout="constrained")
    left = figure.add_subplot(1, 3, 1, projection="3d")
    left.plot_surface(grid[..., 0], grid[..., 1], z, cmap="viridis", rcount=75, ccount=75)
    left.set_title(f"log({name} + 1e-8)")
    middle = figure.add_subplot(1, 3, 2)
    middle.contourf(axis, axis, z, levels=25)
    middle.plot(*toy.minimum, "r*")
    few = torch.from_numpy(grid[::10, ::10].copy()).requires_grad_()
    torch.log(toy.function(few) + FLOOR).sum().backward()
    where, towards = few.detach().numpy(), -few.grad.numpy()
    right = figure.add_subplot(1, 3, 3)
    right.quiver(where[..., 0], where[..., 1], towards[..., 0], towards[..., 1])
    right.plot(*toy.minimum, "r*")
    run.save(figure, "figure24" if name == "Rosenbrock" else "figure27")


def draw_paths(run: Experiment, name: str, toy: Toy, best: dict[str, np.ndarray]) -> None:
    """Figs. 25, 26, 28 and 29: errors, and the paths from one start, each at its best rate."""
    errors, paths = ("figure25", "figure26") if name == "Rosenbrock" else ("figure28", "figure29")
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for label, path in best.items():
        ax.loglog(np.median(distances(path, toy), axis=1).clip(1e-10), label=label)
    ax.axhline(NEAR, color="k", ls=":")
    ax.set(xlabel="step", ylabel="median distance from the minimum", title=name)
    ax.legend(fontsize=7)
    run.save(figure, errors)
    axis = np.linspace(toy.low, toy.high, 100)
    grid = np.stack(np.meshgrid(axis, axis), -1)
    z = np.log(toy.function(torch.from_numpy(grid)).numpy() + FLOOR)
    figure, axes = plt.subplots(2, 4, figsize=(12, 6), layout="constrained")
    for ax, (label, path) in zip(axes.flat, best.items(), strict=True):
        ax.contour(axis, axis, z, levels=12, linewidths=0.4)
        ax.plot(*path[:, 0].T, "k.-", ms=1.5, lw=0.4)
        ax.plot(*toy.minimum, "r*")
        ax.set(title=label, xlim=(toy.low, toy.high), ylim=(toy.low, toy.high))
    run.save(figure, paths)


if __name__ == "__main__":
    raise SystemExit(main())
