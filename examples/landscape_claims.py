"""What Notsawo et al. 2023 (arXiv:2306.13253) say of the landscape, held against one run.

Each claim comes with a rule, fixed beforehand, that says when it counts as met; the measured
figures stand beside it, so that a reader may judge otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from landscape_dimensions import dimension_falls, dimension_grows, estimators_agree
from landscape_rules import (
    BARRIER,
    NEAR,
    SMALL_RATIO,
    Claim,
    after_t2,
    make_claim,
    median,
    near_slingshot,
    negative,
    obstacles,
    percent,
    quiet_ratios,
)
from scipy.signal import find_peaks

if TYPE_CHECKING:
    from landscape_measure import Measured
    from landscape_train import Run


def claims(run: Run, measured: Measured) -> list[Claim]:
    """All claims in the order of the paper."""
    return [
        two_minimisers(measured),
        quiet_curvature(run, measured),
        slingshot_curvature(run, measured),
        condition(run, measured),
        principal_modes(measured),
        constant_angle(run),
        jumping_angle(run),
        lazy(run, measured),
        small_gradient(run),
        random_direction(measured),
        initial_direction(measured),
        dimension_grows(run, measured),
        dimension_falls(run, measured),
        estimators_agree(measured),
    ]


def two_minimisers(measured: Measured) -> Claim:
    """Figure 3, on the line used there."""
    line = measured.to_initial
    loss, train = line.values["train_loss"], line.values["train_accuracy"]
    minima, _ = find_peaks(-np.log10(np.maximum(loss, 1e-12)), prominence=BARRIER)
    fit = [i for i in minima if train[i] >= 0.99]
    general = [i for i in fit if line.values["val_accuracy"][i] >= 0.95]
    where = ", ".join(
        f"α = {line.alphas[i]:.2f} (val accuracy {line.values['val_accuracy'][i]:.2f})" for i in fit
    )
    return make_claim(
        "Along θ* + αδ, δ ∝ θ_0 - θ*, there are two minimisers of the training loss; only one of "
        "them minimises the validation loss (fig. 3)",
        f"{len(fit)} minima with train accuracy >= .99: {where or 'none'}",
        len(fit) == 2 and len(general) == 1,
    )


def quiet_curvature(run: Run, measured: Measured) -> Claim:
    """Section 4, away from slingshots."""
    ratio = quiet_ratios(run, measured)
    small = np.abs(ratio) <= SMALL_RATIO
    return make_claim(
        "Away from slingshots λ_min stays close to 0 (sec. 4)",
        f"after t2: median |λ_min/λ_max| = {median(np.abs(ratio)):.0e}; "
        f"<= {SMALL_RATIO} at {percent(small)} of {len(ratio)} probes; "
        f"negative for certain in {percent(negative(run, measured))}",
        bool(small.mean() >= 0.9) if len(ratio) else None,
    )


def slingshot_curvature(run: Run, measured: Measured) -> Claim:
    """Section 4, at slingshots."""
    lows = [min(window["ratio"]) for window in measured.slingshots]
    certain = [
        any(done and low < 0 for done, low in zip(w["resolved_min"], w["lambda_min"], strict=True))
        for w in measured.slingshots
    ]
    quiet = median(np.abs(quiet_ratios(run, measured)))
    return make_claim(
        "During slingshots λ_min becomes negative (sec. 4)",
        f"negative for certain at {sum(certain)} of {len(lows)} slingshots; lowest λ_min/λ_max "
        f"there: median {median(lows):.3f}, against a quiet median of |ratio| {quiet:.0e}",
        all(certain) and -median(lows) > 3 * quiet if lows else None,
    )


def condition(run: Run, measured: Measured) -> Claim:
    """Section 4: λ_max on the plateaus."""
    steps, top = np.array(measured.curvature["step"]), np.array(measured.curvature["lambda_max"])
    t2, t4 = run.milestones.get("t2"), run.milestones.get("t4", steps[-1])
    plateau = top[(steps > (t2 or 0)) & (steps < t4) & ~near_slingshot(run, steps)]
    peaks = [max(window["lambda_max"]) for window in measured.slingshots]
    return make_claim(
        "λ_max is large on plateaus, and greatly disturbed at slingshots (sec. 4)",
        f"λ_max: {top[0]:.2g} at the start, median {median(plateau):.3g} between t2 and t4, "
        f"highest at each slingshot: median {median(peaks):.3g}",
        bool(median(plateau) > top[0] and median(peaks) > 3 * median(plateau))
        if len(plateau) and peaks
        else None,
    )


def principal_modes(measured: Measured) -> Claim:
    """Appendix G.3."""
    share = {center: float(path.explained[:2].sum()) for center, path in measured.paths.items()}
    mean = measured.paths["mean"]
    return make_claim(
        "More than 98 % of the variance of the weights lies in the first 2 PCA modes (app. G.3)",
        f"{100 * share['mean']:.1f} % about the mean, {100 * share['final']:.1f} % about θ_T, of "
        f"{len(mean.path)} evenly spaced checkpoints; 98 % takes {mean.modes_for(0.98)} modes",
        max(share.values()) > 0.98,
    )


def constant_angle(run: Run) -> Claim:
    """Appendix G.3, away from slingshots."""
    steps, turn = after_t2(run, "step_cosine_distance")
    quiet = turn[~near_slingshot(run, steps)]
    low, high = np.percentile(quiet, [5, 95])
    return make_claim(
        "cos(θ_t, θ_{t+1}) is almost constant away from slingshots (app. G.3)",
        f"after t2: 1 - cos between {low:.1e} and {high:.1e} (5 % to 95 %), "
        f"a factor of {high / low:.0f}; the cosine itself is above {1 - quiet.max():.5f}",
        bool(high / low < 10),
    )


def jumping_angle(run: Run) -> Claim:
    """Appendix G.3, at slingshots."""
    steps, turn = after_t2(run, "step_cosine_distance")
    quiet = float(np.median(turn[~near_slingshot(run, steps)]))
    peaks = [float(turn[np.abs(steps - s) <= NEAR].max()) for s in run.spikes if s in steps]
    return make_claim(
        "cos(θ_t, θ_{t+1}) jumps at slingshots (app. G.3)",
        f"1 - cos at its highest: median {median(peaks) / quiet:.0f} times the quiet median, "
        f"lowest {min(peaks, default=np.nan) / quiet:.1f} times, {len(peaks)} slingshots",
        bool(min(peaks) > 3 * quiet) if peaks else None,
    )


def lazy(run: Run, measured: Measured) -> Claim:
    """Section 4: lazy training."""
    cosine = 1 - run.curve("initial_cosine_distance")
    start = run.curve("weight_norm")[0]
    moved = run.curve("initial_distance") / start
    t2, t4 = run.milestones.get("t2", 0), run.milestones.get("t4", len(cosine) - 1)
    return make_claim(
        "The model remains in a lazy regime most of the time: parameters move little (sec. 4)",
        f"cos(θ_t, θ_0) = {cosine[t2]:.2f} at t2, {cosine[t4]:.2f} at t4, {cosine[-1]:.2f} at the "
        f"end; ‖θ_t - θ_0‖/‖θ_0‖ = {moved[t2]:.2f}, {moved[t4]:.2f}, {moved[-1]:.2f}; off the "
        f"line from first to last by up to "
        f"{(measured.paths['mean'].residual / measured.paths['mean'].chord).max():.2f} of it",
        bool(cosine[t4] > 0.9),
    )


def small_gradient(run: Run) -> Claim:
    """Figure 13."""
    norm = run.curve("grad_norm") ** 2
    small = norm < 0.01 * norm.max()
    return make_claim(
        "Most of the time there is no significant gradient (fig. 13)",
        f"‖G‖² is below 1 % of its maximum on {percent(small)} of the steps",
        bool(small.mean() > 0.5),
    )


def random_direction(measured: Measured) -> Claim:
    """Figure 9."""
    blocked = obstacles(measured, "random")
    toward = obstacles(measured, "final")
    return make_claim(
        "No obstacles in a random direction (fig. 9), many toward the solution (fig. 4)",
        f"training loss has an inner maximum of {BARRIER} decades or more at {percent(blocked)} "
        f"of the checkpoints in a random direction, {percent(toward)} toward the last weights",
        bool(blocked.mean() <= 0.1 and toward.mean() >= 0.5),
    )


def initial_direction(measured: Measured) -> Claim:
    """Figure 10."""
    found = measured.surfaces["initial"]
    near = np.abs(found.alphas) <= 0.6
    grid = float(found.alphas[1] - found.alphas[0])
    lowest = found.alphas[near][found.values["train_loss"][:, near].argmin(1)]
    minimum = np.abs(lowest) <= 1.5 * grid
    return make_claim(
        "Toward θ_0 every point of the trajectory behaves locally as a minimum (fig. 10)",
        f"the lowest training loss within |α| <= .6 is at most one grid point ({grid:.2f}) from "
        f"the point itself at {percent(minimum)} of {len(minimum)} checkpoints",
        bool(minimum.mean() >= 0.9),
    )
