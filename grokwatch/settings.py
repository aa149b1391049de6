"""Checks of what a monitor is told beforehand."""

from __future__ import annotations

import math

from grokwatch.forecast.base import Settings


def check_settings(
    settings: Settings, memorised_at: float, generalised_at: float, accuracy_unit: str
) -> None:
    """Raise one clear error for a setting outside its range."""
    budget = settings.budget
    if isinstance(budget, bool) or not isinstance(budget, int):
        raise TypeError(
            f"budget must be a whole number of optimiser steps, but got {budget!r} of type "
            f"{type(budget).__name__}."
        )
    if budget < 1:
        raise ValueError(f"budget must be at least 1 optimiser step but got {budget}.")
    shares = {
        "memorised_at": memorised_at,
        "generalised_at": generalised_at,
        "chance": settings.chance,
        "train_fraction": settings.train_fraction,
        "max_kill_rate": settings.max_kill_rate,
    }
    for name, share in shares.items():
        if share is not None and not 0.0 <= share <= 1.0:
            raise ValueError(f"{name} must lie in 0..1 but got {share}.")
    if settings.chance is not None and settings.chance >= generalised_at:
        raise ValueError(
            f"chance must be below generalised_at, but got {settings.chance} and {generalised_at}."
        )
    for name in ("learning_rate", "weight_decay"):
        value = getattr(settings, name)
        if value is not None and not value >= 0.0:
            raise ValueError(f"{name} cannot be negative but got {value}.")
        if value is not None and value == math.inf:
            raise ValueError(f"{name} cannot be infinite.")
    if accuracy_unit not in ("fraction", "percent"):
        raise ValueError(
            f"accuracy_unit must be 'fraction' or 'percent' but got {accuracy_unit!r}."
        )
