"""Read the corpus.

from benchmarks.corpus.load import load
runs = load()                      # or load(folder, kinds=("mlp",))
steps, values = runs[0].columns["val_loss"]
runs[0].meta["t4"], runs[0].meta["split"]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus.encoding import COLUMNS, decode, from_arrays

SHARDS = Path(__file__).resolve().parent / "shards"

Column = tuple[NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True)
class Run:
    """One recorded training run.

    Attributes:
        columns: Name to (steps, values); what was not measured is absent. `train_loss` holds
            every one of the first 400 steps, then the log-spaced rows.
        meta: Hyper-parameters, labels, sizes, `id`, `kind`, `group` and `split`.
    """

    columns: dict[str, Column] = field(repr=False)
    meta: dict[str, Any]


def _columns(record: dict[str, Any]) -> dict[str, Column]:
    meta = record["meta"]
    rows = record["steps"].astype(np.int64)
    columns: dict[str, Column] = {}
    for name, (_, code, size) in COLUMNS.items():
        if name in meta.get("absent", ()):
            continue
        values = decode(record["codes"][name], code, meta[size] if size else 1)
        columns[name] = (rows, values)
    early = record["early"][: meta["steps_run"]].astype(np.float64)
    steps, losses = columns["train_loss"]
    later = steps >= len(early)
    columns["train_loss"] = (
        np.concatenate([np.arange(len(early)), steps[later]]),
        np.concatenate([early, losses[later]]),
    )
    return columns


def load_shard(path: Path) -> list[Run]:
    """Read one shard."""
    with np.load(path, allow_pickle=False) as shard:
        _, records = from_arrays({name: shard[name] for name in shard.files})
    return [Run(_columns(record), record["meta"]) for record in records]


def load(folder: str | Path = SHARDS, kinds: Iterable[str] | None = None) -> list[Run]:
    """Read every shard of a folder, in the order of their names.

    Args:
        folder: Where the `.npz` shards are.
        kinds: Only these of mlp, transformer, deep, cells, extended, ordinary.

    Returns:
        The runs.

    Raises:
        FileNotFoundError: If the folder holds no shards.
    """
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise FileNotFoundError(f"no .npz shards in {folder}; make them with corpus.generate.")
    wanted = None if kinds is None else set(kinds)
    chosen = [p for p in paths if wanted is None or p.name.split("-")[0] in wanted]
    return [run for path in chosen for run in load_shard(path)]
