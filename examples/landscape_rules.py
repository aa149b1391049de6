"""What the claims about a run's landscape are counted with: sets of steps, and thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.signal import find_peaks

if TYPE_CHECKING:
    from landscape_measure import Measured
    from landscape_train import Run

Array = np.ndarray
Claim = dict[str, Any]

NEAR = 20  # steps around a slingshot's onset that belong to it
SMALL_RATIO = 0.01  # |λ_min/λ_max| that counts as "close to 0"; probes are exact to .0023
BARRIER = 0.1  # decades of loss that a maximum must stand out to be an obstacle


def about(steps: Array, values: Array, step: int) -> float:
    """Median over the nearest three checkpoints: one alone is noisy."""
    nearest = np.argsort(np.abs(steps - step), kind="stable")[:3]
    return float(np.nanmedian(values[nearest]))


def quiet(run: Run, measured: Measured) -> Array:
    """Which curvature probes are after t2 and away from slingshots."""
    steps = np.array(measured.curvature["step"])
    return (steps > run.milestones.get("t2", steps[-1])) & ~near_slingshot(run, steps)


def quiet_ratios(run: Run, measured: Measured) -> Array:
    """λ_min/λ_max of those probes."""
    return np.array(measured.curvature["ratio"])[quiet(run, measured)]


def negative(run: Run, measured: Measured) -> Array:
    """At which of those probes λ_min is negative for certain."""
    certain = np.array(measured.curvature["resolved_min"]) > 0
    return (certain & (np.array(measured.curvature["lambda_min"]) < 0))[quiet(run, measured)]


def obstacles(measured: Measured, toward: str) -> Array:
    """Whether the training loss has an inner maximum, for each checkpoint."""
    losses = np.log10(np.maximum(measured.surfaces[toward].values["train_loss"], 1e-12))
    return np.array([len(find_peaks(row, prominence=BARRIER)[0]) > 0 for row in losses])


def near_slingshot(run: Run, steps: Array) -> Array:
    """Which steps belong to a slingshot."""
    near = np.zeros(len(steps), dtype=bool)
    for spike in run.spikes:
        near |= np.abs(steps - spike) <= NEAR
    return near


def after_t2(run: Run, name: str) -> tuple[Array, Array]:
    """Steps after t2 and a curve over them."""
    values = run.curve(name)
    steps = np.arange(len(values))
    shown = steps > run.milestones.get("t2", 0)
    return steps[shown], values[shown]


def median(values: Any) -> float:
    """Median; nan of nothing."""
    return float(np.median(values)) if len(values) else float("nan")


def percent(hits: Array) -> str:
    """Share of hits in words."""
    return f"{100 * np.mean(hits):.0f} %" if len(hits) else "none"


def make_claim(claim: str, measured: str, agrees: bool | None) -> Claim:
    """A claim, what was measured, and whether they agree; None = nothing to measure."""
    return {"claim": claim, "measured": measured, "agrees": agrees}


def as_table(found: list[Claim]) -> str:
    """The claims as a Markdown table.

    >>> print(as_table([make_claim("The earth is flat", "a ball", False)]))
    | claim | measured | agrees? |
    |---|---|---|
    | The earth is flat | a ball | **no** |
    """
    said = {True: "yes", False: "**no**", None: "not tested"}
    lines = ["| claim | measured | agrees? |", "|---|---|---|"]
    for one in found:
        cells = [one["claim"], one["measured"], said[one["agrees"]]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
