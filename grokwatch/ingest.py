"""The one door: every measurement, whatever its source, is checked and rounded to float32 here.

Rounding makes a live run, a resumed one and one read back from a file the same numbers, and so
the same verdicts, bit for bit.
"""

from __future__ import annotations

import ctypes
import math
import operator
from typing import Any, Literal

Kind = Literal["loss", "fraction", "real", "norm"]

#: Measurements grokwatch knows, in the order in which one row is processed.
MEASUREMENTS: dict[str, Kind] = {
    "train_loss": "loss",
    "train_accuracy": "fraction",
    "val_loss": "loss",
    "val_accuracy": "fraction",
    "val_margin": "real",
    "grad_norm": "norm",
    "weight_norm": "norm",
    "last_layer_norm": "norm",
    "update_cosine_distance": "norm",
    "learning_rate": "norm",
    "chance": "fraction",  # accuracy of guessing, once it is known (number of classes)
    # Both ends of the Hessian's spectrum on a fixed batch, see docs/curvature.md.
    "hessian_max": "real",
    "hessian_min": "real",
    "hessian_ratio": "real",
    "hessian_max_residual": "norm",
    "hessian_min_residual": "norm",
    "hessian_max_resolved": "norm",  # 0 or 1
    "hessian_min_resolved": "norm",
    "hessian_edge": "real",  # 1 = at the optimiser's edge of stability
    "hessian_edge_resolved": "norm",
}

#: What a probe measures now and then: only the latest of each is kept, not its course.
PROBED = frozenset(name for name in MEASUREMENTS if name.startswith("hessian_"))

FLOAT32_MAX = 3.4028234663852886e38
LAST_STEP = 10**15  # where the log-time grid ends


class StepError(ValueError):
    """A step that cannot be: what came with it is left out, what comes later counts."""


class StepTypeError(StepError, TypeError):
    """A step that is no integer."""


def float32(value: float) -> float:
    """Round to the nearest float32, as a Python float; too large becomes inf.

    >>> float32(0.1)
    0.10000000149011612
    >>> float32(1e300)
    inf
    """
    return ctypes.c_float(value).value


def check_step(step: Any) -> int:
    """Return ``step`` as a Python int in 0..10^15, or raise one clear error."""
    if isinstance(step, bool):
        raise StepTypeError(f"step must be an integer, but got the bool {step}.")
    try:
        index = operator.index(step)
    except Exception:  # whatever somebody's __index__ raises
        raise StepTypeError(
            f"step must be an integer (the optimiser step), but got {_brief(step)} of type "
            f"{type(step).__name__}."
        ) from None
    if index < 0:
        raise StepError(f"step cannot be negative but got {_brief(index)}.")
    if index > LAST_STEP:
        raise StepError(
            f"step must be at most {LAST_STEP:.0e} but got {_brief(index)}; pass the optimiser "
            f"step, not a time."
        )
    return index


def check_measurement(name: str, value: Any, percent: bool = False) -> float | None:
    """Return the measurement as a float32-rounded Python float, or None for "not measured".

    Args:
        name: the measurement's name; decides which values make sense.
        value: a number, numpy scalar, 0-d array or one-element tensor.
        percent: accuracies arrive as 0..100 and are divided by 100.

    Raises:
        TypeError: not one real number.
        ValueError: an accuracy outside 0..1, a negative norm.

    NaN and inf are kept for losses, norms and margins (they are news: the run may have
    diverged); a NaN accuracy is a mean over nothing, so it counts as not measured.
    """
    number = as_float(name, value)
    kind = MEASUREMENTS.get(name, "real")
    if kind == "fraction":
        if math.isnan(number):
            return None
        percent = percent and name != "chance"  # a fraction, as the setting of that name
        fraction = float32(number / 100.0 if percent else number)
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(_bad_fraction(name, number, percent))
        return fraction
    if kind == "norm" and number < 0.0:
        raise ValueError(f"{name} is a size and cannot be negative but got {number}.")
    return float32(number)


def as_float(name: str, value: Any) -> float:
    """One real number as a Python float, or a TypeError that says what arrived."""
    if type(value) is float:
        return value
    if isinstance(value, (bool, str, bytes, complex)):
        raise TypeError(f"{name} must be a real number, but got {_brief(value)}.")
    try:
        if hasattr(value, "detach"):  # a tensor that requires grad warns when read as a number
            value = value.detach()
        if _no_number(value):
            raise TypeError
        return float(value)
    except OverflowError:  # an int beyond float64
        return math.inf if value > 0 else -math.inf
    except Exception:  # whatever somebody's __float__ raises
        shape = getattr(value, "shape", None)
        what = f"of shape {tuple(shape)}" if isinstance(shape, tuple) else _brief(value)
        raise TypeError(
            f"{name} must be one real number, but got a {type(value).__name__} {what}; "
            f"pass its mean or one element."
        ) from None


def _no_number(value: Any) -> bool:
    """Whether it is of a dtype of which float() would make a number all the same."""
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind is not None:  # numpy's: complex, text, dates
        return kind in "cSUMm"
    is_complex = getattr(value, "is_complex", None)  # torch's
    return is_complex is not None and bool(is_complex())


def _bad_fraction(name: str, value: float, percent: bool) -> str:
    if percent:
        return f"{name} must lie in 0..100 with accuracy_unit='percent', but got {value}."
    hint = ""
    if 1.0 < value <= 100.0:
        hint = (
            f" If {value} is a percentage, divide it by 100 or create the monitor with "
            f"accuracy_unit='percent'."
        )
    return f"{name} is a fraction and must lie in 0..1, but got {value}.{hint}"


def _brief(value: Any) -> str:
    """What arrived, in a few letters, whatever it is."""
    try:
        return f"{value!r:.60}"
    except Exception:  # no repr, or an int of too many digits for one
        return f"a {type(value).__name__}"
