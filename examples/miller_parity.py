"""Grokking of a concealed parity: sharpness against delay (Miller et al. 2024, section 3.2).

    python examples/miller_parity.py
    python examples/miller_parity.py --preset paper --out parity

A two-layer network learns the parity of 3 bits among 22 to 42 random ones: the more of these
"spurious" bits, the longer validation lags behind. Error functions are fitted to both accuracies
of each run; sharpness is drawn against the relative grokking gap (Figs. 2, 4 and 5 of
arXiv:2310.17247). Intervals of the slopes are from a bootstrap over runs. Trained curves are kept
in the output folder, so that a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from _experiment import Experiment, Opinion, in_words, straight_line
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator
from parity_train import CURVES, DECAY, RATE, STEPS_PER_EPOCH, train_or_load
from scipy.special import erf

from grokwatch.signals.erf import (
    ErfFit,
    absolute_sharpness,
    fit_erf,
    relative_gap,
    relative_sharpness,
)

CHANCE = 0.5
PASSED_AT = 0.99  # what both accuracies must reach for a run to count
PAPER = {"relative": (-0.54, 0.56), "absolute": (-0.49, -6.58)}  # Fig. 5: slope, intercept
RESAMPLED = 10_000


class Preset(NamedTuple):
    """What the two sizes of run differ in."""

    sizes: tuple[int, ...]  # bits per example, 3 of which matter
    n_seeds: int
    epochs: int


PRESETS = {
    "small": Preset((25, 29, 33, 37, 41), 2, 3_000),
    "paper": Preset(tuple(range(25, 46)), 3, 3_000),
}


def bootstrap(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % interval of the least-squares slope, points resampled together (percentiles).

    Args:
        x: shape (n,).
        y: shape (n,).
        seed: of the resampling.

    >>> x = np.linspace(0, 1, 50)
    >>> low, high = bootstrap(x, 2 * x + 0.01 * np.sin(50 * x), seed=0)
    >>> low < 2 < high, high - low < 0.05
    (True, True)
    """
    picked = np.random.default_rng(seed).integers(len(x), size=(RESAMPLED, len(x)))
    dx, dy = (v[picked] - v[picked].mean(1, keepdims=True) for v in (x, y))
    spread = (dx * dx).sum(1)
    slopes = (dx * dy).sum(1)[spread > 0] / spread[spread > 0]
    low, high = np.percentile(slopes, [2.5, 97.5])
    return float(low), float(high)


def measure(curves: dict[str, np.ndarray]) -> dict[str, Any]:
    """Gap and sharpness of one run.

    Args:
        curves: of one run, each of shape (epochs,).

    >>> t = np.arange(1, 1001)
    >>> curves = {f"{part}_accuracy": 0.25 * erf(0.01 * (t - at)) + 0.75
    ...     for part, at in (("train", 200), ("val", 600))}
    >>> found = measure(curves)
    >>> round(found["m"], 6), round(found["relative"], 6), found["counts"]
    (2.0, 1.0, True)
    """
    fits: dict[str, ErfFit] = {}
    for part in ("train", "val"):
        accuracy = curves[f"{part}_accuracy"].astype(np.float64)
        epochs = np.arange(1, len(accuracy) + 1)
        fits[part] = fit_erf(epochs, accuracy, low=CHANCE, high=1.0)
    train, val = fits["train"], fits["val"]
    found: dict[str, Any] = {
        "counts": all(curves[f"{part}_accuracy"].max() >= PASSED_AT for part in fits),
        "fits": {
            part: {"t*": fit.time, "s": fit.sharpness, "R²": fit.r2, "doubt": fit.doubt}
            for part, fit in fits.items()
        },
    }
    if found["counts"]:
        found |= {
            "m": relative_gap(train, val),
            "relative": relative_sharpness(train, val),
            "absolute": absolute_sharpness(val),
        }
    return found


def watch(curves: dict[str, np.ndarray], epochs: int) -> dict[str, Any]:
    """What grokwatch said of one run, once an epoch, and the outcome."""
    opinion = Opinion(
        epochs * STEPS_PER_EPOCH, chance=CHANCE, learning_rate=RATE, weight_decay=DECAY
    )
    for epoch, row in enumerate(zip(*(curves[name] for name in CURVES), strict=True), start=1):
        seen = {name: float(value) for name, value in zip(CURVES, row, strict=True)}
        opinion.see(epoch * STEPS_PER_EPOCH, **seen)
    return opinion.beside()


def in_total(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """How grokwatch did over all runs."""
    all_said = [one["grokwatch"] for one in runs]
    good = [said for said in all_said if said["generalised"]]
    ahead = [said["steps ahead of t4"] for said in good if said["steps ahead of t4"] is not None]
    share = [
        said["steps ahead of t4"] / (said["t4"] - said["t2"])
        for said in good
        if said["steps ahead of t4"] is not None and said["t2"] is not None
    ]
    return {
        "runs": len(runs),
        "generalised": len(good),
        "right before t4": len(ahead),
        "median steps ahead of t4": float(np.median(ahead)) if ahead else None,
        "least steps ahead of t4": min(ahead, default=None),
        "median of steps ahead over delay": float(np.median(share)) if share else None,
        "killed a run that generalised": sum(s["killed a run that generalised"] for s in good),
    }


def main(argv: list[str] | None = None) -> int:
    """Train, fit, draw."""
    torch.set_num_threads(1)
    run = Experiment("miller_parity", "Sharpness of grokking, concealed parity.", PRESETS, argv)
    sizes, n_seeds, epochs = run.preset
    seeds = [run.seed + i for i in range(n_seeds)]
    runs: list[dict[str, Any]] = []
    shown: dict[int, Any] = {}
    with run.progress("training", len(sizes) * epochs) as advance:
        for size in sizes:
            path = run.out / f"curves-{size}.npz"
            together = train_or_load(path, size, seeds, epochs, advance)
            for i, seed in enumerate(seeds):
                curves = {name: curve[i] for name, curve in together.items()}
                one = {"bits": size, "seed": seed} | measure(curves)
                one["grokwatch"] = watch(curves, epochs)
                runs.append(one)
                shown.setdefault(size, (one, curves))
                print(in_words(f"{size} bits, seed {seed}", one["grokwatch"]))
    counted = [one for one in runs if one["counts"]]
    m = np.array([one["m"] for one in counted])
    lines: dict[str, dict[str, float]] = {}
    for name in PAPER:
        sharpness = np.array([one[name] for one in counted])
        line = straight_line(np.log(m), np.log(sharpness))
        line["low"], line["high"] = bootstrap(np.log(m), np.log(sharpness), run.seed)
        lines[name] = line
        between = f"95 % {line['low']:.2f} to {line['high']:.2f}"
        beside = f"{between}; paper {PAPER[name][0]}"
        print(f"ln {name} sharpness against ln m: {line['slope']:.3f} ({beside})")
    run.results |= {
        "lines": lines,
        "paper": PAPER,
        "counted": len(counted),
        "m": [m.min(), m.max()],
        "doubtful fits": sum(bool(fit["doubt"]) for one in counted for fit in one["fits"].values()),
        "smallest R²": min(fit["R²"] for one in counted for fit in one["fits"].values()),
        "grokwatch in total": in_total(runs),
        "runs": runs,
    }
    total = run.results["grokwatch in total"]
    print(f"{len(counted)} of {len(runs)} runs count; grokwatch: {total}")
    draw(run, counted, lines, shown)
    return run.finish()


def draw(
    run: Experiment,
    counted: list[dict[str, Any]],
    lines: dict[str, dict[str, float]],
    shown: dict[int, Any],
) -> None:
    """Figs. 2, 4 and 5 of the paper."""
    m = np.array([one["m"] for one in counted])
    bits = [one["bits"] for one in counted]
    for number, log in ((2, False), (5, True)):
        figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
        ln = "ln " if log else ""
        for ax, (name, (slope, intercept)) in zip(axes, PAPER.items(), strict=True):
            sharpness = np.array([one[name] for one in counted])
            x, y = (np.log(m), np.log(sharpness)) if log else (m, sharpness)
            dots = ax.scatter(x, y, c=bits, s=14)
            ax.set(xlabel=f"{ln}relative grokking gap m", ylabel=f"{ln}{name} sharpness")
            if log:
                ends, line = np.array([x.min(), x.max()]), lines[name]
                label = f"here: {line['slope']:.2f} x {line['intercept']:+.2f}"
                ax.plot(ends, line["slope"] * ends + line["intercept"], "k", label=label)
                label = f"paper: {slope} x {intercept:+}"
                ax.plot(ends, slope * ends + intercept, "k--", label=label)
                ax.legend()
        ticks = MaxNLocator(5, integer=True)
        figure.colorbar(dots, ax=axes, label="bits per example", ticks=ticks)
        run.save(figure, f"figure{number}")
    sizes = sorted(shown)
    picked = [sizes[i] for i in np.linspace(0, len(sizes) - 1, 4).round().astype(int)]
    figure, axes = plt.subplots(2, 2, figsize=(10, 6), layout="constrained", sharey=True)
    for ax, size in zip(axes.flat, picked, strict=True):
        one, curves = shown[size]
        epochs = np.arange(1, len(curves["train_accuracy"]) + 1)
        for part, label, colour in (("train", "training", "C0"), ("val", "validation", "C1")):
            fit = one["fits"][part]
            ax.plot(epochs, curves[f"{part}_accuracy"], colour, lw=0.6, label=label)
            fitted = 0.75 + 0.25 * erf(fit["s"] * (epochs - fit["t*"]))
            ax.plot(epochs, fitted, "k--", lw=1)
        ax.set_title(f"{size} bits" + (f", m = {one['m']:.2f}" if one["counts"] else ""))
    axes[0, 0].legend(title="fit dashed", loc="lower right")
    figure.supxlabel("epoch")
    figure.supylabel("accuracy")
    run.save(figure, "figure4")


if __name__ == "__main__":
    raise SystemExit(main())
