"""How well early figures tell the runs of a sweep apart: AUC overall and inside strata."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grokwatch.signals.power_law import PowerLaw, fit_power_law

#: Notsawo et al. 2023, App. E, Fig. 5: modular addition, r in percent.
PAPER_LAW = PowerLaw(a=1.09e15, gamma=7.73, b=1442.63)

#: What is compared, each so that a larger value should mean generalisation.
SCORES: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "energy (activity, 400 steps)": lambda run: run["early_activity"],
    "energy ∫L², nothing removed": lambda run: run["early_energy"],
    "energy of log10 L above 1/50": lambda run: run["early_fast_log_energy"],
    "−(lr·wd)": lambda run: -run["learning_rate"] * run["weight_decay"],
    "−trend of validation loss": lambda run: -run["early_val_loss_trend"],
    "−validation loss": lambda run: -run["early_val_loss"],
    "−training loss": lambda run: -run["early_train_loss"],
}
STRATA: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "overall": lambda run: 0,
    "at matched lr": lambda run: run["learning_rate"],
    "at matched lr and wd": lambda run: (run["learning_rate"], run["weight_decay"]),
}


def auc(
    scores: npt.ArrayLike, labels: npt.ArrayLike, strata: Sequence[Any] | None = None
) -> float | None:
    """Share of the pairs (positive, negative) that the score puts in order; a tie is half.

    Args:
        scores: shape (n,).
        labels: shape (n,), True for positive.
        strata: only pairs of equal stratum count; None = all.

    Returns:
        0..1, or None without a pair.

    >>> auc([1, 2, 3, 3], [False, True, False, True])
    0.625
    >>> auc([1, 2, 8, 9], [False, True, False, True], ["a", "a", "b", "b"])
    1.0
    """
    values, positive = np.asarray(scores, float), np.asarray(labels, bool)
    group = np.zeros(len(values)) if strata is None else _numbered(strata)
    higher, lower = values[positive, None], values[None, ~positive]
    same = group[positive, None] == group[None, ~positive]
    if not same.any():
        return None
    return float(((higher > lower) + 0.5 * (higher == lower))[same].mean())


def _numbered(strata: Sequence[Any]) -> npt.NDArray[np.int64]:
    numbers = {one: i for i, one in enumerate(dict.fromkeys(strata))}
    return np.array([numbers[one] for one in strata])


def table(runs: Sequence[Mapping[str, Any]], draws: int = 500) -> dict[str, dict[str, Any]]:
    """AUC of every score for "generalises within the budget", with 90 % intervals.

    Runs whose loss was not finite for 400 steps are left out. The interval is that of a bootstrap
    over cells (learning rate, weight decay), whose seeds stay together.

    Returns:
        score -> stratum -> [AUC, low, high], None where no pair is to be had.
    """
    usable = [run for run in runs if run["early_activity"] is not None]
    labels = np.array([run["t4"] is not None for run in usable])
    cells = _numbered([STRATA["at matched lr and wd"](run) for run in usable])
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(cells == cell) for cell in np.unique(cells)]
    samples = [
        np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        for _ in range(draws)
    ]
    found: dict[str, dict[str, Any]] = {}
    for name, score in SCORES.items():
        values = np.array([score(run) for run in usable])
        found[name] = {}
        for kind, stratum in STRATA.items():
            of = _numbered([stratum(run) for run in usable])
            whole = auc(values, labels, of)
            drawn = [auc(values[s], labels[s], of[s]) for s in samples]
            known = [one for one in drawn if one is not None]
            ends = np.quantile(known, [0.05, 0.95]) if known else (None, None)
            found[name][kind] = None if whole is None else [whole, *ends]
    return found


def grokking_law(by_fraction: Mapping[float, Sequence[int | None]]) -> dict[str, Any]:
    """t4(r) = a·r^−γ + b through the median t4 of each fraction, beside the paper's.

    Args:
        by_fraction: train fraction (0..1) -> t4 of its runs, None for those that have none.

    Returns:
        Medians, and the fit if at least three fractions have one (a run without t4 counts as
        later than all; a median among those is none). It is "determined" where γ is not at the
        end of its range.
    """
    medians = {}
    for fraction, steps in sorted(by_fraction.items()):
        middle = float(np.median([np.inf if t4 is None else t4 for t4 in steps]))
        medians[fraction] = middle if np.isfinite(middle) else None
    known = {100 * r: t4 for r, t4 in medians.items() if t4 is not None}
    found: dict[str, Any] = {
        "t4 by fraction": {f"{r:g}": list(steps) for r, steps in by_fraction.items()},
        "median t4": {f"{r:g}": t4 for r, t4 in medians.items()},
        "the paper's fit": {f"{r:g}": PAPER_LAW.predict(100 * r) for r in medians},
        "paper": {"gamma": PAPER_LAW.gamma, "a": PAPER_LAW.a, "b": PAPER_LAW.b},
        "here": None,
        "determined": False,
    }
    if len(known) >= 3:
        law = fit_power_law(list(known), list(known.values()))
        found["here"] = {"gamma": law.gamma, "a": law.a, "b": law.b}
        found["determined"] = 0.01 < law.gamma < 29.9
    return found


def opinions(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What grokwatch said of the runs, counted.

    "right" means that its last probability before t4 was declared lay on the outcome's side.
    """
    said = [run["grokwatch"] for run in runs]
    spoke = [one for one in said if one["first probability"] is not None]
    right = [one for one in spoke if one["right since"] is not None]
    grokked = [one for one in said if one["generalised"]]
    ahead = [one["steps ahead of t4"] for one in right if one["generalised"]]
    shares = [
        one["steps ahead of t4"] / one["t4"] for one in right if one["generalised"] and one["t4"]
    ]
    stopped = [one for one in said if "stop_unpromising" in one["recommended"]]
    barren = [run for run in runs if run["t4"] is None]
    saved = sum(
        run["steps"] - run["grokwatch"]["recommended"].get("stop_unpromising", run["steps"])
        for run in barren
    )
    return {
        "runs": len(said),
        "generalised": len(grokked),
        "without a probability": len(said) - len(spoke),
        "right": len(right),
        "right of those that generalised": len(ahead),
        "median steps ahead of t4": float(np.median(ahead)) if ahead else None,
        "median share of t4 ahead": float(np.median(shares)) if shares else None,
        "median step of being right, of the others": float(
            np.median([one["right since"] for one in right if not one["generalised"]])
        )
        if len(right) > len(ahead)
        else None,
        "stop_unpromising": len(stopped),
        "stop_unpromising of runs that generalised": sum(one["generalised"] for one in stopped),
        "steps of the others it would have saved": saved / max(1, sum(r["steps"] for r in barren)),
    }
