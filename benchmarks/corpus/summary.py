"""Print what the corpus holds: `python -m benchmarks.corpus.summary`."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.encoding import from_arrays
from benchmarks.corpus.load import SHARDS

_FLAGS = ("generalised", "late", "censored", "diverged", "ungrokked")
_LEAST_SEEDS, _MIXED = 12, (0.15, 0.85)


def headers(folder: Path) -> list[dict[str, Any]]:
    """The description of each shard, without its measurements."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as shard:
            about, _ = from_arrays({name: shard[name] for name in shard.files})
        found.append(about | {"bytes": path.stat().st_size})
    return found


def cell_shares(runs: list[dict[str, Any]]) -> dict[str, tuple[int, float]]:
    """Cell to its number of seeds and the share of them that generalised."""
    cells: dict[str, list[bool]] = defaultdict(list)
    for run in runs:
        if "cell" in run:
            cells[run["cell"]].append(run["generalised"])
    return {name: (len(seeds), float(np.mean(seeds))) for name, seeds in cells.items()}


def mixed_cells(runs: list[dict[str, Any]]) -> list[str]:
    """Cells of at least 12 seeds of which between 15 % and 85 % generalised."""
    low, high = _MIXED
    shares = cell_shares(runs).items()
    return [name for name, (n, share) in shares if n >= _LEAST_SEEDS and low <= share <= high]


def _times(runs: list[dict[str, Any]]) -> str:
    late = [run for run in runs if run["late"]]
    if not late:
        return ""
    t2, t4 = (np.array([run[key] for run in late], dtype=float) for key in ("t2", "t4"))
    parts = []
    for name, values in (("t2", np.maximum(t2, 1)), ("t4", t4), ("t4/t2", t4 / np.maximum(t2, 1))):
        low, middle, high = np.percentile(values, [10, 50, 90])
        parts.append(f"{name} {low:.3g} / {middle:.3g} / {high:.3g}")
    return "  late, 10th / 50th / 90th percentile: " + ", ".join(parts)


def main(folder: Path = SHARDS) -> None:
    """Print counts by kind and outcome."""
    shards = headers(folder)
    runs = [run for shard in shards for run in shard["runs"]]
    print(f"{len(shards)} shards, {len(runs)} runs, {sum(s['bytes'] for s in shards) / 1e6:.1f} MB")
    for kind in dict.fromkeys(shard["kind"] for shard in shards):
        here = [run for run in runs if run["kind"] == kind]
        seconds = sum(shard["seconds"] for shard in shards if shard["kind"] == kind)
        counts = {flag: sum(bool(run[flag]) for run in here) for flag in _FLAGS}
        steps = sum(run["steps_run"] for run in here)
        print(f"{kind}: {len(here)} runs, {steps / 1e6:.1f} M steps, {seconds / 60:.0f} min")
        print(f"  {counts}")
        print(f"  {dict(Counter(run['split'] for run in here))}")
        for key in ("operator", "optimiser", "activation", "loss", "p", "r", "scenario"):
            values = Counter(run[key] for run in here if key in run)
            if 1 < len(values):
                print(f"  {key}: {dict(sorted(values.items(), key=lambda item: item[0]))}")
        if times := _times(here):
            print(times)
        if kind == "cells":
            filled = [n for n, _ in cell_shares(here).values() if n >= _LEAST_SEEDS]
            print(f"  {len(filled)} cells of 12 or more seeds, {len(mixed_cells(here))} mixed")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SHARDS)
