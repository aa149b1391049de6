"""CSV by its header: grokwatch's own, Lightning's CSVLogger, openai/grok's, W&B's, or any other."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from grokwatch._csv import read_sidecar
from grokwatch._readers.hparams import read_hparams
from grokwatch._readers.mlflow import is_long, read_mlflow
from grokwatch._readers.names import guess, guess_step
from grokwatch._readers.steps import steps_of_rows
from grokwatch._readers.table import Table, read_header, read_table
from grokwatch._readers.tidy import Logged, Options, brief, folder_name, make_run
from grokwatch._readers.wandb import (
    SAMPLED,
    is_chart,
    is_extreme,
    is_wandb,
    read_chart,
    refuse_several,
)
from grokwatch._run import SETTINGS, RecordError, Run

_GROK_PERCENT = ("train_accuracy", "val_accuracy", "full_train_acc")
_GROK_ONLY = {"train_perplexity", "val_perplexity", "full_train_acc", "fwd_time_in_epoch"}


def csv_format(path: Path) -> str:
    """The format of a CSV by its header: csv, lightning, grok, wandb or mlflow."""
    header, _, _ = read_header(path)
    names = set(header)
    if is_long(header):
        return "mlflow"
    if {"step", "epoch"} <= names:
        return "grok" if names & _GROK_ONLY else "lightning"
    return "wandb" if is_wandb(header) else "csv"


def read_csv(path: Path, options: Options, format: str | None = None) -> list[Run]:
    """Read the runs of a CSV file; more than one only from W&B or MLflow."""
    format = format or csv_format(path)
    if format == "mlflow":
        return read_mlflow(path, options)
    table = read_table(path, options.growing)
    if format == "wandb":
        refuse_several(path, table.header)
        if is_chart(table.header):
            return read_chart(path, table, options)
    settings, notes, basis = beside_csv(path, format)
    logged = Logged(path, run_name(path), _by_step(path, table, options, format))
    logged.settings, logged.notes, logged.basis = settings, notes, basis
    return [make_run(logged, options, format, _GROK_PERCENT if format == "grok" else ())]


def beside_csv(path: Path, format: str) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Settings, notes and basis, from the file that lies beside."""
    if format in ("lightning", "grok"):
        hparams = path.with_name("hparams.yaml")
        return read_hparams(hparams, path, grok=format == "grok"), {}, []
    if format == "wandb":
        return {}, {}, [SAMPLED]
    settings = read_sidecar(path.with_suffix(".json"), path)
    notes = {key: settings.pop(key) for key in list(settings) if key not in SETTINGS}
    return settings, notes, []


def run_name(path: Path) -> str:
    """What a file's run is called: by its folder where every run's file has one name."""
    if path.name != "metrics.csv" or not path.parent.name:
        return path.stem
    return folder_name(path.parent)


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
        if name == at or not name or (format == "wandb" and is_extreme(name, table.columns)):
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
