"""Grokking of a linear student: sharpness against delay (Miller et al. 2024, section 3.1).

    python examples/miller_linear.py
    python examples/miller_linear.py --preset paper --out linear

Closed forms of Levi et al. 2023 for a student that learns a linear teacher by gradient descent;
λ = d / N inputs per example; an answer is right if its squared error is below ε. Error functions
are fitted to the accuracies at 120 values of λ (Figs. 1, 3 and 6 of arXiv:2310.17247). Then the
same student is trained on random data, on either side of λ = 1, and watched.

The closed form of the generalisation loss is the training loss integrated back from zero. For
λ > 1, which is where the paper works, N examples leave d - N directions unlearnt: a real student
keeps a generalisation loss of 1 - 1/λ. The simulation shows it; below λ = 1 both agree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from _experiment import Experiment, Opinion, in_words, log_steps, straight_line
from matplotlib import pyplot as plt
from scipy.special import erf, erfcx

from grokwatch.signals.erf import (
    ErfFit,
    absolute_sharpness,
    fit_erf,
    relative_gap,
    relative_sharpness,
)

RATE = 0.01  # η0
TOLERANCE = 1e-10  # ε
LAMBDAS = np.linspace(1.003, 1.1, 120)
PAPER = {"relative": (-0.211, -0.129), "absolute": (-2.970, -12.268)}  # Fig. 6: slope, intercept


class Preset(NamedTuple):
    """What the two sizes of run differ in."""

    points: int  # of each fitted curve
    n_examples: int  # of the simulation
    simulated: tuple[float, ...]  # λ


PRESETS = {
    "small": Preset(5_000, 400, (0.8, 1.2)),
    "paper": Preset(50_000, 2_000, (0.8, 0.9, 1.1, 1.2)),
}


def losses(t: np.ndarray, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """Training and generalisation loss in the long run (Miller et al. 2024, Eqs. 9 and 10).

    Args:
        t: optimiser steps, shape (n,), positive, much more than √λ/η0.
        lam: inputs per example, λ = d/N.

    >>> t = np.array([1e6, 1e6 + 1])
    >>> train, general = losses(t, 1.1)
    >>> bool(np.isclose(np.diff(general)[0], -4 * RATE * train.mean(), rtol=1e-6))
    True
    """
    c = (np.sqrt(lam) - 1) ** 2 * RATE * t
    train = np.exp(-4 * c) / (16 * np.sqrt(np.pi) * lam**0.75 * (RATE * t) ** 1.5)
    # √π·erfc(x) = Γ(½, x²); the scaled erfcx keeps what is left after they cancel.
    rest = 1 - 2 * np.sqrt(np.pi * c) * erfcx(2 * np.sqrt(c))
    return train, np.exp(-4 * c) * rest / (2 * lam**0.75 * np.sqrt(np.pi * RATE * t))


def accuracy(loss: np.ndarray) -> np.ndarray:
    """Share of examples with a squared error below ε (Miller et al. 2024, Eq. 7).

    >>> accuracy(np.array([TOLERANCE, 0.0])).round(4).tolist()
    [0.6827, 1.0]
    """
    with np.errstate(divide="ignore", over="ignore"):
        return erf(np.sqrt(TOLERANCE / (2 * loss)))


def fits(lam: float, points: int) -> tuple[np.ndarray, list[np.ndarray], list[ErfFit]]:
    """Times, both accuracies and their fits on the paper's grid of times."""
    t = np.linspace(1, 5e3 / (lam - 1) ** 2, points)
    curves = [accuracy(loss) for loss in losses(t, lam)]
    return t, curves, [fit_erf(t, curve, low=0.0, high=1.0) for curve in curves]


def simulate(lam: float, n_examples: int, steps: np.ndarray, seed: int) -> dict[str, Any]:
    """Full-batch gradient descent on random data, by powers of each eigenvalue: exact, no loop.

    The student starts at distance 1 from its teacher. Returns losses and accuracies at ``steps``;
    the generalisation loss is exact, its accuracy that of 2000 fresh examples.
    """
    rng = np.random.default_rng(seed)
    d = round(lam * n_examples)
    x = rng.standard_normal((n_examples, d))
    values, vectors = np.linalg.eigh(x.T @ x / n_examples)
    values = values.clip(0.0)
    start = rng.standard_normal(d)
    start /= np.linalg.norm(start)
    # One step takes D to (1 - 2 η Σ) D: the gradient of mean (x·D)² is 2 Σ D.
    paths = (vectors.T @ start)[:, None] * (1 - 2 * RATE * values)[:, None] ** steps
    seen = (x @ vectors) @ paths
    fresh = (rng.standard_normal((2000, d)) @ vectors) @ paths
    return {
        "train_loss": (seen**2).mean(0),
        "val_loss": (paths**2).sum(0),
        "train_accuracy": (seen**2 < TOLERANCE).mean(0),
        "val_accuracy": (fresh**2 < TOLERANCE).mean(0),
    }


def main(argv: list[str] | None = None) -> int:
    """Fit, simulate, draw."""
    run = Experiment("miller_linear", "Sharpness of grokking, linear student.", PRESETS, argv)
    m, relative, absolute = np.empty((3, len(LAMBDAS)))
    examples = {}
    with run.progress("fits", len(LAMBDAS)) as advance:
        for i, lam in enumerate(LAMBDAS):
            t, curves, (train, general) = fits(float(lam), run.preset.points)
            m[i] = relative_gap(train, general)
            relative[i] = relative_sharpness(train, general)
            absolute[i] = absolute_sharpness(general)
            if i in (0, 20, len(LAMBDAS) - 1):
                examples[float(lam)] = t, curves, (train, general)
            advance()
    sharpness = {"relative": relative, "absolute": absolute}
    lines = {name: straight_line(np.log(m), np.log(one)) for name, one in sharpness.items()}
    for name, line in lines.items():
        print(f"ln {name} sharpness against ln m: {line['slope']:.4f} (paper {PAPER[name][0]})")
    ends = {
        f"{LAMBDAS[i]:.3f}": {"m": m[i], "relative": relative[i], "absolute": absolute[i]}
        for i in (0, -1)
    }
    run.results |= {"lines": lines, "paper": PAPER, "ends": ends}

    simulated = {}
    for lam in run.preset.simulated:
        # Past the time at which e^(-4c) is 1e-16, whichever side of 1 λ lies on.
        steps = log_steps(int(10 / ((np.sqrt(lam) - 1) ** 2 * RATE)), per_decade=100, first=100)
        curves = simulate(lam, run.preset.n_examples, steps, run.seed)
        opinion = Opinion(int(steps[-1]), chance=0.0, learning_rate=RATE, weight_decay=0.0)
        for i, step in enumerate(steps.tolist()):
            opinion.see(step, **{name: float(curve[i]) for name, curve in curves.items()})
        beside = opinion.beside()
        left = float(curves["val_loss"][-1])
        simulated[f"{lam:g}"] = {"grokwatch": beside, "generalisation loss left": left}
        examples[f"{lam:g}"] = steps, curves
        print(in_words(f"λ = {lam:g}", beside) + f"; generalisation loss left {left:.2g}")
    run.results["simulated"] = simulated
    draw(run, m, sharpness, lines, examples)
    return run.finish()


def draw(
    run: Experiment,
    m: np.ndarray,
    both: dict[str, np.ndarray],
    lines: dict[str, dict[str, float]],
    examples: dict[Any, Any],
) -> None:
    """Figs. 1, 3 and 6 of the paper, and the simulation beside its theory."""
    for name, log in (("figure1", False), ("figure6", True)):
        figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
        for ax, (which, sharpness) in zip(axes, both.items(), strict=True):
            x, y = (np.log(m), np.log(sharpness)) if log else (m, sharpness)
            ax.plot(x, y, "." if log else ".-", ms=3)
            ln = "ln " if log else ""
            ax.set(xlabel=f"{ln}relative grokking gap m", ylabel=f"{ln}{which} sharpness")
            if log:
                line = lines[which]
                label = f"here: {line['slope']:.3f} x {line['intercept']:+.3f}"
                ax.plot(x, line["slope"] * x + line["intercept"], label=label)
                ax.legend(title=f"paper: {PAPER[which][0]} x {PAPER[which][1]:+}")
        run.save(figure, name)
    shown = [(lam, one) for lam, one in examples.items() if isinstance(lam, float)]
    figure, axes = plt.subplots(1, len(shown), figsize=(12, 3.5), layout="constrained")
    for ax, (lam, (t, curves, fitted)) in zip(axes, shown, strict=True):
        for curve, fit, colour in zip(curves, fitted, ("C0", "C1"), strict=True):
            ax.plot(t, curve, colour)
            ax.plot(t, 0.5 + 0.5 * erf(fit.sharpness * (t - fit.time)), colour, ls="--")
        ax.set(title=f"λ = {lam:.3f}: closed form, and fit (dashed)", xlabel="step")
        ax.ticklabel_format(axis="x", scilimits=(0, 0))
        ax.set_xlim(0, fitted[1].time + 3 / fitted[1].sharpness)
    axes[0].set_ylabel("accuracy: training (blue), generalisation")
    run.save(figure, "figure3")
    shown = [(lam, one) for lam, one in examples.items() if not isinstance(lam, float)]
    figure, axes = plt.subplots(1, len(shown), figsize=(4 * len(shown), 3.5), layout="constrained")
    for ax, (lam, (steps, curves)) in zip(axes, shown, strict=True):
        theory = losses(steps, float(lam))
        for which, one, colour in zip(("train", "val"), theory, ("C0", "C1"), strict=True):
            ax.loglog(steps, curves[f"{which}_loss"].clip(1e-20), colour, label=f"{which} loss")
            ax.loglog(steps, one.clip(1e-20), colour, ls="--")
        ax.set(title=f"λ = {lam}, trained; closed form dashed", xlabel="step", ylim=(1e-20, 2))
        ax.legend()
    run.save(figure, "simulated")


if __name__ == "__main__":
    raise SystemExit(main())
