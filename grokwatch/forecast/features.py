"""What a forecast looks at: a fixed vector of numbers from what a monitor has seen.

Everything is relative, so that it means the same whatever the logging cadence, the number of
classes or the base of the loss: losses and norms as logarithms relative to their first value or
their extremes, accuracies as the share of the way from chance to 1, times as ratios. What was not
measured is NaN; the model handles it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from grokwatch.forecast.base import Evidence
from grokwatch.history import FloatArray

_FLOOR = 1e-12
_LEARNT = 0.05  # a validation loss this far below its first value has generalised
_NEVER = 30.0  # doublings of the step: as good as never
_SLOPES = (
    "val_loss_slope",
    "val_margin_slope",
    "val_accuracy_slope",
    "weight_norm_slope",
    "grad_norm_slope",
    "train_loss_slope",
)
_SPANS = (2, 4, 16)

NAMES: tuple[str, ...] = (
    "log_step",
    "log_t2",
    "since_t2",
    "since_t3",
    "train_accuracy",
    "train_loss_fall",
    "val_loss_rise",
    "val_loss_peak",
    "val_loss_off_peak",
    "since_val_loss_peak",
    "val_over_train_loss",
    "val_progress",
    "val_progress_best",
    "val_progress_low",
    "val_margin",
    "val_margin_off_low",
    "val_margin_relative",
    "weight_norm_change",
    "weight_norm_off_peak",
    "grad_norm_off_peak",
    "grad_over_weight",
    *(f"{name}_{span}x" for name in _SLOPES for span in _SPANS),
    *(f"{name}_doublings_{span}x" for name in ("loss", "margin", "accuracy") for span in (2, 4)),
    "val_loss_bend",
    "val_margin_bend",
    "val_accuracy_bend",
)


def features(evidence: Evidence) -> npt.NDArray[np.float64]:
    """The feature vector, shape (len(NAMES),), in the order of :data:`NAMES`."""
    signals, history = evidence.signals, evidence.history
    get = signals.get
    now = evidence.step + 1.0
    found: dict[str, float] = {"log_step": math.log10(now)}
    for name, mark in (("since_t2", "t2"), ("since_t3", "t3")):
        at = get(mark)
        if at is not None:
            found[name] = math.log10(now / (at + 1.0))
    if "t2" in signals:
        found["log_t2"] = math.log10(signals["t2"] + 1.0)
    train_loss = history["train_loss"].points()[1]
    if train_loss.size and train_loss.min() >= 0.0:
        now_log = math.log(max(float(train_loss[-1]), _FLOOR))
        found["train_loss_fall"] = now_log - math.log(max(float(train_loss[0]), _FLOOR))
    _accuracies(evidence, found)
    _val_loss(evidence, found, now)
    _margin(evidence, found)
    _norms(evidence, found)
    for name in _SLOPES:
        for span in _SPANS:
            slope = get(f"{name}_{span}x")
            if slope is not None:
                found[f"{name}_{span}x"] = slope
    for name in ("val_loss", "val_margin", "val_accuracy"):
        short, long = get(f"{name}_slope_2x"), get(f"{name}_slope_4x")
        if short is not None and long is not None:
            found[f"{name}_bend"] = short - long
    _doublings(evidence, found)
    return _vector(found)


def _vector(found: Mapping[str, float]) -> npt.NDArray[np.float64]:
    return np.array([found.get(name, math.nan) for name in NAMES])


def _accuracies(evidence: Evidence, found: dict[str, float]) -> None:
    train = evidence.history["train_accuracy"].points()[1]
    if train.size:
        found["train_accuracy"] = float(train[-1])
    val = evidence.history["val_accuracy"].points()[1]
    if val.size:
        chance = evidence.chance or 0.0
        progress = (val - chance) / (1.0 - chance)
        found["val_progress"] = float(progress[-1])
        found["val_progress_best"] = float(progress.max())
        found["val_progress_low"] = float(progress.min())


def _val_loss(evidence: Evidence, found: dict[str, float], now: float) -> None:
    steps, losses = evidence.history["val_loss"].points()
    if not losses.size or losses.min() <= 0.0:
        return
    levels = np.log(losses)
    peak = int(levels.argmax())
    found["val_loss_rise"] = float(levels[-1] - levels[0])
    found["val_loss_peak"] = float(levels[peak] - levels[0])
    found["val_loss_off_peak"] = float(levels[-1] - levels[peak])
    found["since_val_loss_peak"] = math.log10(now / (float(steps[peak]) + 1.0))
    last = evidence.history["train_loss"].last
    if last is not None and last[1] >= 0.0:
        found["val_over_train_loss"] = float(levels[-1]) - math.log(max(last[1], _FLOOR))


def _margin(evidence: Evidence, found: dict[str, float]) -> None:
    margins: FloatArray = evidence.history["val_margin"].points()[1]
    if margins.size:
        low = float(margins.min())
        found["val_margin"] = float(margins[-1])
        found["val_margin_off_low"] = float(margins[-1]) - low
        found["val_margin_relative"] = (float(margins[-1]) - low) / max(abs(low), 1e-6)


def _norms(evidence: Evidence, found: dict[str, float]) -> None:
    weights = evidence.history["weight_norm"].points()[1]
    if weights.size and weights.min() > 0.0:
        found["weight_norm_change"] = math.log(weights[-1] / weights[0])
        found["weight_norm_off_peak"] = math.log(weights[-1] / weights.max())
    gradients = evidence.history["grad_norm"].points()[1]
    if gradients.size and gradients.min() > 0.0:
        found["grad_norm_off_peak"] = math.log(gradients[-1] / gradients.max())
        if weights.size and weights[-1] > 0.0:
            found["grad_over_weight"] = math.log(gradients[-1] / weights[-1])


def _doublings(evidence: Evidence, found: dict[str, float]) -> None:
    """Doublings of the step until a straight line through the curve arrives; scale-free."""
    togo: dict[str, tuple[str, float]] = {}
    losses = evidence.history["val_loss"].points()[1]
    if losses.size and losses.min() > 0.0:
        togo["loss"] = ("val_loss", math.log(_LEARNT * losses[0] / losses[-1]))
    if "val_margin" in found:
        togo["margin"] = ("val_margin", -found["val_margin"])
    if evidence.history["val_accuracy"].count:
        accuracy = float(evidence.history["val_accuracy"].points()[1][-1])
        togo["accuracy"] = ("val_accuracy", 0.95 - accuracy)
    for name, (measured, distance) in togo.items():
        for span in (2, 4):
            slope = evidence.signals.get(f"{measured}_slope_{span}x")
            if slope is not None:
                arrives = distance / slope if distance * slope > 0.0 else _NEVER
                there = distance <= 0.0 if name != "loss" else distance >= 0.0
                found[f"{name}_doublings_{span}x"] = 0.0 if there else min(arrives, _NEVER)
