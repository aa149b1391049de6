"""Generate the corpus: `python -m benchmarks.corpus.generate --kind mlp --limit 60`.

One process per core, each single-threaded; a unit that has its shard is skipped, so that the
command may be stopped and repeated at will. `--part 0/2` and `--part 1/2` share the work.
"""

from __future__ import annotations

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

from benchmarks.corpus.encoding import from_arrays, to_arrays, write  # noqa: E402
from benchmarks.corpus.load import SHARDS  # noqa: E402
from benchmarks.corpus.plan import random_unit, tagged  # noqa: E402
from benchmarks.corpus.runs import execute  # noqa: E402

DEFAULT_UNITS = {
    "mlp": 60, "transformer": 45, "cells": 32, "extended": 9, "ordinary": 10, "deep": 26,
}  # fmt: skip

Record = dict[str, Any]
Tick = Callable[[], None]


def records_of(kind: str, unit: int, folder: Path, tick: Tick) -> list[Record]:
    """Run one unit."""
    if kind == "cells":
        from benchmarks.corpus.cells import cell_records

        records = cell_records(folder, unit, tick)
    elif kind == "extended":
        from benchmarks.corpus.extended import extended_records

        records = extended_records(folder, unit, tick)
    elif kind == "ordinary":
        from benchmarks.corpus.ordinary import ordinary_records

        records = ordinary_records(unit, tick)
    else:
        records = []
        for config in random_unit(kind, unit):
            records.append(execute(config))
            tick()
    for place, record in enumerate(records):
        record["meta"] = tagged(record["meta"], kind, unit, place)
    return records


def make(kind: str, unit: int, folder: Path, tick: Tick) -> None:
    """Run one unit and write its shard."""
    started = time.perf_counter()
    records = records_of(kind, unit, folder, tick)
    seconds = round(time.perf_counter() - started, 1)
    if records:
        about = {"kind": kind, "unit": unit, "seconds": seconds}
        write(folder / f"{kind}-{unit:03d}.npz", to_arrays(records, about))


def check(path: Path) -> bool:
    """Run a shard's configurations again and compare every array, bit for bit."""
    with np.load(path, allow_pickle=False) as stored:
        kept = {name: stored[name] for name in stored.files}
    about, _ = from_arrays(kept)
    if about["kind"] == "ordinary":
        records = records_of("ordinary", about["unit"], path.parent, lambda: None)
    else:
        records = [execute(meta) for meta in about["runs"]]
    again = to_arrays(records, {k: v for k, v in about.items() if k != "runs"})
    return all(np.array_equal(kept[name], again[name]) for name in kept)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=SHARDS, help="folder of the shards")
    parser.add_argument("--kind", nargs="+", choices=list(DEFAULT_UNITS), help="default: all")
    parser.add_argument("--limit", type=int, help="units of each kind")
    parser.add_argument("--part", default="0/1", help="I/N: every N-th unit, starting from I")
    parser.add_argument("--check", type=Path, help="reproduce one shard, write nothing")
    options = parser.parse_args(arguments)
    if options.check:
        same = check(options.check)
        print(f"{options.check.name}: {'identical' if same else 'DIFFERENT'}")
        return 0 if same else 1
    index, parts = map(int, options.part.split("/"))
    for kind in options.kind or DEFAULT_UNITS:
        count = options.limit or DEFAULT_UNITS[kind]
        for unit in range(index, count, parts):
            if (options.out / f"{kind}-{unit:03d}.npz").exists():
                continue
            done = 0
            started = time.perf_counter()

            def tick(kind: str = kind, unit: int = unit, count: int = count) -> None:
                nonlocal done
                done += 1
                if sys.stderr.isatty():
                    bar = "#" * round(30 * unit / count)
                    print(f"\r{kind} [{bar:30}] {unit}/{count} run {done}", end="", file=sys.stderr)

            make(kind, unit, options.out, tick)
            took = time.perf_counter() - started
            print(f"{kind} {unit + 1}/{count}: {done} runs in {took:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
