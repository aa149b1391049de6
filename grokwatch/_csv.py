"""Writing runs as CSV with a sidecar; the format is described in :mod:`grokwatch.records`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from grokwatch._bounds import BESIDE, beside, document
from grokwatch._jsonl import short
from grokwatch._run import RecordError, Run, column_order


def read_sidecar(sidecar: Path, run: Path) -> dict[str, Any]:
    """What the sidecar of a run says; {} without one."""
    if not beside(sidecar, run):
        return {}
    settings = document(sidecar, BESIDE)
    if not isinstance(settings, dict):
        raise RecordError(f"{sidecar}: must hold one object, but holds {settings!r:.40}.")
    return settings


def write_csv(run: Run, path: str | Path) -> None:
    """Write a run as CSV with its sidecar."""
    path = Path(path)
    names = column_order(run.columns)
    texts = {name: iter(short(run.columns[name][1])) for name in names}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *names])
        for step, row in run.rows():
            writer.writerow([step, *(next(texts[n]) if n in row else "" for n in names)])
    sidecar = json.dumps({**run.notes, **run.settings}, indent=1)
    path.with_suffix(".json").write_text(sidecar + "\n", encoding="utf-8")
