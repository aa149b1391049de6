"""The jump in accuracy as it happens: its time, its sharpness and its gap to the training jump.

Fits of the error function (Miller et al. 2024) to a run's training and validation accuracy, held
in fixed memory and fitted again when asked. What is not clearly S-shaped gets no figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grokwatch.signals.erf import (
    MIN_POINTS,
    ErfFit,
    TwoErfFit,
    absolute_sharpness,
    fit_either,
    fit_erf,
    relative_gap,
    relative_sharpness,
)
from grokwatch.signals.merged_curve import FloatArray, MergedCurve
from grokwatch.state import take

_VISIBLE = 0.1  # rise in accuracy
_SMOOTHED = 3  # points averaged before a rise is looked for


class Transition:
    """Erf fits of the training and the validation jump, refreshed by :meth:`refit`.

    ``values`` has a key only for what is known, times in optimiser steps, sharpness per step:
    ``transition_time``, ``_sharpness``, their ``_error`` (standard errors), ``transition_r2``,
    ``transition_low`` (the level before), ``transition_amplitude`` and ``transition_jumps``; for a
    rise in two steps (Arn 2023, Fig. 4.7) they are those of the larger jump, with both times as
    ``transition_first_time`` and ``transition_second_time``. ``train_transition_time``,
    ``_sharpness`` and ``_r2``; ``relative_gap``, ``relative_sharpness`` and
    ``absolute_sharpness`` as in Miller et al. 2024.

    Args:
        capacity: points kept of each curve, at least 16.

    >>> from math import erf
    >>> signal = Transition()
    >>> for step in range(0, 10_000, 50):
    ...     signal.add_train(step, 0.5 + 0.5 * erf((step - 1000) / 400))
    ...     signal.add_val(step, 0.5 + 0.5 * erf((step - 5000) / 800))
    >>> signal.refit()
    >>> known = signal.values()
    >>> round(known["transition_time"]), round(known["relative_gap"], 3)
    (5000, 4.0)
    """

    name = "transition"
    inputs: tuple[str, ...] = ("train_accuracy", "val_accuracy")

    def __init__(self, capacity: int = 256) -> None:
        self.capacity = capacity
        self._reset()

    def _reset(self) -> None:
        self._train = MergedCurve(self.capacity)
        self._val = MergedCurve(self.capacity)
        self._known: dict[str, float] = {}
        self._begun: tuple[int, bool] = (0, False)  # at how many measurements, and the answer

    def update(self, step: int, name: str, value: float) -> None:
        """Take one measurement by name; other names are left out."""
        if name == "train_accuracy":
            self._train.add(step, value)
        elif name == "val_accuracy":
            self._val.add(step, value)

    def add_train(self, step: int, accuracy: float) -> None:
        """Take one training accuracy; steps ascend; one that is not finite is left out."""
        self._train.add(step, accuracy)

    def add_val(self, step: int, accuracy: float) -> None:
        """Take one validation accuracy; steps ascend; one that is not finite is left out."""
        self._val.add(step, accuracy)

    def extend_train(
        self,
        steps: Sequence[int] | npt.NDArray[Any],
        accuracies: Sequence[float] | npt.NDArray[Any],
    ) -> None:
        """Take several training accuracies, bit for bit as if one by one."""
        self._train.extend(steps, accuracies)

    def extend_val(
        self,
        steps: Sequence[int] | npt.NDArray[Any],
        accuracies: Sequence[float] | npt.NDArray[Any],
    ) -> None:
        """Take several validation accuracies, bit for bit as if one by one."""
        self._val.extend(steps, accuracies)

    @property
    def begun(self) -> bool:
        """Whether validation accuracy stands visibly (0.1, and beyond noise) above an earlier low.

        Cheap: looked at again only when a point was added to the curve.
        """
        if self._begun[0] != self._val.count:
            self._begun = (self._val.count, _rises(*self._val.points()))
        return self._begun[1]

    def refit(self) -> None:
        """Fit both curves anew; a few milliseconds. Validation only once its rise has begun."""
        train, _ = _jump(*self._train.points())
        val, two = _jump(*self._val.points(), two_too=True) if self.begun else (None, None)
        self._known = known = {}
        if two is not None:
            val = two.main
            known["transition_first_time"] = two.first.time
            known["transition_second_time"] = two.second.time
        if train is not None and train.s_shaped:
            known["train_transition_time"] = train.time
            known["train_transition_sharpness"] = train.sharpness
            known["train_transition_r2"] = train.r2
        if val is None or not val.s_shaped:
            return
        known["transition_time"] = val.time
        known["transition_sharpness"] = val.sharpness
        known["transition_time_error"] = val.time_error
        known["transition_sharpness_error"] = val.sharpness_error
        known["transition_r2"] = val.r2
        known["transition_low"] = val.low
        known["transition_amplitude"] = val.amplitude
        known["transition_jumps"] = 2.0 if "transition_first_time" in known else 1.0
        known["absolute_sharpness"] = absolute_sharpness(val)
        if train is not None and train.s_shaped and train.time > 0.0:
            known["relative_gap"] = relative_gap(train, val)
            known["relative_sharpness"] = relative_sharpness(train, val)

    def values(self) -> dict[str, float]:
        """What the last :meth:`refit` found."""
        return dict(self._known)

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON-able state, at most 12 kB at the default capacity."""
        return {
            "train": self._train.state_dict(),
            "val": self._val.state_dict(),
            "known": dict(self._known),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, bit for bit; ValueError that names a missing key."""
        train, val, known = (take(state, key) for key in ("train", "val", "known"))
        curves = MergedCurve(self.capacity), MergedCurve(self.capacity)
        for curve, saved in zip(curves, (train, val), strict=True):
            curve.load_state_dict(saved)
        self._reset()
        self._train, self._val = curves
        self._known = {str(key): float(value) for key, value in known.items()}


def _jump(
    t: FloatArray, y: FloatArray, w: FloatArray, two_too: bool = False
) -> tuple[ErfFit | None, TwoErfFit | None]:
    """The fit of one jump (and of two); None without enough points or a visible rise."""
    if len(t) < MIN_POINTS or t[0] == t[-1] or np.ptp(y) < _VISIBLE:
        return None, None
    one, two = fit_either(t, y, weights=w) if two_too else (fit_erf(t, y, weights=w), None)
    return (one, two) if one.amplitude >= _VISIBLE else (None, None)


def _rises(t: FloatArray, y: FloatArray, w: FloatArray) -> bool:
    """Whether the smoothed end stands above an earlier low, by 0.1 and beyond the noise."""
    if len(y) < 2 * _SMOOTHED:
        return False
    total = np.cumsum(np.concatenate([[0.0], w * y]))
    weight = np.cumsum(np.concatenate([[0.0], w]))
    smooth = (total[_SMOOTHED:] - total[:-_SMOOTHED]) / (weight[_SMOOTHED:] - weight[:-_SMOOTHED])
    rise = float(smooth[-1] - smooth.min())
    # Independent noise sigma has neighbours 1.1 sigma apart and the lowest of 256 smoothed points
    # 1.6 sigma down, so 4 such distances are not reached by chance.
    return rise > _VISIBLE and rise > 4.0 * float(np.mean(np.abs(np.diff(y))))
