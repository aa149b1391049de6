"""Does the spectral signature of the early training loss add anything to the forecast's features?

The same fit with and without it, on replays with everything logged (thinned ones have no spectrum).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.forecast import fit, samples
from benchmarks.forecast.baselines import spectral
from benchmarks.forecast.refits import LATER
from benchmarks.forecast.replays import Ask, replays
from benchmarks.forecast.samples import at, untold
from benchmarks.forecast.table_if import KINDS
from benchmarks.forecast.transfer import compared


def table(split: str) -> list[dict[str, Any]]:
    """One entry per kind and time: AUC with the signature, and the change against without."""
    kept = fit.cached_rows(KINDS)
    fully = np.array([meta["variant"] == 0 for meta in kept.metas])
    known = np.array([meta["split"] in ("fit", split) for meta in kept.metas])
    chosen = (fully & known)[kept.run]
    kept = replace(kept, x=kept.x[chosen], step=kept.step[chosen], run=kept.run[chosen])
    traces = {
        trace.meta["id"]: trace
        for which in ("fit", split)
        for trace in replays([Ask(None)], KINDS, which)[Ask(None)]
    }
    cases = []
    for run, step in zip(kept.run.tolist(), kept.step.tolist(), strict=True):
        trace = traces[kept.metas[run]["id"]]
        cases.append((trace, int(np.searchsorted(trace.step, step, side="right")) - 1))
    extra = spectral(cases).astype(np.float32)
    answers = []
    for more in (extra, np.full_like(extra, np.nan)):
        rows = samples.table(replace(kept, x=np.hstack([kept.x, more])))
        parts = fit.fit_parts(rows[rows.split == "fit"], times=False)
        other = untold(rows[rows.split == split])
        answers.append({name: _asked(parts, other, *how) for name, how in LATER.items()})
    return compared(*answers, "(spectral added)")


def _asked(parts: fit.Parts, rows: samples.Table, what: str, value: float) -> dict[str, Any]:
    now = rows[at(rows, np.full(len(rows.step), value) if what == "step" else value * rows.t2)]
    return {"odds": parts.odds(now), "label": now.generalises, "kind": now.kind,
            "base": now.base, "variant": now.variant}  # fmt: skip
