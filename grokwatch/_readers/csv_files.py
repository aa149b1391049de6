"""CSV by its header: grokwatch's own, Lightning's CSVLogger, openai/grok's, W&B's, or any other."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from grokwatch._csv import read_sidecar
from grokwatch._readers.hparams import read_hparams
from grokwatch._readers.mlflow import LONG, read_mlflow
from grokwatch._readers.names import guess, guess_step, plain
from grokwatch._readers.table import Table, read_header, read_table
from grokwatch._readers.tidy import IntArray, Logged, Options, brief, folder_name, make_run
from grokwatch._run import SETTINGS, RecordError, Run

LAST_STEP = 2**53  # beyond, a number in a text is no longer exact
_GROK_PERCENT = ("train_accuracy", "val_accuracy", "full_train_acc")
_GROK_ONLY = {"train_perplexity", "val_perplexity", "full_train_acc", "fwd_time_in_epoch"}
_WANDB_SAMPLED = (
    "W&B thins what it exports: what happened between its points, spikes above all, is not seen"
)


def csv_format(path: Path) -> str:
    """The format of a CSV by its header: csv, lightning, grok, wandb or mlflow."""
    header, _, _ = read_header(path)
    names = set(header)
    if names >= LONG:
        return "mlflow"
    if {"step", "epoch"} <= names:
        return "grok" if names & _GROK_ONLY else "lightning"
    if "_step" in names and names & {"_timestamp", "_runtime"}:
        return "wandb"
    if len(header) > 1 and all(" - " in name for name in header[1:] if name):
        return "wandb"
    return "csv"


def read_csv(path: Path, options: Options, format: str | None = None) -> list[Run]:
    """Read the runs of a CSV file; more than one only from W&B or MLflow."""
    format = format or csv_format(path)
    if format == "mlflow":
        return read_mlflow(path, options)
    table = read_table(path, options.growing)
    if format == "wandb" and any(" - " in name for name in table.header):
        return _read_panel(path, table, options)
    settings, notes, basis = _beside(path, format)
    logged = Logged(path, run_name(path), _by_step(path, table, options, format))
    logged.settings, logged.notes, logged.basis = settings, notes, basis
    return [make_run(logged, options, format, _GROK_PERCENT if format == "grok" else ())]


def _beside(path: Path, format: str) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Settings, notes and basis, from the file that lies beside."""
    if format in ("lightning", "grok"):
        return read_hparams(path.with_name("hparams.yaml"), grok=format == "grok"), {}, []
    if format == "wandb":
        return {}, {}, [_WANDB_SAMPLED]
    settings = read_sidecar(path.with_suffix(".json"))
    notes = {key: settings.pop(key) for key in list(settings) if key not in SETTINGS}
    return settings, notes, []


def run_name(path: Path) -> str:
    """What a file's run is called: by its folder where every run's file has one name."""
    if path.name != "metrics.csv" or not path.parent.name:
        return path.stem
    return folder_name(path.parent)


def steps_of_rows(path: Path, table: Table, name: str) -> IntArray:
    """The step of every row.

    Raises:
        RecordError: a step that is no whole number, negative, or missing.
    """
    column = table.columns[name]
    what = "step" if name == "step" else f"the step ({name})"
    if column.text is not None:
        line, text = column.text
        raise RecordError(f"{path}:{line}: {what} should be a whole number but is {text!r:.60}.")
    if len(column.rows) < len(table.lines):
        missing = np.setdiff1d(np.arange(len(table.lines)), column.rows)[0]
        raise RecordError(f"{path}:{table.lines[missing]}: {what} is missing.")
    values = column.values
    with np.errstate(invalid="ignore"):
        broken = np.flatnonzero(values != np.floor(values))
        beyond = np.flatnonzero(~((values >= 0) & (values <= LAST_STEP)))
    if broken.size and np.isfinite(values[broken[0]]):
        line, value = table.lines[broken[0]], float(values[broken[0]])
        raise RecordError(f"{path}:{line}: {what} should be a whole number but is '{value!r}'.")
    if beyond.size:
        line, value = table.lines[beyond[0]], float(values[beyond[0]])
        raise RecordError(f"{path}:{line}: {what} must lie in 0..2^53 but is {value!r}.")
    return values.astype(np.int64)


def _by_step(path: Path, table: Table, options: Options, format: str) -> dict[str, Any]:
    at = guess_step(table.header, options.names)
    if at is None or at not in table.columns:
        wanted = "no column 'step'" if at is None else f"no column {at!r} (--map step={at})"
        raise RecordError(
            f"{path}:1: {wanted}; found {brief(table.header)}. Name it: --map step=COLUMN."
        )
    steps = steps_of_rows(path, table, at)
    wanted_columns = set(guess(table.columns, options.names).values())
    columns = {}
    for name, column in table.columns.items():
        if name == at or not name:
            continue
        if column.text is not None:
            line, text = column.text
            if name in wanted_columns:
                raise RecordError(f"{path}:{line}: {name} should be a number but is {text!r:.60}.")
            if format == "csv":
                warnings.warn(
                    f"{path}:{line}: column {name!r} holds text ({text!r:.60}) and is left out.",
                    UserWarning,
                    stacklevel=4,
                )
            continue
        whole = len(column.rows) == len(steps)
        here = (steps, table.lines) if whole else (steps[column.rows], table.lines[column.rows])
        columns[name] = (here[0], column.values, here[1])
    return columns


def _read_panel(path: Path, table: Table, options: Options) -> list[Run]:
    """W&B's "Export as CSV" of a chart: x, then ``run - metric``, ``...__MIN``, ``...__MAX``."""
    axis = options.names.get("step", table.header[0])
    if axis not in table.columns or ("step" not in options.names and "step" not in plain(axis)):
        raise RecordError(
            f"{path}:1: the chart's x axis is {axis!r}, not the step; export it over the step, or "
            f"pass --map step=COLUMN."
        )
    steps = steps_of_rows(path, table, axis)
    runs: dict[str, Logged] = {}
    for name, column in table.columns.items():
        if name == axis or name.endswith(("__MIN", "__MAX")) or " - " not in name:
            continue
        run, metric = name.rsplit(" - ", 1)
        if column.text is not None or plain(metric) in ("step", "_step"):
            continue
        logged = runs.setdefault(run, Logged(path, run, {}, basis=[_WANDB_SAMPLED]))
        logged.columns[metric] = (steps[column.rows], column.values, table.lines[column.rows])
    return [make_run(logged, options, "wandb") for logged in runs.values()]
