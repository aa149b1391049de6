"""Models fitted anew on feature rows with something left out: for transfer, ablation, guarantee.

A job names what is left out; its answer is kept in ``out/refits`` by rows, code and name.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from benchmarks.forecast import boost, fit, kill, samples
from benchmarks.forecast.replays import OUT
from benchmarks.forecast.samples import Table, at, join, untold
from grokwatch.forecast import learned
from grokwatch.forecast.features import NAMES, TOLD

FOLDS = 3
FEW = 3  # operators with fewer generalising runs are left out together
LATER = {"400": ("step", 400.0), "1000": ("step", 1000.0), "5 t2": ("t2", 5.0)}


@dataclass(frozen=True)
class Job:
    """What to fit and what to ask.

    Attributes:
        what: "operator" (left out, then asked about), "transformer" (likewise), "features" (left
            out), "fold" (of ``fit``, or "held" = ``calibrate``), "forecast" (a whole
            forecast fitted without transformers).
        name: which one.
    """

    what: str
    name: str


def load(split: str) -> Table:
    """The rows of ``fit`` and ``calibrate`` and of the split that is scored; no others."""
    rows = samples.table(fit.cached_rows())
    return rows[np.isin(rows.split, ["fit", "calibrate", split])]


def moments(rows: Table) -> dict[str, Table]:
    """The rows at each of the times of :data:`LATER`, untold, everything logged and thinned."""
    rows = untold(rows[rows.variant <= 1])
    return {
        name: rows[at(rows, np.full(len(rows.step), value) if what == "step" else value * rows.t2)]
        for name, (what, value) in LATER.items()
    }


def without(rows: Table, names: tuple[str, ...]) -> Table:
    """The rows as if these features had never been known."""
    x = rows.x.copy()
    x[:, [NAMES.index(name) for name in names]] = np.nan
    return replace(rows, x=x)


def _asked(parts: fit.Parts, rows: Table) -> dict[str, Any]:
    """What a model says of rows at the times: labels and odds, without the features."""
    found = {}
    for name, now in moments(rows).items():
        if len(now.step):
            found[name] = {
                "odds": parts.odds(now), "label": now.generalises, "kind": now.kind,
                "operator": now.operator, "split": now.split, "base": now.base,
                "variant": now.variant,
            }  # fmt: skip
    return found


def _worst(parts: fit.Parts, rows: Table) -> dict[str, Any]:
    """The log-odds at the worst moment of every generalising replay, told and untold; at most 1."""
    late = rows[rows.generalises]
    odds, both = [], []
    for offset, side in enumerate((late, untold(late))):
        both.append(replace(side, run=side.run + offset * (int(late.run.max()) + 1)))
        odds.append(parts.odds(side))
    known = join(both)
    scores = kill.worst(known, np.concatenate(odds))
    runs, first = np.unique(known.run, return_index=True)
    return {
        "worst": np.array([scores[int(run)] for run in runs]),
        "kind": known.kind[first], "group": known.group[first], "base": known.base[first],
        "split": known.split[first],
    }  # fmt: skip


def answer(job: Job, rows: Table, split: str) -> dict[str, Any]:
    """Fit and ask; where only a ranking is wanted, on two of the three replays of each run."""
    fitting = rows[rows.split == "fit"]
    if job.what == "forecast":
        return fit.fit(rows[rows.kind != "transformer"], FOLDS)
    if job.what != "fold":
        fitting = fitting[fitting.variant <= 1]
    if job.what == "operator":
        chosen = np.isin(rows.operator, job.name.split(" and "))
        inside = fitting[~np.isin(fitting.operator, job.name.split(" and "))]
        return _asked(fit.fit_parts(inside, times=False), rows[chosen & (rows.kind != "extended")])
    if job.what == "transformer":
        inside = fitting[fitting.kind != "transformer"]
        return _asked(fit.fit_parts(inside, times=False), rows[rows.kind == "transformer"])
    if job.what == "features":
        dropped = left_out()[job.name]
        parts = fit.fit_parts(without(fitting, dropped), times=False)
        other = rows[(rows.split == split) & (rows.kind != "extended")]
        return _asked(parts, without(other, dropped))
    if job.name == "held":
        return _worst(fit.fit_parts(fitting, times=False), rows[rows.split == "calibrate"])
    parted = list(GroupKFold(FOLDS).split(fitting.step, groups=fitting.group))
    inside_, outside = parted[int(job.name)]
    parts = fit.fit_parts(fitting[inside_], seed=int(job.name), times=False)
    return _worst(parts, fitting[outside])


def left_out() -> dict[str, tuple[str, ...]]:
    """Ablation -> the features it goes without."""

    def named(*parts: str) -> tuple[str, ...]:
        return tuple(n for n in NAMES if any(part in n for part in parts))

    curves = ("val_", "loss_doublings", "margin_doublings", "accuracy_doublings", "log_step")
    return {
        "nothing": (),
        "hyper-parameters told": TOLD,
        "margin": named("margin"),
        "doublings still to go": named("doublings"),
        "norms": named("norm"),
        "slopes and bends": named("slope", "bend"),
        "all but validation": tuple(
            n for n in NAMES if not n.startswith(curves) and n not in ("since_val_loss_peak",)
        ),
    }


def operators(rows: Table) -> list[str]:
    """Operators to leave out: one by one, those with hardly a generalising run together."""
    known = rows[rows.kind != "extended"]
    counts = {
        name: len(set(known.base[(known.operator == name) & known.generalises].tolist()))
        for name in sorted(set(known.operator.tolist()))
    }
    rare = [name for name, count in counts.items() if count < FEW]
    return [n for n in counts if n not in rare] + ([" and ".join(rare)] if rare else [])


_STATE: dict[str, Any] = {}


def _start(split: str) -> None:
    threadpool_limits(1)
    _STATE.update(rows=load(split), split=split)


def _run(job: tuple[Job, Path]) -> None:
    asked, kept = job
    found = answer(asked, _STATE["rows"], _STATE["split"])
    unfinished = kept.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(pickle.dumps(found))
    unfinished.rename(kept)


def refits(
    jobs: list[Job], rows: Table, split: str, processes: int = 2
) -> dict[Job, dict[str, Any]]:
    """The answers to all jobs, from ``out/refits`` where they are there already."""
    used = [boost, samples, fit.fit_parts, fit.fit, kill, learned.inputs, learned.may_stop]
    code = "".join(inspect.getsource(part) for part in used)
    code += f"{NAMES} {learned.PATIENCE} {learned.WORTH} {learned.BY_HEART}"
    data = f"{split} {rows.x.shape} {float(np.nansum(rows.x, dtype=float))}"
    mark = hashlib.sha256((code + data).encode()).hexdigest()[:12]
    folder = OUT / "refits" / mark
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        job: folder / (hashlib.sha256(repr(job).encode()).hexdigest()[:12] + ".pickle")
        for job in jobs
    }
    missing = [(job, kept) for job, kept in files.items() if not kept.exists()]
    if missing:
        print(f"fitting {len(missing)} models with something left out", flush=True)
        os.environ["OMP_NUM_THREADS"] = "1"
        with ProcessPoolExecutor(processes, initializer=_start, initargs=(split,)) as pool:
            list(pool.map(_run, missing))
    return {job: pickle.loads(kept.read_bytes()) for job, kept in files.items()}
