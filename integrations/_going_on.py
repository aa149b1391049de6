"""How a run begins and goes on after a checkpoint: settings, record, the steps of agreement."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grokwatch._jsonl import is_record
from grokwatch.state import take

log = logging.getLogger("grokwatch")

#: Settings that a resumed run takes from its state: the trainer may by then show something else.
KEPT = ("chance", "learning_rate", "weight_decay", "train_fraction")


def settle(
    inferred: Mapping[str, Any], given: Mapping[str, Any], state: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The settings in force, each told with its source unless the user gave it.

    Args:
        inferred: found in the trainer; None = unknown.
        given: by the user; comes first.
        state: a saved state, or None; comes second.

    Raises:
        ValueError: no budget among them.
    """
    found = {name: value for name, value in inferred.items() if value is not None}
    saved = {} if state is None else take(state, "settings")
    settings = {**found, **saved, **given}
    if "budget" not in settings:
        raise ValueError(
            "the trainer does not say how many optimiser steps the run may take; "
            "pass budget=... to the callback."
        )
    for name in sorted(settings.keys() - given.keys()):
        source = "the checkpoint" if name in saved else "the trainer"
        log.info("%s = %s, taken from %s.", name, settings[name], source)
    return settings


def bring(record: Path, new: Path) -> None:
    """Some trainers log a resumed run to a new folder: the record goes along, to stay whole."""
    # The path comes out of a checkpoint, that may be anybody's: only a record may be copied.
    if not new.exists() and record.name == new.name and is_record(record):
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record, new)


def next_check(step: int) -> int:
    """The first step after ``step`` at which processes agree on stopping; a function of it alone.

    Every step up to 128, then 64 times in every doubling: a stop comes at most 1.6 % late.

    >>> next_check(10), next_check(128), next_check(1000), next_check(10_000)
    (11, 130, 1008, 10112)
    """
    every = 1 << max(0, step.bit_length() - 7)
    return step - step % every + every
