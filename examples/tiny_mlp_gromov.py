"""Two layers, x² in between, plain gradient descent, nothing else: it groks (Gromov 2023).

    python examples/tiny_mlp_gromov.py
    python examples/tiny_mlp_gromov.py --preset paper

The network of arXiv:2301.02679: f(a, b) = W₂ (W₁ x / √2p)² / N on the one-hot pair x, mean squared
error, full batch, gradient descent without momentum or any regularisation, on a + b mod p. What it
learns can be read off: W₁ becomes waves over the operands, so that the share of a unit's power at
its strongest frequency rises from that of noise. Full batch, gradients by hand.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from _experiment import Experiment, Opinion, in_words
from matplotlib import pyplot as plt
from tasks import equations, split
from torch import Tensor

EVERY = 20  # steps between measurements


class Preset(NamedTuple):
    """What the two sizes of run differ in."""

    p: int
    width: int
    fraction: float
    rate: float
    budget: int


PRESETS = {
    "small": Preset(31, 256, 0.7, 5e3, 8_000),
    # The paper's p, N and share of the table; at twice the rate it groks in half the steps.
    "paper": Preset(97, 500, 0.5, 4e5, 6_000),
}


class Net:
    """The two layers and their gradient.

    Args:
        p: modulus; also the number of classes.
        width: N, hidden units.

    >>> _ = torch.manual_seed(0)
    >>> Net(5, 8).forward(torch.tensor([[0, 1], [4, 4]])).shape
    torch.Size([2, 5])
    """

    def __init__(self, p: int, width: int) -> None:
        self.p, self.width = p, width
        self.left, self.right = torch.randn(p, width), torch.randn(p, width)  # W₁ by operand
        self.out = torch.randn(width, p)
        self._scratch = torch.empty(3, 0, width)

    def forward(self, pairs: Tensor) -> Tensor:
        """Outputs, shape (n, p), of pairs, shape (n, 2): W₁ x is one row of each table."""
        hidden = self.left[pairs[:, 0]] + self.right[pairs[:, 1]]
        return hidden**2 @ self.out / (2 * self.p * self.width)

    def step(self, pairs: Tensor, targets: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """One step of gradient descent on the mean squared error.

        Returns the outputs before it and the norm of the gradient.
        """
        if self._scratch.shape[1] != len(pairs):  # fresh memory costs more than the arithmetic
            self._scratch = torch.empty(3, len(pairs), self.width)
        hidden, squared, d_hidden = self._scratch
        left, right = pairs.unbind(1)
        torch.index_select(self.left, 0, left, out=hidden)
        hidden += torch.index_select(self.right, 0, right, out=squared)
        torch.mul(hidden, hidden, out=squared)
        scale = 1 / (2 * self.p * self.width)
        outputs = (squared @ self.out).mul_(scale)
        error = (outputs - targets).mul_(2 * scale / outputs.numel())
        d_out = squared.T @ error
        torch.mm(error, self.out.T, out=d_hidden).mul_(hidden).mul_(2)
        d_left = torch.zeros_like(self.left).index_add_(0, left, d_hidden)
        d_right = torch.zeros_like(self.right).index_add_(0, right, d_hidden)
        squares = d_out.square().sum() + d_left.square().sum() + d_right.square().sum()
        self.out -= rate * d_out
        self.left -= rate * d_left
        self.right -= rate * d_right
        return outputs, squares.sqrt()

    def norm(self) -> float:
        """Euclidean norm of all weights."""
        return float(sum(w.square().sum() for w in (self.left, self.right, self.out)) ** 0.5)


def wave_share(table: Tensor) -> float:
    """Share of a column's power at its strongest frequency, mean over columns; 1 for waves.

    >>> t = torch.arange(7)[:, None] * torch.tensor([1.0, 2.0])
    >>> round(wave_share(torch.cos(2 * torch.pi * t / 7)), 6)
    1.0
    """
    power = torch.fft.rfft(table, dim=0)[1:].abs() ** 2
    return float((power.max(0).values / power.sum(0)).mean())


def main(argv: list[str] | None = None) -> int:
    """Train, watch, draw."""
    torch.set_num_threads(1)
    run = Experiment("tiny_mlp_gromov", "Two layers grok without regularisation.", PRESETS, argv)
    preset = run.preset
    torch.manual_seed(run.seed)
    pairs, answers, n_classes = equations("+", preset.p)
    x, y = torch.from_numpy(pairs), torch.from_numpy(answers)
    train, val = (torch.from_numpy(part) for part in split(len(x), preset.fraction, run.seed))
    targets = torch.nn.functional.one_hot(y, n_classes).float()
    x_train, y_train, targets_train = x[train], y[train], targets[train]
    net = Net(preset.p, preset.width)
    opinion = Opinion(
        preset.budget,
        chance=1 / n_classes,
        weight_decay=0.0,
        train_fraction=preset.fraction,
    )
    curves: dict[str, list[float]] = {"step": [], "waves": []}
    started = net.norm()
    with run.progress("training", preset.budget) as advance:
        for step in range(preset.budget):
            outputs, grad_norm = net.step(x_train, targets_train, preset.rate)
            seen: dict[str, float] = {
                "train_loss": float(((outputs - targets_train) ** 2).mean()),
                "train_accuracy": float((outputs.argmax(1) == y_train).float().mean()),
            }
            if step % EVERY == 0:
                outputs = net.forward(x[val])
                seen |= {
                    "val_loss": float(((outputs - targets[val]) ** 2).mean()),
                    "val_accuracy": float((outputs.argmax(1) == y[val]).float().mean()),
                    "grad_norm": float(grad_norm),
                    "weight_norm": net.norm(),
                }
                for name, value in (seen | {"step": step, "waves": wave_share(net.left)}).items():
                    curves.setdefault(name, []).append(value)
            opinion.see(step, **seen)
            advance()
    beside = opinion.beside()
    run.results |= {
        "grokwatch": beside,
        "last": {name: values[-1] for name, values in curves.items()},
        "first": {name: values[0] for name, values in curves.items()},
        "growth of the weight norm": net.norm() / started,
    }
    print(in_words(f"a + b mod {preset.p}", beside))
    draw(run, curves)
    return run.finish()


def draw(run: Experiment, curves: dict[str, Any]) -> None:
    """Losses, accuracies, and how the rows of W₁ become waves."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained")
    for kind, label in (("train", "training"), ("val", "validation")):
        axes[0].loglog(np.add(curves["step"], 1), curves[f"{kind}_loss"], label=label)
        axes[1].semilogx(np.add(curves["step"], 1), curves[f"{kind}_accuracy"], label=label)
    axes[2].semilogx(np.add(curves["step"], 1), curves["waves"])
    titles = ("mean squared error", "accuracy", "power at the strongest frequency")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(title=title, xlabel="step + 1")
    axes[1].legend()
    run.save(figure, "tiny_mlp")


if __name__ == "__main__":
    raise SystemExit(main())
