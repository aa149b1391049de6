"""From feature rows to training examples and back to answers at given times.

An example is a feature row and a reach u: does the run generalise by ``step · 10^u``? A run that
was not seen that far gives no such example (it is censored there).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.forecast.dataset import Rows

Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


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
    architecture: npt.NDArray[np.str_]
    variant: Index

    def __getitem__(self, chosen: Any) -> Table:
        return replace(self, **{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    @property
    def generalises(self) -> npt.NDArray[np.bool_]:
        """Whether the run generalises within what is known of it."""
        return ~np.isnan(self.t4)


def table(rows: Rows, first_step: int = 20) -> Table:
    """Rows before t4, from ``first_step`` on, with labels."""

    def each(value: Any) -> Any:
        return np.array([value(meta) for meta in rows.metas])[rows.run]

    nan = float("nan")
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
        architecture=each(lambda m: m["architecture"]),
        variant=each(lambda m: m["variant"]),
    )  # fmt: skip
    before = np.isnan(full.t4) | (full.step < full.t4)
    return full[before & (full.step >= first_step) & (full.step < full.seen)]


def reach(step: Floats, end: Floats) -> Floats:
    """U with ``step · 10^u = end``, counted from step + 1 as everywhere."""
    return np.log10((end + 1.0) / (step + 1.0))


def examples(
    rows: Table, rng: np.random.Generator, each: int = 3
) -> tuple[Index, Floats, npt.NDArray[np.bool_], Floats]:
    """Row numbers, reaches, answers and weights; every run weighs the same.

    For each row: the whole known future, ``each`` random reaches, and for runs that generalise
    one near the truth, where the answer turns.
    """
    n = len(rows.step)
    far = reach(rows.step, rows.seen)
    true = reach(rows.step, np.nan_to_num(rows.t4, nan=np.inf))
    reaches = [far] + [far * rng.random(n) for _ in range(each)]
    near = np.where(np.isfinite(true), true * rng.uniform(0.6, 1.4, n), far * rng.random(n))
    reaches.append(np.minimum(near, far))
    row = np.tile(np.arange(n), len(reaches))
    u = np.concatenate(reaches)
    answer = true[row] <= u
    weight = 1.0 / np.bincount(rows.run)[rows.run]
    return row, u, answer, weight[row] / weight.sum() * n


def at(rows: Table, when: Floats) -> Index:
    """For each run the row of its last verdict at or before ``when`` (per row), if it is recent."""
    ok = np.flatnonzero((rows.step <= when) & (rows.step >= 0.8 * when))
    last = {int(rows.run[i]): int(i) for i in ok}  # rows come in step order
    return np.array(sorted(last.values()), dtype=np.int64)
