"""Slingshots: what Adam does to a network that has fitted its data (Thilak et al. 2022).

    python examples/slingshots.py
    python examples/slingshots.py --preset paper --out slingshots

A deep ReLU network learns a few hundred digits by heart with full-batch Adam. Once the gradient
is tiny, Adam's division by its size makes steps that overshoot: the loss spikes by decades, the
norm of the last layer jumps, and the cycle starts again (arXiv:2206.04817). Here in float32 and
float64, with ε = 1e-8 and 1e-5, with and without weight decay, and with plain gradient descent; the
spikes are those that grokwatch found. The data are scikit-learn's digits; the paper's are CIFAR-10.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import torch
from _experiment import Experiment, Opinion, in_words
from matplotlib import pyplot as plt
from omnigrok_digits import digits
from torch import nn

EVERY = 20  # steps between validations
N_VAL = 700
RATE = 1e-3


class Preset(NamedTuple):
    """What the two sizes of run differ in."""

    n_train: int
    layers: int
    width: int
    budget: int


class Setting(NamedTuple):
    """What one run differs from the others in."""

    optimiser: str
    dtype: torch.dtype
    eps: float
    decay: float

    @property
    def name(self) -> str:
        """One line, with the dtype."""
        dtype = str(self.dtype).removeprefix("torch.")
        if self.optimiser == "SGD":
            return f"SGD, {dtype}"
        return f"{self.optimiser}, {dtype}, ε {self.eps:.0e}, decay {self.decay:g}"


PRESETS = {
    "small": Preset(100, 4, 64, 6_000),
    "paper": Preset(200, 6, 200, 8_000),
}
SETTINGS = [
    *(
        Setting("Adam", dtype, eps, decay)
        for dtype in (torch.float32, torch.float64)
        for eps in (1e-8, 1e-5)
        for decay in (0.0, 0.1)
    ),
    Setting("SGD", torch.float32, 0.0, 0.0),
]


def make(setting: Setting, preset: Preset, seed: int) -> tuple[nn.Sequential, Any]:
    """The network and its optimiser; the same weights for every setting.

    >>> model, _ = make(SETTINGS[0], Preset(10, 3, 16, 10), 0)
    >>> [tuple(layer.weight.shape) for layer in model if isinstance(layer, nn.Linear)]
    [(16, 64), (16, 16), (10, 16)]
    """
    torch.manual_seed(seed)
    sizes = [64, *[preset.width] * (preset.layers - 1)]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(sizes[-1], 10)).to(setting.dtype)
    if setting.optimiser == "SGD":
        return model, torch.optim.SGD(model.parameters(), lr=0.1)
    return model, torch.optim.AdamW(
        model.parameters(),
        lr=RATE,
        betas=(0.9, 0.95),
        eps=setting.eps,
        weight_decay=setting.decay,
    )


def train(preset: Preset, setting: Setting, seed: int, advance: Any) -> dict[str, Any]:
    """One run: curves, and what grokwatch says."""
    x, y = digits(seed)
    x = x.to(setting.dtype)
    x_train, y_train = x[: preset.n_train], y[: preset.n_train]
    x_val, y_val = x[-N_VAL:], y[-N_VAL:]
    model, optimizer = make(setting, preset, seed)
    last_layer = model[-1].weight
    opinion = Opinion(
        preset.budget,
        chance=0.1,
        learning_rate=optimizer.defaults["lr"],
        weight_decay=setting.decay,
    )
    losses, norms = np.empty(preset.budget), np.empty(preset.budget)
    for step in range(preset.budget):
        logits = model(x_train)
        loss = nn.functional.cross_entropy(logits, y_train)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses[step], norms[step] = loss.detach(), last_layer.detach().norm()
        seen = {
            "train_loss": float(losses[step]),
            "train_accuracy": float((logits.argmax(1) == y_train).sum()) / len(y_train),
        }
        if step % EVERY == 0:
            with torch.no_grad():
                logits = model(x_val)
            seen["val_loss"] = float(nn.functional.cross_entropy(logits, y_val))
            val_accuracy = float((logits.argmax(1) == y_val).sum()) / len(y_val)
            seen["val_accuracy"] = val_accuracy
        opinion.see(step, **seen)
        advance()
    signals = opinion.monitor.verdict.signals
    spikes = {name: value for name, value in signals.items() if name.startswith("spike")}
    return {
        "losses": losses,
        "norms": norms,
        "grokwatch": opinion.beside(),
        "spikes": int(signals.get("spikes", 0)),
        "spike signals": spikes,
        "last val accuracy": val_accuracy,
        "smallest loss": losses.min(),
        "largest loss after the smallest": losses[losses.argmin() :].max(),
        "norm of the last layer, last over first": norms[-1] / norms[0],
    }


def main(argv: list[str] | None = None) -> int:
    """Train in every setting, draw."""
    torch.set_num_threads(1)
    run = Experiment("slingshots", "Slingshots with Adam.", PRESETS, argv)
    found: dict[str, dict[str, Any]] = {}
    with run.progress("training", len(SETTINGS) * run.preset.budget) as advance:
        for setting in SETTINGS:
            one = train(run.preset, setting, run.seed, advance)
            found[setting.name] = one
            spikes = f"{one['spikes']} spikes found"
            if one["spikes"]:
                spikes += f", the last of {one['spike signals']['spike_amplitude']:.1f} decades"
            print(in_words(setting.name, one["grokwatch"]) + f"; {spikes}")
    run.results["runs"] = {
        name: {key: value for key, value in one.items() if key not in ("losses", "norms")}
        for name, one in found.items()
    }
    figure, axes = plt.subplots(
        3, 3, figsize=(13, 9), layout="constrained", sharex=True, sharey=True
    )
    largest = max(one["norms"].max() for one in found.values())
    for i, (ax, (name, one)) in enumerate(zip(axes.flat, found.items(), strict=True)):
        ax.semilogy(one["losses"].clip(1e-12), lw=0.5)
        ax.set_title(f"{name}: {one['spikes']} spikes", fontsize=10)
        ax.set_ylim(5e-13, 1e3)
        right = ax.twinx()
        right.plot(one["norms"], "C1", lw=0.8)
        right.set_ylim(0, 1.05 * largest)
        right.tick_params(colors="C1", labelright=i % 3 == 2)
    figure.supylabel("training loss (blue); norm of the last layer (orange, right)")
    figure.supxlabel("step")
    run.save(figure, "slingshots")
    return run.finish()


if __name__ == "__main__":
    raise SystemExit(main())
