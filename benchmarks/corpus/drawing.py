"""Random draws that the plans share."""

from __future__ import annotations

from typing import Any

import numpy as np

R_GRID = np.round(np.arange(0.3, 0.81, 0.05), 2)
BETAS = {(0.9, 0.98): 0.4, (0.9, 0.999): 0.35, (0.9, 0.95): 0.25}
# Number of sides of a dihedral group; it has twice as many elements.
SIDES = {8: 1, 9: 1, 10: 1, 11: 1, 12: 1, 14: 0.5}


def pick(rng: np.random.Generator, weights: dict[Any, float]) -> Any:
    """One key, drawn in proportion to its weight."""
    shares = np.array(list(weights.values()), dtype=float)
    return list(weights)[int(rng.choice(len(shares), p=shares / shares.sum()))]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number to two digits, its logarithm drawn evenly."""
    return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.2g}")


def fraction(rng: np.random.Generator, slope: float) -> float:
    """A training fraction of .3 to .8; the largest is `slope` times as likely as the least."""
    shares = np.linspace(1, slope, len(R_GRID))
    return float(rng.choice(R_GRID, p=shares / shares.sum()))
