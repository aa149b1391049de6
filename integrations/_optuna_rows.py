"""What a trial measured, kept in Optuna's storage: a log in the trial's user attributes.

Optuna stores one value a step; the others travel as attributes ``grokwatch:0``, ``grokwatch:1``,
... one for each report, in the order of the reports. Nothing in it is ever changed, so a trial that
goes on after a crash, or is tried again with the attributes of the one that died, just adds to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from grokwatch.integrations._sweep_trials import Faults

PREFIX = "grokwatch:"

_counts: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_faults = Faults()


def report(
    trial: Any,
    step: int,
    *,
    train_loss: Any = None,
    train_accuracy: Any = None,
    val_loss: Any = None,
    val_accuracy: Any = None,
    val_margin: Any = None,
    grad_norm: Any = None,
    weight_norm: Any = None,
    value: str = "val_accuracy",
) -> None:
    """Report all that was measured at a step; then ask ``trial.should_prune()`` as always.

    A report costs two writes to the storage, as much as two of Optuna's own: make one at each
    validation, not at each step.

    Args:
        trial: an ``optuna.Trial``.
        step: optimiser step.
        train_loss: number, numpy scalar or one-element tensor, or None = not measured; likewise
            the others. A value that is no number is told once and left out.
        train_accuracy: as a fraction, see ``accuracy_unit`` of the pruner.
        val_loss: validation loss.
        val_accuracy: validation accuracy.
        val_margin: mean over validation examples of correct logit minus largest other.
        grad_norm: norm of the gradient.
        weight_norm: norm of all weights.
        value: which of them is Optuna's intermediate value; None of it is reported where that was
            not measured.

    >>> import optuna
    >>> trial = optuna.create_study().ask()
    >>> report(trial, 100, train_loss=0.5, val_accuracy=float("nan"))
    >>> trial.user_attrs
    {'grokwatch:0': '{"step":100,"train_loss":0.5,"val_accuracy":"nan"}'}
    """
    given = {
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "val_loss": val_loss,
        "val_accuracy": val_accuracy,
        "val_margin": val_margin,
        "grad_norm": grad_norm,
        "weight_norm": weight_norm,
    }
    if value not in given:
        raise ValueError(f"value must be one of {list(given)} but got {value!r}.")
    numbers: dict[str, float] = {}
    for name, number in given.items():
        if number is not None:
            with _faults.guard(f"measurement {name}"):
                numbers[name] = float(number.detach() if hasattr(number, "detach") else number)
    row = {name: v if math.isfinite(v) else repr(v) for name, v in numbers.items()}
    count = _counts.get(trial)
    if count is None:  # a trial that goes on has attributes already
        count = sum(1 for key in trial.user_attrs if _is_row(key))
    text = json.dumps({"step": int(step), **row}, separators=(",", ":"))
    trial.set_user_attr(f"{PREFIX}{count}", text)
    _counts[trial] = count + 1
    frozen = getattr(trial, "_cached_frozen_trial", None)
    if value in numbers and (frozen is None or int(step) not in frozen.intermediate_values):
        trial.report(numbers[value], int(step))  # Optuna takes a step once, and warns of more


def _is_row(key: str) -> bool:
    return key.startswith(PREFIX) and key[len(PREFIX) :].isdecimal()


def rows(attributes: Mapping[str, Any], start: int = 0) -> Iterator[tuple[int, dict[str, float]]]:
    """The log from a position on.

    >>> list(rows({"grokwatch:0": '{"step":7,"val_loss":"inf"}', "mine": 1}))
    [(7, {'val_loss': inf})]
    """
    while (text := attributes.get(f"{PREFIX}{start}")) is not None:
        row = json.loads(text)
        yield row.pop("step"), {name: float(number) for name, number in row.items()}
        start += 1
