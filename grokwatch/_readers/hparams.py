"""Settings from the ``hparams.yaml`` that Lightning writes beside its metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grokwatch._bounds import BESIDE, beside

#: Setting -> the names it goes by.
_NAMES = {
    "learning_rate": ("learning_rate", "lr", "max_lr"),
    "weight_decay": ("weight_decay", "wd"),
    "train_fraction": ("train_fraction",),
    "budget": ("budget", "max_steps"),
}


def read_hparams(path: Path, run: Path, grok: bool = False) -> dict[str, Any]:
    """The settings found; {} without a file. Only plain ``name: number`` lines are looked at.

    Args:
        path: the file.
        run: the file of the run that it lies beside.
        grok: openai/grok's, whose share of training data is ``train_data_pct``.
    """
    if not beside(path, run):
        return {}
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(BESIDE)
    except (OSError, UnicodeDecodeError):
        return {}
    numbers: dict[str, float] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        try:
            numbers[name] = float(value) if colon else 0.0
        except ValueError:
            continue
    return settings_from(numbers, grok)


def settings_from(numbers: dict[str, float], grok: bool = False) -> dict[str, Any]:
    """Settings among named numbers, as far as they make sense.

    >>> settings_from({"lr": 0.001, "max_steps": 5000.0, "weight_decay": -1.0})
    {'learning_rate': 0.001, 'budget': 5000}
    """
    found: dict[str, Any] = {}
    for setting, names in _NAMES.items():
        value = next((numbers[name] for name in names if name in numbers), None)
        if value is not None and 0.0 <= value < 1e15:
            found[setting] = value
    if grok and "train_data_pct" in numbers:
        found["train_fraction"] = numbers["train_data_pct"] / 100.0
    if not 0.0 <= found.get("train_fraction", 0.0) <= 1.0:
        del found["train_fraction"]
    if "budget" in found:
        found["budget"] = int(found["budget"])
        if found["budget"] < 1:
            del found["budget"]
    return found
