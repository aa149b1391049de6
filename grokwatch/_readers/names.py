"""What other loggers call what grokwatch measures.

A name is compared in lower case with every ``/``, ``.``, ``-`` and space as ``_``. Guesses are
tried in a fixed order, so that one file is always read in one way; ``--map`` comes before them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from grokwatch.ingest import MEASUREMENTS

_TRAIN = ("train", "training", "tr")
_VAL = ("val", "valid", "validation", "eval", "evaluation", "dev", "test")
_LOSS = ("loss", "cross_entropy", "ce", "nll", "xent")
_ACCURACY = ("accuracy", "acc", "top1", "acc1", "accuracy_top1")
_ENDINGS = ("", "_step", "_epoch")  # Lightning's: at the step, or the mean over the epoch

#: What may hold the optimiser step. W&B's own `_step` counts calls of log, so it comes late.
STEPS = (
    "step",
    "global_step",
    "trainer_global_step",
    "train_global_step",
    "optimizer_step",
    "current_steps",
    "steps",
    "iteration",
    "iter",
    "it",
    "_step",
)


def _sides(sides: Iterable[str], what: Iterable[str], bare: bool) -> list[str]:
    found = []
    for ending in _ENDINGS:
        for side in sides:
            found += [f"{side}_{word}{ending}" for word in what]
            found += [f"{word}_{side}{ending}" for word in what]
        if bare:
            found += [f"{word}{ending}" for word in what]
    return found


#: Measurement -> names it may come under, the likeliest first.
ALIASES: dict[str, list[str]] = {
    "train_loss": _sides(_TRAIN, _LOSS, bare=True),
    "train_accuracy": _sides(_TRAIN, _ACCURACY, bare=True),
    "val_loss": _sides(_VAL, _LOSS, bare=False),
    "val_accuracy": _sides(_VAL, _ACCURACY, bare=False),
    "val_margin": _sides(_VAL, ("margin",), bare=True),
    "grad_norm": [
        "grad_norm",
        "gradient_norm",
        "train_grad_norm",
        "gradnorm",
        "grad_2_0_norm_total",
        "grad_norm_total",
    ],
    "weight_norm": ["weight_norm", "param_norm", "parameter_norm", "weights_norm", "l2_norm"],
    "learning_rate": ["learning_rate", "lr", "train_learning_rate", "train_lr"],
}


def plain(name: str) -> str:
    """A name as it is compared.

    >>> plain("Train/Loss"), plain("trainer/global_step"), plain("_step")
    ('train_loss', 'trainer_global_step', '_step')
    """
    return re.sub(r"[\s/.\-:|]+", "_", name.strip().lower())


def guess_step(names: Iterable[str], mapping: Mapping[str, str]) -> str | None:
    """The column that holds the step, or None.

    >>> guess_step(["_step", "trainer/global_step", "loss"], {})
    'trainer/global_step'
    """
    if "step" in mapping:
        return mapping["step"]
    known = _by_plain_name(names)
    return next((known[step] for step in STEPS if step in known), None)


def guess(names: Iterable[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """Measurement -> the column it is read from.

    >>> guess(["epoch", "train/loss", "Eval/Acc", "test_acc"], {})
    {'train_loss': 'train/loss', 'val_accuracy': 'Eval/Acc'}
    >>> guess(["loss", "valid/nll", "test/nll"], {"val_loss": "test/nll"})
    {'train_loss': 'loss', 'val_loss': 'test/nll'}
    """
    known = _by_plain_name(name for name in names if name not in mapping.values())
    found = {}
    for measurement in MEASUREMENTS:
        if measurement in mapping:
            found[measurement] = mapping[measurement]
            continue
        for alias in (measurement, *ALIASES.get(measurement, ())):
            if alias in known:
                found[measurement] = known[alias]
                break
        else:
            rates = [n for p, n in known.items() if p.startswith("lr_")]  # Lightning's `lr-AdamW`
            if measurement == "learning_rate" and len(rates) == 1:
                found[measurement] = rates[0]
    found.update({name: column for name, column in mapping.items() if name != "step"})
    return found


def _by_plain_name(names: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(plain(name), name)
    return found
