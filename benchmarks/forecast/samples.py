"""From feature rows to training examples and back to answers at given times.

An example is a feature row and a reach u: does the run generalise by now x 10^u? A run that was not
seen that far gives no such example (it is censored there).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.forecast.dataset import Rows
from grokwatch.forecast.features import NAMES, TOLD

Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

#: Cells hold a dozen runs that differ by seed only: each weighs less than a run of its own kind.
KIND_WEIGHT = {"cells": 0.3, "extended": 0.3}
#: Nearly all runs were given this many steps; the extended ones alone tell what comes later.
USUAL, HORIZON = 20_000, 60_000
_EXTENDED_SHARE = 0.08  # of the runs without generalisation that were run on


@dataclass(frozen=True)
class Table:
    """Feature rows with the labels of their runs beside each; every field of shape (n, ...)."""

    x: npt.NDArray[np.float32]
    step: Floats
    run: Index
    t2: Floats
    t4: Floats  # NaN = not within ``seen``
    seen: Floats  # steps for which the outcome is known
    group: npt.NDArray[np.str_]
    split: npt.NDArray[np.str_]
    kind: npt.NDArray[np.str_]
    operator: npt.NDArray[np.str_]
    variant: Index
    base: Index  # the same for all replays of one run

    def __getitem__(self, chosen: Any) -> Table:
        return replace(self, **{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    @property
    def generalises(self) -> npt.NDArray[np.bool_]:
        """Whether the run generalises within what is known of it."""
        return ~np.isnan(self.t4)

    @property
    def weight(self) -> Floats:
        """Every run weighs the same, whatever the number of its rows, but for its kind."""
        share: Floats = 1.0 / np.bincount(self.run)[self.run]
        for kind, factor in KIND_WEIGHT.items():
            share[self.kind == kind] *= factor
        return share / share.mean()

    @property
    def far(self) -> Floats:
        """The reach of everything known of the run."""
        return reach(self.step, self.seen)


def join(tables: list[Table]) -> Table:
    """Several tables as one."""
    return Table(**{
        f.name: np.concatenate([getattr(t, f.name) for t in tables]) for f in fields(Table)
    })  # fmt: skip


def table(rows: Rows, first_step: int = 20) -> Table:
    """Rows before t4, from ``first_step`` on, with labels."""

    def each(value: Any) -> Any:
        return np.array([value(meta) for meta in rows.metas])[rows.run]

    nan = float("nan")
    names = {name: i for i, name in enumerate(dict.fromkeys(m["id"] for m in rows.metas))}
    full = Table(
        x=rows.x,
        step=rows.step.astype(float),
        run=rows.run,
        t2=each(lambda m: nan if m["t2"] is None else float(m["t2"])),
        t4=each(lambda m: nan if m["t4"] is None else float(m["t4"])),
        # A run that has generalised is done; one that has diverged never will.
        seen=each(lambda m: float(m["horizon"] if m["generalised"] or m["diverged"]
                                  else m["steps_run"])),
        group=each(lambda m: m["group"]),
        split=each(lambda m: m["split"]),
        kind=each(lambda m: m["kind"]),
        operator=each(lambda m: m.get("operator") or ""),
        variant=each(lambda m: m["variant"]),
        base=each(lambda m: names[m["id"]]),
    )  # fmt: skip
    before = np.isnan(full.t4) | (full.step < full.t4)
    return full[before & (full.step >= first_step) & (full.step < full.seen)]


def untold(rows: Table, share: float = 1.0, seed: int = 0) -> Table:
    """The rows as if nobody had told the hyper-parameters of that share of the replays."""
    hidden = np.random.default_rng(seed).random(int(rows.run.max()) + 1) < share
    x = rows.x.copy()
    for name in TOLD:
        x[hidden[rows.run], NAMES.index(name)] = np.nan
    return replace(rows, x=x)


def reach(step: Floats, end: Floats) -> Floats:
    """U with ``step x 10^u = end``, counted from step + 1 as everywhere."""
    return np.log10((end + 1.0) / (step + 1.0))


def examples(
    rows: Table, rng: np.random.Generator, each: int = 2
) -> tuple[Index, Floats, npt.NDArray[np.bool_], Floats]:
    """Row numbers, reaches, answers and weights.

    For each row: the whole known future, ``each`` random reaches, and for runs that generalise
    one near the truth, where the answer turns, and one beyond the usual budget. Of the runs that
    do not, only the extended ones are known beyond it, so there these stand for all.
    """
    n = len(rows.step)
    far = rows.far
    true = reach(rows.step, np.nan_to_num(rows.t4, nan=np.inf))
    reaches = [far] + [far * rng.random(n) for _ in range(each)]
    near = np.where(np.isfinite(true), true * rng.uniform(0.6, 1.4, n), far * rng.random(n))
    reaches.append(np.minimum(near, far))
    usual, horizon = (reach(rows.step, np.full(n, float(end))) for end in (USUAL, HORIZON))
    later = np.maximum(usual, far) + rng.random(n) * np.maximum(horizon - usual, 0.0)
    reaches.append(np.where(np.isfinite(true), later, far * rng.random(n)))
    row = np.tile(np.arange(n), len(reaches))
    u = np.concatenate(reaches)
    answer = true[row] <= u
    stands_for_all = (u > usual[row] + 1e-9) & ~answer & (rows.kind[row] == "extended")
    weight = rows.weight[row] * np.where(
        stands_for_all, 1.0 / (_EXTENDED_SHARE * KIND_WEIGHT["extended"]), 1.0
    )
    return row, u, answer, weight


def at(rows: Table, when: Floats) -> Index:
    """For each run the row of its last verdict at or before ``when`` (per row), if it is recent."""
    ok = np.flatnonzero((rows.step <= when) & (rows.step >= 0.8 * when))
    last = {int(rows.run[i]): int(i) for i in ok}  # rows come in step order
    return np.array(sorted(last.values()), dtype=np.int64)
