"""``trainer_state.json`` of the Hugging Face Trainer: ``log_history``, means over logging steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from grokwatch._bounds import document
from grokwatch._readers.hparams import settings_from
from grokwatch._readers.tidy import Logged, Options, make_run
from grokwatch._run import RecordError, Run
from grokwatch.ingest import as_float

FILE = "trainer_state.json"


def read_trainer_state(path: Path, options: Options) -> list[Run]:
    """Read what a Trainer logged.

    Raises:
        RecordError: not JSON, no ``log_history``, an entry without a step.
    """
    state = document(path)
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise RecordError(f"{path}: no list 'log_history'; is it a Trainer's {FILE}?")
    columns: dict[str, tuple[list[int], list[float], list[int]]] = {}
    for number, entry in enumerate(history, start=1):
        where = f"{path}: entry {number} of log_history"
        if not isinstance(entry, dict):
            raise RecordError(f"{where} is no object but {entry!r:.60}.")
        if "train_runtime" in entry:  # the summary at the end: means over the whole run
            continue
        step = entry.get(options.names.get("step", "step"))
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step <= 2**53:
            raise RecordError(f"{where} has no whole step but {step!r:.60}.")
        for name, value in entry.items():
            if name == "step" or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            steps, values, lines = columns.setdefault(name, ([], [], []))
            steps.append(step)
            values.append(as_float(name, value))
            lines.append(0)
    arrays = {
        name: (np.array(steps), np.array(values), np.array(lines))
        for name, (steps, values, lines) in columns.items()
    }
    settings = settings_from({"max_steps": state.get("max_steps") or 0})
    logged = Logged(path, _name(path), arrays, settings, basis=_basis(state, arrays))
    return [make_run(logged, options, "trainer_state")]


def _basis(state: dict[str, Any], columns: dict[str, Any]) -> list[str]:
    if "loss" not in columns:
        return []
    steps, losses, _ = columns["loss"]
    every = state.get("logging_steps")
    gap = int(np.median(np.diff(steps))) if len(steps) > 1 else every or 1
    said = []
    if gap > 1:
        said.append(
            f"train_loss is the mean of about {gap} steps a point: spikes shorter than that and "
            f"the spectral signature are not seen"
        )
    if len(losses) and np.array_equal(np.round(losses, 4), losses):
        said.append("train_loss was logged rounded to four decimals")
    if "train_accuracy" not in columns and "accuracy" not in columns:
        said.append("no training accuracy was logged: t1 and t2 are guesses from the loss")
    return said


def _name(path: Path) -> str:
    folder = path.resolve().parent
    above = folder.parent
    return above.name or folder.name if folder.name.startswith("checkpoint-") else folder.name
