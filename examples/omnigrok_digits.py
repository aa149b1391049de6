"""Grokking on scanned digits: start from weights far too large (Liu et al. 2023, Omnigrok).

    python examples/omnigrok_digits.py
    python examples/omnigrok_digits.py --preset paper --out digits

A ReLU network whose initial weights are multiplied by 8 learns a few hundred digits by heart, and
only as weight decay shrinks it does it come to know the others (arXiv:2210.01117, Fig. 1). From
ordinary weights the same network generalises at once. Squared error on one-hot labels, AdamW, full
batch. The paper takes 1000 digits of MNIST; here scikit-learn's 8x8 digits, which need no
download. With so few digits to learn from, .90 counts as generalised.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from _experiment import Experiment, Opinion, in_words
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits
from torch import Tensor, nn

EVERY = 10  # steps between measurements
GENERALISED_AT = 0.90
N_VAL = 700


class Preset(NamedTuple):
    """What the two sizes of run differ in."""

    n_train: int
    width: int
    rate: float
    decay: float
    budget: int
    scales: tuple[float, ...]  # of the initial weights


PRESETS = {
    "small": Preset(400, 200, 3e-3, 0.2, 4_000, (1.0, 8.0)),
    "paper": Preset(400, 200, 3e-3, 0.1, 8_000, (1.0, 2.0, 4.0, 8.0)),
}


def network(width: int, scale: float) -> nn.Sequential:
    """64-width-width-10 with ReLU, all initial parameters multiplied by ``scale``.

    >>> [p.shape[0] for p in network(20, 8.0).parameters()]
    [20, 20, 20, 20, 10, 10]
    """
    model = nn.Sequential(
        *(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
        nn.Linear(width, 10),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def digits(seed: int) -> tuple[Tensor, Tensor]:
    """All 1797 digits in random order: pixels 0..1 of shape (n, 64), labels of shape (n,)."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    return torch.from_numpy(pixels[order]).float() / 16, torch.from_numpy(labels[order])


def train(preset: Preset, scale: float, seed: int, advance: Any) -> tuple[Opinion, dict[str, Any]]:
    """One run: what grokwatch saw, and the curves."""
    x, y = digits(seed)
    targets = nn.functional.one_hot(y, 10).float()
    train, val = slice(preset.n_train), slice(-N_VAL, None)
    torch.manual_seed(seed)
    model = network(preset.width, scale)
    optimizer = torch.optim.AdamW(model.parameters(), lr=preset.rate, weight_decay=preset.decay)
    opinion = Opinion(
        preset.budget,
        chance=0.1,
        learning_rate=preset.rate,
        weight_decay=preset.decay,
        generalised_at=GENERALISED_AT,
    )
    curves: dict[str, list[float]] = {}
    for step in range(preset.budget):
        outputs = model(x[train])
        loss = (outputs - targets[train]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVERY == 0:
            with torch.no_grad():
                guesses = model(x[val])
                norm = sum(p.square().sum() for p in model.parameters()) ** 0.5
            seen = {
                "train_loss": float(loss.detach()),
                "train_accuracy": float((outputs.argmax(1) == y[train]).float().mean()),
                "val_loss": float((guesses - targets[val]).square().mean()),
                "val_accuracy": float((guesses.argmax(1) == y[val]).float().mean()),
                "weight_norm": float(norm),
            }
            opinion.see(step, **seen)
            for name, value in (seen | {"step": step}).items():
                curves.setdefault(name, []).append(value)
        else:
            opinion.see(step, train_loss=float(loss.detach()))
        advance()
    return opinion, curves


def main(argv: list[str] | None = None) -> int:
    """Train at every scale, draw."""
    torch.set_num_threads(1)
    run = Experiment("omnigrok_digits", "Grokking on digits.", PRESETS, argv)
    scales = run.preset.scales
    figure, axes = plt.subplots(
        3, len(scales), figsize=(3 * len(scales) + 1, 8), layout="constrained", sharey="row"
    )
    run.results["runs"] = {}
    with run.progress("training", len(scales) * run.preset.budget) as advance:
        for column, scale in zip(axes.T, scales, strict=True):
            opinion, curves = train(run.preset, scale, run.seed, advance)
            beside = opinion.beside()
            run.results["runs"][f"{scale:g}"] = {
                "grokwatch": beside,
                "last": {name: values[-1] for name, values in curves.items()},
                "val accuracy at t2": (
                    curves["val_accuracy"][curves["step"].index(beside["t2"])]
                    if beside["t2"] is not None
                    else None
                ),
            }
            print(in_words(f"initial weights x {scale:g}", beside))
            steps = np.add(curves["step"], 1)
            for kind, label in (("train", "training"), ("val", "validation")):
                column[0].loglog(steps, curves[f"{kind}_loss"], label=label)
                column[1].semilogx(steps, curves[f"{kind}_accuracy"], label=label)
            column[2].semilogx(steps, curves["weight_norm"])
            column[0].set_title(f"initial weights x {scale:g}")
            column[2].set_xlabel("step + 1")
    for ax, label in zip(axes[:, 0], ("squared error", "accuracy", "weight norm"), strict=True):
        ax.set_ylabel(label)
    axes[0, 0].legend()
    run.save(figure, "omnigrok_digits")
    return run.finish()


if __name__ == "__main__":
    raise SystemExit(main())
