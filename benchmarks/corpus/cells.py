"""Phase-boundary cells: the same hyper-parameters, many seeds, and only some generalise.

From a run near the boundary, the training fraction is moved until four pilot seeds disagree;
then that cell is filled up. Pilots that agreed are kept as cells too: discarding them would make
the boundary look sharper than it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.corpus.bases import boundary_bases, config_of, finished
from benchmarks.corpus.plan import generator
from benchmarks.corpus.runs import Config, execute

PILOTS, SEEDS, ATTEMPTS = 4, 12, 4
BASES_PER_UNIT = 3
_FIRST_MOVE, _LEAST_MOVE = 0.04, 0.01
_R_RANGE = (0.25, 0.85)


def cell_records(folder: Path, unit: int, tick: Callable[[], None]) -> list[dict[str, Any]]:
    """Look for one mixed cell near one base run of the random MLP shards.

    Args:
        folder: Where the MLP shards are.
        unit: Number of this unit; it looks at the bases found in its own MLP shard.
        tick: Called after each run.
    """
    here = [r for r in finished(folder) if r.meta["id"].startswith(f"mlp-{unit:03d}-")]
    bases = boundary_bases(here)
    records: list[dict[str, Any]] = []
    rng = generator("cells", unit)
    for number, base in enumerate(bases[:BASES_PER_UNIT]):
        config = config_of(base.meta) | {"to_horizon": False, "base": base.meta["id"]}
        seeds = [int(s) for s in rng.integers(2**31, size=SEEDS)]
        records += _one_cell(config, f"{unit:03d}-{number}", seeds, tick)
    return records


def _one_cell(
    config: Config, name: str, seeds: list[int], tick: Callable[[], None]
) -> list[dict[str, Any]]:
    move, direction = _FIRST_MOVE, 0
    records = []
    for attempt in range(ATTEMPTS):
        cell = {**config, "cell": f"{name}-{attempt}"}

        def run(
            chosen: list[int], cell: Config = cell, records: list[dict[str, Any]] = records
        ) -> int:
            made = []
            for seed in chosen:
                made.append(execute({**cell, "seed": seed}))
                tick()
            records += made
            return sum(r["meta"]["generalised"] for r in made)

        reached = run(seeds[:PILOTS])
        if 0 < reached < PILOTS:
            run(seeds[PILOTS:])
            break
        wanted = -1 if reached else 1
        if direction and wanted != direction:
            move = max(move / 2, _LEAST_MOVE)
        direction = wanted
        r = round(config["r"] + direction * move, 3)
        if not _R_RANGE[0] <= r <= _R_RANGE[1]:
            break
        config = {**config, "r": r}
    return records
