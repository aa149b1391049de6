"""Grokking at the edge of linear separability (Beck et al. 2024): when noise bears a single label.

    python examples/edge_of_separability.py
    python examples/edge_of_separability.py --preset paper --out edge

N points x ~ N(0, σ²) in d dimensions, all with the same label, classified by S·x + b. Below
λ = d/N = ½ the points surround the origin: S stays bounded, b falls, the model generalises, late
if λ is close to ½. Above, they can be separated from the origin, and it overfits for good. Trained
with gradient descent (Fig. 1) and Adam (Fig. 5), and watched. Then the two-point model of section
4, integrated, and its law log(t_gen/t_tr) = ½ log²(1-2λ), which holds for σ² ≫ 1 and fails at
σ = 1. Closed forms are in edge_formulas.py. The paper's N = 40,000 would take 3 GB and days on two
cores, so that the preset "paper" has N = 1,000.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from _experiment import Experiment, Opinion, in_words, log_steps, straight_line
from edge_formulas import (
    exact,
    generalisation_accuracy,
    generalisation_loss,
    grokking_ratio,
    limiting_accuracy,
    margin,
    separable_probability,
    two_points,
)
from matplotlib import pyplot as plt

LAW_SLOPE = -(0.5**0.5)
GAPS = (0.1, 0.03, 0.01, 0.003, 0.001)  # 1 - 2λ
SIGMAS = (100.0, 1.0)


class Preset(NamedTuple):
    """What the two sizes of run differ in."""

    n: int
    lambdas: tuple[float, ...]
    steps: int
    draws: int  # per point of the curve of separability


PRESETS = {
    "small": Preset(400, (0.3, 0.45, 0.5, 0.6), 60_000, 60),
    "paper": Preset(1_000, (0.3, 0.48, 0.5, 0.52), 60_000, 400),
}
# Optimiser, its settings, σ: Figs. 1 and 5. The paper does not say Adam's learning rate.
TRAINERS: dict[str, tuple[Any, float]] = {
    "gradient descent": (lambda p: torch.optim.SGD(p, lr=0.01), 5.0),
    "Adam": (lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.9)), 1.0),
}


def train(x: np.ndarray, sigma: float, make: Any, steps: int, advance: Any) -> dict[str, Any]:
    """Full-batch training from zero, with label -1: mean log(1 + e^(S·x + b))."""
    data = torch.from_numpy(x)
    weights = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = make([weights, bias])
    measured = log_steps(steps, per_decade=40)
    rows, due = [], set(measured.tolist())
    for step in range(1, steps + 1):
        with torch.no_grad():
            f = data @ weights + bias
            pull = torch.sigmoid(f) / len(x)  # the gradient by hand: faster than autograd
            weights.grad, bias.grad = data.T @ pull, pull.sum()
        optimizer.step()
        if step in due:
            with torch.no_grad():
                f = (data @ weights + bias).numpy()
            norm, b = float(weights.detach().norm()), float(bias.detach())
            general = generalisation_loss(norm, b, sigma), generalisation_accuracy(norm, b, sigma)
            rows.append((np.logaddexp(0.0, f).mean(), (f < 0).mean(), *general, norm, b))
        if step % 100 == 0:
            advance(100)
    names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "norm", "bias")
    return {"step": measured, **dict(zip(names, np.array(rows).T, strict=True))}


def watched(curves: dict[str, Any], budget: int) -> dict[str, Any]:
    """What grokwatch says of a run."""
    opinion = Opinion(budget, chance=0.5, weight_decay=0.0)
    for i, step in enumerate(curves["step"].tolist()):
        opinion.see(
            step,
            train_loss=float(curves["train_loss"][i]),
            train_accuracy=float(curves["train_accuracy"][i]),
            val_loss=float(curves["val_loss"][i]),
            val_accuracy=float(curves["val_accuracy"][i]),
            weight_norm=float(np.hypot(curves["norm"][i], curves["bias"][i])),
        )
    return opinion.beside()


def main(argv: list[str] | None = None) -> int:
    """Train, integrate, count, draw."""
    torch.set_num_threads(1)
    run = Experiment("edge_of_separability", "Grokking at the edge.", PRESETS, argv)
    n, steps = run.preset.n, run.preset.steps
    runs: dict[str, Any] = {}
    trained: dict[str, dict[float, Any]] = {name: {} for name in TRAINERS}
    with run.progress("training", len(TRAINERS) * len(run.preset.lambdas) * steps) as advance:
        for lam in run.preset.lambdas:
            rng = np.random.default_rng(run.seed)
            x = rng.standard_normal((n, round(lam * n)))
            m = margin(x)
            for name, (make, sigma) in TRAINERS.items():
                curves = train(sigma * x, sigma, make, steps, advance)
                trained[name][lam] = curves
                beside = watched(curves, steps)
                rise = curves["val_loss"].max() / curves["val_loss"][0]
                runs[f"{name}, λ = {lam:g}"] = {
                    "separable": m > 0,
                    "limit of accuracy": limiting_accuracy(m, sigma) if m > 0 else 1.0,
                    "last accuracy": curves["val_accuracy"][-1],
                    "rise of the generalisation loss": rise,
                    "last norm": curves["norm"][-1],
                    "last bias": curves["bias"][-1],
                    "grokwatch": beside,
                }
                print(in_words(f"{name}, λ = {lam:g}, separable: {m > 0}", beside))
    run.results["runs"] = runs

    wendel = {"400, 192": separable_probability(400, 192)}
    counted = []
    for d in range(10, 31, 2):
        rng = np.random.default_rng([run.seed, d])
        hits = [margin(rng.standard_normal((40, d))) > 0 for _ in range(run.preset.draws)]
        counted.append((d / 40, float(np.mean(hits)), separable_probability(40, d)))
    run.results["Wendel"] = wendel | {"λ, counted, formula": counted}

    law: dict[str, Any] = {}
    for sigma in SIGMAS:
        roots = [grokking_ratio((1 - gap) / 2, sigma) ** 0.5 for gap in GAPS]
        law[f"σ = {sigma:g}"] = straight_line(np.log(GAPS), np.array(roots)) | {"roots": roots}
        print(f"law at σ = {sigma:g}: slope {law[f'σ = {sigma:g}']['slope']:.3f}")
    run.results["law"] = law | {"theory": LAW_SLOPE}

    times = np.geomspace(1e-2, 1e6, 60)
    worst = {}
    for lam in (0.0, 0.5, 1.0):
        off = np.abs(np.subtract(two_points(lam, 1.0, times), exact(lam, times)))
        worst[f"λ = {lam:g}"] = off.max()
    run.results["two points: largest distance from the exact solution"] = worst
    draw(run, trained, counted, law)
    return run.finish()


def draw(run: Experiment, trained: Any, counted: list[Any], law: dict[str, Any]) -> None:
    """Figs. 1 and 5 of the paper, separability, the law."""
    for name, by_lambda in trained.items():
        figure, axes = plt.subplots(4, len(by_lambda), figsize=(12, 9), layout="constrained")
        for column, (lam, curves) in zip(axes.T, by_lambda.items(), strict=True):
            column[0].set_title(f"{name}, λ = {lam:g}")
            for kind, label in (("train", "training"), ("val", "generalisation")):
                column[0].loglog(curves["step"], curves[f"{kind}_loss"], label=label)
                column[1].semilogx(curves["step"], curves[f"{kind}_accuracy"])
            column[2].semilogx(curves["step"], curves["norm"])
            column[3].semilogx(curves["step"], curves["bias"])
            column[1].set_ylim(0.45, 1.02)
            column[3].set_xlabel("step")
        labels = ("loss", "accuracy", "norm of S", "b")
        for ax, label in zip(axes[:, 0], labels, strict=True):
            ax.set_ylabel(label)
        axes[0, 0].legend()
        run.save(figure, name.replace(" ", "_"))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    lam, hits, formula = np.array(counted).T
    left.plot(lam, formula, label="Wendel")
    left.plot(lam, hits, "o", label=f"{run.preset.draws} draws of 40 points")
    left.set(xlabel="λ", ylabel="P(separable from the origin)")
    times = np.geomspace(1e-2, 1e6, 60)
    for lam, colour in ((0.0, "C0"), (0.5, "C1"), (1.0, "C2")):
        for values, label in zip(two_points(lam, 1.0, times), ("S", "-b"), strict=True):
            values = np.abs(values)
            style = "-" if label == "S" else "--"
            middle.semilogx(times, values, style, color=colour, label=f"{label}, λ = {lam:g}")
        for values in exact(lam, times):
            middle.semilogx(times, np.abs(values), ".", ms=3, color=colour)
    middle.set(xlabel="η t", title="two points: integrated; exact as dots")
    for sigma in SIGMAS:
        line = law[f"σ = {sigma:g}"]
        label = f"σ = {sigma:g}: slope {line['slope']:.3f}"
        right.plot(np.log(GAPS), line["roots"], "o-", label=label)
    right.plot(np.log(GAPS), LAW_SLOPE * np.log(GAPS), "k:", label="theory: -1/√2")
    right.set(xlabel="log(1 - 2λ)", ylabel="√log(t_gen/t_tr)")
    for ax in (left, middle, right):
        ax.legend()
    run.save(figure, "formulas")


if __name__ == "__main__":
    raise SystemExit(main())
