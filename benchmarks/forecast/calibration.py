"""Table 5: does 30 % mean 30 %? Beside what a perfect forecaster would show on as many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.forecast.baselines import Case, cases, clusters, labels
from benchmarks.forecast.measures import (
    bootstrap,
    ece,
    perfect_ece,
    recalibration,
    reliability,
    share_interval,
    shown,
)
from benchmarks.forecast.replays import Trace

FIGURE = Path(__file__).resolve().parents[2] / "docs" / "figures" / "forecast_calibration.png"
#: The cells were sought out because their seeds disagree: a stratum of its own.
STRATA = {
    "random runs": ("mlp", "deep", "transformer"),
    "mlp": ("mlp",),
    "deep": ("deep",),
    "transformer": ("transformer",),
    "cells": ("cells",),
    "all": ("mlp", "deep", "transformer", "cells"),
}
_FIRST = 50


def once(traces: list[Trace], seed: int = 0) -> list[Case]:
    """Each run once, at a random step, uniform in log time; without those done by then."""
    rng = np.random.default_rng(seed)
    at = {
        trace.meta["id"]: float(np.exp(rng.uniform(np.log(_FIRST), np.log(trace.meta["horizon"]))))
        for trace in traces
    }
    return cases(traces, lambda meta: at[meta["id"]])


def any_verdict(traces: list[Trace], seed: int = 0) -> list[Case]:
    """Each run once, at a random verdict of its own before it generalises."""
    rng = np.random.default_rng(seed)
    found = []
    for trace in traces:
        t4 = trace.meta["t4"]
        before = (trace.step >= _FIRST) & (trace.step < (np.inf if t4 is None else t4))
        before &= trace.step < trace.meta["horizon"]
        if before.any():
            found.append((trace, int(rng.choice(np.flatnonzero(before)))))
    return found


def table(forecast: dict[str, list[Trace]]) -> list[dict[str, Any]]:
    """One entry per question, way of logging and stratum, over cases with a probability."""
    entries = []
    for asked, way in (("step", "full"), ("step", "thinned"), ("step", "full, told"),
                       ("verdict", "full"), ("verdict", "thinned")):  # fmt: skip
        for name, kinds in STRATA.items():
            choose = once if asked == "step" else any_verdict
            found = choose([t for t in forecast[way] if t.meta["kind"] in kinds])
            found = [(t, i) for t, i in found if np.isfinite(t.probability[i])]
            label = labels(found)
            if label.sum() < 5 or (~label).sum() < 5:
                continue
            said = np.array([t.probability[i] for t, i in found])
            drawn, perfect = clusters(found), perfect_ece(said)

            def line(w: Any, k: int, p: Any = said, y: Any = label) -> float:
                return recalibration(p, y, w)[k]

            observed = ece(said, label)
            entries.append({
                "at": asked, "way": way, "stratum": name,
                "runs": len(found), "generalise": int(label.sum()),
                "ece": observed,
                "perfect": float(perfect.mean()),
                "perfect_95": float(np.quantile(perfect, 0.95)),
                "as_likely": float((perfect >= observed).mean()),
                "slope": bootstrap(lambda w, f=line: f(w, 0), drawn, 200),
                "intercept": bootstrap(lambda w, f=line: f(w, 1), drawn, 200),
                "bins": reliability(said, label).tolist(),
            })  # fmt: skip
    return entries


def lines(entries: list[dict[str, Any]]) -> list[str]:
    """The table as text."""
    text = [
        "5. Calibration: every run once; 'step': at a random step, uniform in log time, if it is",
        "   still waiting then: what is said to somebody who asks at some step; 'verdict': at a",
        "   random verdict of its own before it generalises. ECE over ten bins of equal mass;",
        "   'perfect' = the mean (95th percentile) of a forecaster that is exactly",
        "   right on as many runs; p = how often that one shows as much; slope 1 and intercept 0",
        "   are right.",
        "",
        f"{'at':>8} {'logging':>12} {'runs of':>12} {'n':>5} {'yes':>4} {'ECE':>6}"
        f"{'perfect':>15} {'p':>6}{'slope':>20}{'intercept':>22}",
    ]
    for e in entries:
        text.append(
            f"{e['at']:>8} {e['way']:>12} {e['stratum']:>12} {e['runs']:5d} {e['generalise']:4d} "
            f"{e['ece']:6.3f} {e['perfect']:6.3f} ({e['perfect_95']:.3f}) {e['as_likely']:6.3f}"
            f"{shown(e['slope']):>20}{shown(e['intercept']):>22}"
        )
    text.append("")
    full = [e for e in entries if (e["at"], e["way"]) == ("step", "full")]
    chosen = [e for e in full if e["stratum"] in ("random runs", "cells")]
    for e in chosen:
        text.append(f"{e['stratum']}, full logging: said, came true, runs")
        text += [f"{said:14.3f} {true:10.3f} {size:6.0f}" for said, true, size in e["bins"]]
    return [*text, ""]


def draw(entries: list[dict[str, Any]], split: str, path: Path = FIGURE) -> None:
    """The reliability diagram."""
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    # Blue and vermilion with different markers: told apart without colour vision, too.
    looks = {"full": ("#0072B2", "o", "everything logged"), "thinned": ("#D55E00", "s", "thinned")}
    for panel, stratum in zip(panels, ("random runs", "cells"), strict=True):
        panel.plot([0, 1], [0, 1], color="0.5", lw=1, ls="--", label="exactly right")
        for n, (way, (colour, marker, title)) in enumerate(looks.items()):
            for e in entries:
                if (e["at"], e["way"], e["stratum"]) != ("step", way, stratum):
                    continue
                said, true, size = np.array(e["bins"]).T
                hits = zip(np.rint(true * size).astype(int), size.astype(int), strict=True)
                low, high = np.array([share_interval(*hit)[1:] for hit in hits]).T
                panel.errorbar(
                    said + 0.006 * (n - 0.5), true,
                    yerr=[np.maximum(true - low, 0), np.maximum(high - true, 0)],
                    color=colour, marker=marker, ms=5, lw=1.2, elinewidth=0.8, capsize=2,
                    label=f"{title}: {e['runs']} runs, ECE {e['ece']:.3f} "
                    f"(perfect: {e['perfect']:.3f})",
                )  # fmt: skip
        where = "at the phase boundary (cells)" if stratum == "cells" else "drawn at random"
        panel.set(xlabel="probability said", title=f"runs {where}", xlim=(-0.02, 1.02))
        panel.set_ylim(-0.02, 1.02)
        panel.legend(loc="upper left", fontsize=8, frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share that generalised within the budget")
    figure.suptitle(f"Calibration on the '{split}' groups (bars: 90 % intervals)", fontsize=11)
    figure.savefig(path, dpi=150)
