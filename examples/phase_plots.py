"""Figures of the phase diagram."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from phase_row import PAPER
from phase_scores import PAPER_LAW

from grokwatch.signals.power_law import PowerLaw

Runs = Sequence[Mapping[str, Any]]


def grid(
    runs: Runs, value: Callable[[Runs], float | None]
) -> tuple[list[float], list[float], np.ndarray]:
    """One value for each cell (learning rate, weight decay), NaN where there is none.

    Args:
        runs: sidecars.
        value: of the runs of one cell, which differ by seed.

    >>> pairs = ((1, 0), (1, 5), (2, 0), (2, 5))
    >>> runs = [{"learning_rate": lr, "weight_decay": wd, "x": lr + wd} for lr, wd in pairs]
    >>> grid(runs, lambda cell: cell[0]["x"])
    ([1, 2], [0, 5], array([[1., 6.], [2., 7.]]))
    """
    rates = sorted({run["learning_rate"] for run in runs})
    decays = sorted({run["weight_decay"] for run in runs})
    found = np.full((len(rates), len(decays)), np.nan)
    for i, rate in enumerate(rates):
        for j, decay in enumerate(decays):
            cell = [r for r in runs if (r["learning_rate"], r["weight_decay"]) == (rate, decay)]
            one = value(cell) if cell else None
            found[i, j] = math.nan if one is None else one
    return rates, decays, found


def heat(
    ax: Any,
    runs: Runs,
    value: Callable[[Runs], float | None],
    title: str,
    text: Callable[[float], str] = "{:.2f}".format,
    **colours: Any,
) -> None:
    """A heat map like the paper's: weight decay across, learning rate up."""
    rates, decays, values = grid(runs, value)
    image = ax.imshow(values, origin="lower", aspect="auto", **colours)
    ax.set_xticks(range(len(decays)), [f"{decay:g}" for decay in decays])
    ax.set_yticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    ax.set(title=title, xlabel="weight decay", ylabel="learning rate")
    for (i, j), one in np.ndenumerate(values):
        if not math.isnan(one):
            red, green, blue, _ = image.cmap(image.norm(one))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            ax.text(j, i, text(one), ha="center", va="center", fontsize=8, color="wk"[not dark])
    ax.figure.colorbar(image, ax=ax, pad=0.02)


def median_of(name: str) -> Callable[[Runs], float | None]:
    """Median of a number over the runs of a cell; None counts as missing."""

    def value(cell: Runs) -> float | None:
        known = [run[name] for run in cell if run[name] is not None]
        return float(np.median(known)) if known else None

    return value


def share_generalised(cell: Runs) -> float:
    """Share of a cell's seeds that generalised."""
    return float(np.mean([run["t4"] is not None for run in cell]))


def diagram(runs: Runs, seeds: int) -> Figure:
    """The paper's Figs 2 and 6: what became of the runs above, their early energy below."""
    figure, axes = plt.subplots(2, 1, figsize=(8, 7.2), layout="constrained")
    middle = "" if seeds == 1 else f", median of {seeds} seeds"
    heat(
        axes[0],
        runs,
        median_of("last_val_accuracy"),
        f"validation accuracy when the run ends{middle}",
        vmin=0,
        vmax=1,
    )
    heat(
        axes[1],
        runs,
        median_of("early_activity"),
        f"spectral energy (activity) of the training loss, first 400 steps{middle}",
        vmin=0,
    )
    return figure


def scatter(runs: Runs, scores: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Energy and the validation trend of every run against its last accuracy; the AUCs."""
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 4), layout="constrained")
    shown = [run for run in runs if run["early_activity"] is not None]
    accuracy = [run["last_val_accuracy"] for run in shown]
    rates = [1e3 * run["learning_rate"] for run in shown]
    pairs = (
        ("early_activity", "activity, first 400 steps"),
        ("early_val_loss_trend", "ln validation loss per doubling, steps 100 to 400"),
    )
    for ax, (name, label) in zip(axes, pairs, strict=False):
        drawn = ax.scatter(
            [run[name] for run in shown], accuracy, c=rates, s=14, cmap="plasma_r", vmin=0
        )
        ax.set(xlabel=label, ylabel="validation accuracy when the run ends")
    figure.colorbar(drawn, ax=axes[1], label="learning rate / 0.001")
    marks = {"overall": "o", "at matched lr": "s"}
    for shift, (kind, mark) in zip((0.12, -0.12), marks.items(), strict=True):
        for i, one in enumerate(scores.values()):
            if one[kind] is not None:
                middle, low, high = one[kind]
                axes[2].plot([low, high], [i + shift] * 2, f"C{int(shift < 0)}", lw=1)
                label = kind if i == 0 else None
                axes[2].plot(middle, i + shift, f"C{int(shift < 0)}{mark}", label=label)
    axes[2].axvline(0.5, color="0.7", lw=0.8)
    axes[2].set_yticks(range(len(scores)), list(scores))
    axes[2].set(xlim=(-0.03, 1.03), xlabel="AUC with 90 % interval", ylim=(len(scores) - 0.4, -0.6))
    axes[2].legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def laws(
    row: Mapping[str, Mapping[str, float]],
    law: Mapping[str, Any],
    clipped: Mapping[str, Mapping[str, Any]],
) -> Figure:
    """Activity over weight decay beside the paper's; t4 over the data; what clipping does."""
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 4), layout="constrained")
    axes[0].plot(list(PAPER), list(PAPER.values()), "o-", label="paper, Fig. 6")
    decays = [float(decay) for decay in row]
    axes[0].plot(decays, [one["here"] for one in row.values()], "s-", label="here")
    axes[0].legend()
    axes[0].set(title="p = 97, two layers, learning rate 0.001", xlabel="weight decay")
    axes[0].set_ylabel("activity, first 400 steps")

    for r, steps in law["t4 by fraction"].items():
        at = [100 * float(r)] * len(steps)
        axes[1].plot(at, [np.nan if t4 is None else t4 for t4 in steps], "k.")
    r = np.linspace(100 * min(map(float, law["median t4"])), 95, 100)
    if law["here"]:
        fitted = PowerLaw(**law["here"])
        words = f"{fitted.gamma:.2f}" if law["determined"] else "at its limit"
        axes[1].plot(r, [fitted.predict(x) for x in r], label=f"fit: γ = {words}")
    paper = [PAPER_LAW.predict(x) for x in r]
    axes[1].plot(r, paper, "--", label=f"paper, p = 97: γ = {PAPER_LAW.gamma:.2f}")
    axes[1].set(title="t4 over the data", xlabel="training data, %", ylabel="step")
    axes[1].set_ylim(bottom=0)
    axes[1].legend(fontsize=8)

    names = list(clipped)
    for i, name in enumerate(names):
        steps = clipped[name]["t4"]
        known = [t4 for t4 in steps if t4 is not None]
        axes[2].plot([i] * len(known), known, "ko")
        words = f"{sum(clipped[name]['spikes'])} spikes"
        if len(known) < len(steps):
            words += f"\n{len(steps) - len(known)} never"
        axes[2].annotate(words, (i, 0.02), xycoords=("data", "axes fraction"), ha="center")
    axes[2].set_xticks(range(len(names)), names)
    axes[2].set(title="gradient clipped to a norm", ylabel="t4", xlim=(-0.5, len(names) - 0.5))
    reached = [t4 for one in clipped.values() for t4 in one["t4"] if t4 is not None]
    axes[2].set_ylim(0, 1.15 * max(reached, default=1))
    return figure
