"""Table 6: thresholds set on half of the groups, kills counted on the other half, many times."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binom

from benchmarks.forecast.kill import CONFIDENCE, kill_thresholds, worst
from benchmarks.forecast.measures import Floats
from benchmarks.forecast.refits import FOLDS, Job
from benchmarks.forecast.samples import Table
from grokwatch.forecast.features import NAMES

JOBS = [*(Job("fold", str(n)) for n in range(FOLDS)), Job("fold", "held")]
SPLITS = 200
_RATES = (0.01, 0.02, 0.05, 0.1)


def replayed(answers: dict[Job, dict[str, Any]], calibration: list[float]) -> dict[str, Any]:
    """Worst probability, kind, group and run of every generalising replay, out of fold."""
    parts = [answers[job] for job in JOBS]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    odds = found["worst"]
    probability = 1.0 / (1.0 + np.exp(-(calibration[0] * odds + calibration[1])))
    found["worst"] = np.where(odds >= 1.0, 1.0, probability)  # 1 = it never could be stopped
    return found


def stand_in(scores: Floats, kind: Any, group: Any, base: Any) -> tuple[Table, Floats]:
    """Two rows a replay whose worst moment is that score: what ``kill_thresholds`` looks at.

    Raises:
        AssertionError: ``kill.worst`` reads other scores from them.
    """
    n = len(scores)
    twice = np.repeat(np.arange(n), 2)
    x = np.zeros((2 * n, len(NAMES)), dtype=np.float32)
    x[:, NAMES.index("since_t2")] = 9.0
    ones = np.ones(2 * n)
    rows = Table(
        x=x, step=ones, run=twice, t2=ones, t4=1e4 * ones, seen=2e4 * ones,
        group=np.asarray(group)[twice], split=np.full(2 * n, "fit"),
        kind=np.asarray(kind)[twice], operator=np.full(2 * n, ""),
        variant=np.zeros(2 * n, dtype=np.int64), base=np.asarray(base)[twice],
    )  # fmt: skip
    found = worst(rows, scores[twice])
    assert np.allclose([found[k] for k in range(n)], scores)
    return rows, scores[twice]


def simulate(known: dict[str, Any], splits: int = SPLITS) -> list[dict[str, Any]]:
    """One entry per rate: how often runs drawn at random are killed more often than promised."""
    rng = np.random.default_rng(0)
    _, number = np.unique(known["group"], return_inverse=True)
    random = known["kind"] != "cells"
    _, base = np.unique([f"{s}{b}" for s, b in zip(known["split"], known["base"], strict=True)],
                        return_inverse=True)  # fmt: skip
    realised: dict[float, list[tuple[float, int]]] = {rate: [] for rate in _RATES}
    none = dict.fromkeys(_RATES, 0)
    for _ in range(splits):
        half = (rng.random(number.max() + 1) < 0.5)[number]
        rows, scores = stand_in(
            known["worst"][half], known["kind"][half], known["group"][half], base[half]
        )
        found = kill_thresholds(rows, scores)["thresholds"]
        other = ~half & random
        independent = len(np.unique(base[other]))
        for rate in _RATES:
            threshold = found.get(str(rate))
            if threshold is None:  # not certified: no stop at all
                none[rate] += 1
                threshold = 0.0
            share = float((known["worst"][other] < threshold).mean())
            realised[rate].append((share, independent))
    entries = []
    for rate, pairs in realised.items():
        shares = np.array([share for share, _ in pairs])
        runs = int(np.median([n for _, n in pairs]))
        # A true rate of exactly `rate` shows more than this in 5 % of draws of so many runs.
        noise = float(binom.ppf(0.95, runs, rate)) / runs
        entries.append({
            "rate": rate, "splits": splits, "runs": runs, "uncertified": none[rate],
            "exceeds": float((shares > rate).mean()),
            "noise": float(binom.sf(np.floor(rate * runs), runs, rate)),
            "beyond": float((shares > noise).mean()), "noise_95": noise,
            "quantiles": [float(q) for q in np.quantile(shares, [0.05, 0.25, 0.5, 0.75, 0.95])],
        })  # fmt: skip
    return entries


def lines(entries: list[dict[str, Any]]) -> list[str]:
    """The table as text."""
    delta = 1.0 - CONFIDENCE
    text = [
        f"6. Guarantee: thresholds set on random halves of the groups of fit and calibrate "
        f"({FOLDS} folds, out of fold),",
        f"   kills counted on the other half's runs drawn at random; {entries[0]['splits']} times. "
        f"'above' = above the promise: may be",
        f"   delta = {delta:.0%} plus 'noise', how often a true rate of exactly the promised one "
        "shows more on as many runs.",
        f"   'beyond' = above even the 95th percentile of that noise: may be {delta:.0%} + 5 %.",
        "",
        f"{'promised':>10}{'runs':>6}{'no threshold':>14}{'above':>8}{'noise':>8}{'beyond':>8}"
        f"{'realised: 5 / 25 / 50 / 75 / 95 %':>42}",
    ]
    for e in entries:
        text.append(
            f"{e['rate']:>10.0%}{e['runs']:6d}{e['uncertified'] / e['splits']:>14.0%}"
            f"{e['exceeds']:>8.0%}{e['noise']:>8.0%}{e['beyond']:>8.1%}"
            + " / ".join(f"{q:.1%}" for q in e["quantiles"]).rjust(42)
        )
    return [*text, ""]
