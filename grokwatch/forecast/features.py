"""What a forecast looks at: a fixed vector of numbers from what a monitor has seen.

Everything is free of scale, so that it means the same whatever the logging cadence, the number of
classes, the base of the loss or the size of the network: slopes of logarithms, accuracies as the
share of the way from chance to 1, margins relative to their own lowest, times as ratios. How high
a validation loss rises, or how negative a margin gets, is left out on purpose: it ranks runs of one
kind and misleads on others (docs/forecast.md). What was not measured is NaN.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from grokwatch.forecast.base import Evidence, Settings

_LEARNT = 0.05  # a validation loss this far below its first value has generalised
_NEVER = 30.0  # doublings of the step: as good as never
_LEAST_DECAY = 1e-6  # learning rate x weight decay x steps: as good as none
_ARRIVED = 0.95  # of the way from chance to 1
_SLOPES = ("val_loss", "weight_norm", "grad_norm", "train_loss")
_SPANS = (2, 4, 16)

#: Known beforehand, not seen: left out in part of the fitting, so that nobody has to tell them.
TOLD = ("decay_clock", "train_fraction")

NAMES: tuple[str, ...] = (
    "log_step",
    "log_t2",
    "since_t2",
    "since_t3",
    "log_validations",
    "train_accuracy",
    "val_progress",
    "val_progress_best",
    "val_progress_low",
    "val_progress_at_t2",
    "since_val_loss_peak",
    "val_loss_undone",
    "val_margin_relative",
    "weight_norm_change",
    "weight_norm_off_peak",
    "grad_norm_off_peak",
    *(f"{name}_slope_{span}x" for name in _SLOPES for span in _SPANS),
    *(f"val_progress_slope_{span}x" for span in _SPANS),
    *(f"val_loss_undone_slope_{span}x" for span in (2, 4)),
    *(f"val_margin_relative_slope_{span}x" for span in _SPANS),
    *(f"{name}_doublings_{span}x" for name in ("loss", "margin", "accuracy") for span in (2, 4)),
    "val_loss_bend",
    "val_progress_bend",
    "spikes",
    *TOLD,
)


def features(evidence: Evidence) -> npt.NDArray[np.float64]:
    """The feature vector, shape (len(NAMES),), in the order of :data:`NAMES`."""
    get = evidence.signals.get
    now = evidence.step + 1.0
    found: dict[str, float] = {"log_step": math.log10(now)}
    for name, mark in (("since_t2", "t2"), ("since_t3", "t3")):
        at = get(mark)
        if at is not None:
            found[name] = math.log10(now / (at + 1.0))
    if "t2" in evidence.signals:
        found["log_t2"] = math.log10(evidence.signals["t2"] + 1.0)
    spikes = get("spikes")
    if spikes is not None:
        found["spikes"] = min(spikes, 3.0)
    for name in _SLOPES:
        for span in _SPANS:
            slope = get(f"{name}_slope_{span}x")
            if slope is not None:
                found[f"{name}_slope_{span}x"] = slope
    _accuracies(evidence, found)
    _val_loss(evidence, found, now)
    _margin(evidence, found)
    _norms(evidence, found)
    for name in ("val_loss", "val_progress"):
        short, long = found.get(f"{name}_slope_2x"), found.get(f"{name}_slope_4x")
        if short is not None and long is not None:
            found[f"{name}_bend"] = short - long
    _told(evidence.settings, now, found)
    return np.array([found.get(name, math.nan) for name in NAMES])


def _accuracies(evidence: Evidence, found: dict[str, float]) -> None:
    history = evidence.history
    last = history["train_accuracy"].last
    if last is not None:
        found["train_accuracy"] = last[1]
    bins = history["val_accuracy"]
    found["log_validations"] = math.log10(max(bins.count, history["val_loss"].count, 1))
    if bins.last is None:
        return
    steps, values = bins.points()
    chance = evidence.chance or 0.0
    chance = chance if chance < 1.0 else 0.0  # first seen at 1: nothing is known of guessing
    levels = {
        "val_progress": float(values[-1]),
        "val_progress_best": float(values.max()),
        "val_progress_low": float(values.min()),
    }
    t2 = evidence.signals.get("t2")
    if t2 is not None and steps[-1] >= t2:
        levels["val_progress_at_t2"] = float(values[int(np.searchsorted(steps, t2))])
    for name, value in levels.items():
        found[name] = (value - chance) / (1.0 - chance)
    for span in _SPANS:
        slope = evidence.signals.get(f"val_accuracy_slope_{span}x")
        if slope is not None:
            found[f"val_progress_slope_{span}x"] = slope / (1.0 - chance)
    goal = chance + _ARRIVED * (1.0 - chance)
    _doublings(evidence, found, "accuracy", "val_accuracy", goal - float(values[-1]))


def _val_loss(evidence: Evidence, found: dict[str, float], now: float) -> None:
    steps, losses = evidence.history["val_loss"].points()
    if not losses.size or losses.min() <= 0.0:
        return
    peak = int(losses.argmax())
    first, highest, last = math.log(losses[0]), math.log(losses[peak]), math.log(losses[-1])
    found["since_val_loss_peak"] = math.log10(now / (float(steps[peak]) + 1.0))
    # How much of the way down from its peak to "learnt" it has gone; the same for any rise.
    way = highest - first - math.log(_LEARNT)
    found["val_loss_undone"] = (highest - last) / way
    for span in (2, 4):
        slope = evidence.signals.get(f"val_loss_slope_{span}x")
        if slope is not None:
            found[f"val_loss_undone_slope_{span}x"] = -slope / way
    _doublings(evidence, found, "loss", "val_loss", math.log(_LEARNT) + first - last)


def _margin(evidence: Evidence, found: dict[str, float]) -> None:
    margins = evidence.history["val_margin"].points()[1]
    if not margins.size:
        return
    low, last = float(margins.min()), float(margins[-1])
    size = max(abs(low), 1e-6)
    found["val_margin_relative"] = (last - low) / size
    for span in _SPANS:
        slope = evidence.signals.get(f"val_margin_slope_{span}x")
        if slope is not None:
            found[f"val_margin_relative_slope_{span}x"] = slope / size
    _doublings(evidence, found, "margin", "val_margin", -last)


def _norms(evidence: Evidence, found: dict[str, float]) -> None:
    weights = evidence.history["weight_norm"].points()[1]
    if weights.size and weights.min() > 0.0:
        found["weight_norm_change"] = math.log(weights[-1] / weights[0])
        found["weight_norm_off_peak"] = math.log(weights[-1] / weights.max())
    gradients = evidence.history["grad_norm"].points()[1]
    if gradients.size and gradients.min() > 0.0:
        found["grad_norm_off_peak"] = math.log(gradients[-1] / gradients.max())


def _told(settings: Settings, now: float, found: dict[str, float]) -> None:
    """Decay wears off what is not needed within some 1 / (learning rate x weight decay) steps."""
    if settings.learning_rate is not None and settings.weight_decay is not None:
        clock = now * settings.learning_rate * settings.weight_decay
        found["decay_clock"] = math.log10(max(clock, _LEAST_DECAY))
    if settings.train_fraction is not None:
        found["train_fraction"] = settings.train_fraction


def _doublings(
    evidence: Evidence, found: dict[str, float], name: str, measured: str, distance: float
) -> None:
    """Doublings of the step until a straight line through the curve has gone ``distance``."""
    falling = name == "loss"
    for span in (2, 4):
        slope = evidence.signals.get(f"{measured}_slope_{span}x")
        if slope is None:
            continue
        if (distance >= 0.0) if falling else (distance <= 0.0):
            found[f"{name}_doublings_{span}x"] = 0.0
        elif distance * slope > 0.0:
            found[f"{name}_doublings_{span}x"] = min(distance / slope, _NEVER)
        else:
            found[f"{name}_doublings_{span}x"] = _NEVER
