"""Which files of a folder are runs."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from grokwatch._bounds import inside
from grokwatch._readers.csv_files import csv_format
from grokwatch._readers.events import PATTERN
from grokwatch._readers.json_lines import jsonl_format
from grokwatch._readers.names import guess_step
from grokwatch._readers.table import read_header
from grokwatch._readers.trainer_state import FILE as TRAINER_STATE
from grokwatch._run import RecordError

RECORD = "grokwatch.jsonl"
FORMATS = (
    "jsonl",
    "csv",
    "rows",
    "lightning",
    "grok",
    "trainer_state",
    "tensorboard",
    "wandb",
    "mlflow",
)
_MOST_FOLDERS = 20_000
_CANDIDATE = re.compile(r"tfevents|\.(csv|jsonl|json)$", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """A file (or a folder of event files) that holds runs, and its format."""

    path: Path
    format: str


def file_format(path: Path) -> str:
    """The format of one file.

    Raises:
        RecordError: a file that none of the readers reads.
    """
    suffix = path.suffix.lower()
    if "tfevents" in path.name:
        return "tensorboard"
    if suffix in (".csv", ".tsv"):
        return csv_format(path)
    if suffix in (".jsonl", ".ndjson"):
        return jsonl_format(path)
    if suffix == ".json":
        return "trainer_state"
    raise RecordError(
        f"{path}: cannot read {suffix or 'a file without suffix'}; known: .jsonl, .csv, "
        f"{TRAINER_STATE}, TensorBoard event files, and folders of these."
    )


def find_runs(folder: Path) -> list[Found]:
    """Every run below a folder, one format each, in the order of their paths.

    Of several files about one run only the fullest counts: a grokwatch record, then
    ``trainer_state.json`` (of the highest checkpoint), ``metrics.csv``, event files, other files.
    Of openai/grok's ``version_*`` folders the highest counts.
    """
    found: list[Found] = []
    seen = 0
    for name, folders, files in os.walk(folder):
        seen += 1
        if seen > _MOST_FOLDERS:
            raise RecordError(f"{folder}: more than {_MOST_FOLDERS:,} folders; name a run's own.")
        folders.sort()
        here = Path(name)
        checkpoints = sorted(
            (f for f in folders if re.fullmatch(r"checkpoint-\d+", f)),
            key=lambda f: int(f.rsplit("-", 1)[1]),
        )
        saved = [here / f / TRAINER_STATE for f in reversed(checkpoints)]
        saved = inside(saved, folder)
        files = [f for f in files if not _CANDIDATE.search(f) or inside([here / f], folder)]
        own = _best(here, files)
        if own is not None and own.format in ("jsonl", "trainer_state"):
            found.append(own)
            folders.clear()  # what lies below belongs to it
        elif saved:
            found.append(Found(saved[0], "trainer_state"))
            folders.clear()
        elif own is not None:
            found.append(own)
        elif files:
            found += _others(here, sorted(files))
    return _highest_versions(found)


def _best(here: Path, files: list[str]) -> Found | None:
    names = set(files)
    if RECORD in names:
        return Found(here / RECORD, "jsonl")
    if TRAINER_STATE in names:
        return Found(here / TRAINER_STATE, "trainer_state")
    if "metrics.csv" in names:
        return Found(here / "metrics.csv", csv_format(here / "metrics.csv"))
    if any(fnmatch(name, PATTERN) for name in names):
        return Found(here, "tensorboard")
    return None


def _others(here: Path, files: list[str]) -> list[Found]:
    """Files of any name that look like runs; a table without steps is somebody's data."""
    found = []
    for path in (here / file for file in files):
        suffix = path.suffix.lower()
        if suffix in (".csv", ".jsonl"):
            with contextlib.suppress(RecordError):
                format = file_format(path)
                if format != "csv" or guess_step(read_header(path)[0], {}) is not None:
                    found.append(Found(path, format))
    return found


def _highest_versions(found: list[Found]) -> list[Found]:
    """Of openai/grok's attempts at one run the last."""
    last: dict[Path, int] = {}
    for item in found:
        version = _version(item)
        if version is not None:
            parent = item.path.parent.parent
            last[parent] = max(version, last.get(parent, -1))
    return [i for i in found if _version(i) in (None, last.get(i.path.parent.parent))]


def _version(item: Found) -> int | None:
    match = re.fullmatch(r"version_(\d+)", item.path.parent.name)
    return int(match[1]) if match and item.format == "grok" else None
