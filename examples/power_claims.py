"""What a run of Power et al. 2022 shows of their claims and of those of Arn 2023, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from power_tasks import Task
from tasks import split

LATE = 2.0  # t4 over t2 from which generalisation counts as late
ARN_DECAY = 0.01  # the weight decay of all his runs
SAME = 1.2  # times that differ by less than this factor are the same: another seed moves them more

Summary = Mapping[str, Any]


def mirror_share(task: Task, fraction: float, seed: int) -> float:
    """Share of the validation set whose mirror image b∘a, with the same answer, is trained on.

    0 for an operation that is not commutative; about the fraction for one that is.

    >>> from power_tasks import task
    >>> mirror_share(task("-", 7), 0.5, 0), round(mirror_share(task("+", 31), 0.5, 0), 1)
    (0.0, 0.5)
    """
    if task.mirror is None:
        return 0.0
    train, val = split(len(task.mirror), fraction, seed)
    return float(np.isin(task.mirror[val], train).mean())


def summary(found: Mapping[str, Any], task: Task, setting: Mapping[str, Any]) -> dict[str, Any]:
    """One run in the numbers that the claims are about; None where there is no such thing.

    Args:
        found: what :func:`power_train.train` returns.
        task: that it was trained on.
        setting: of :class:`power_train.Setting`, as a mapping.
    """
    curves, beside = found["curves"], found["grokwatch"]
    t2, t4 = beside["t2"], beside["t4"]
    step, accuracy = np.asarray(curves["val_step"]), np.asarray(curves["val_accuracy"])
    spikes = [at for at, _ in found["spikes"]]
    return {
        "fraction": setting["fraction"],
        "decay": setting["decay"],
        "steps": len(curves["loss"]),
        "t4 over t2": t4 / max(t2, 1) if t2 is not None and t4 is not None else None,
        "commutative": task.mirror is not None,
        "mirror share": mirror_share(task, setting["fraction"], setting["seed"]),
        "chance": task.chance,
        "val accuracy at t2": None if t2 is None else float(np.interp(t2, step, accuracy)),
        "last val accuracy": float(np.median(accuracy[-len(accuracy) // 10 :])),
        "lowest val accuracy after t4": None if t4 is None else float(accuracy[step >= t4].min()),
        "jumps": int(found["signals"].get("transition_jumps", 0)),
        "jump r2": found["signals"].get("transition_r2"),
        "slingshots": len(spikes),
        "first slingshot": spikes[0] if spikes else None,
        "slingshots before t4": None if t4 is None else sum(at < t4 for at in spikes),
        "largest slingshot, decades": max((rise for _, rise in found["spikes"]), default=None),
        "grokwatch": beside,
    }


def _claim(paper: str, claim: str, here: str, verdict: str) -> dict[str, str]:
    return {"paper": paper, "claim": claim, "here": here, "verdict": verdict}


def _t4(one: Summary) -> float:
    t4 = one["grokwatch"]["t4"]
    return float("inf") if t4 is None else float(t4)


def late_generalisation(runs: Sequence[Summary]) -> dict[str, str]:
    """Power, § 3.1: perfect validation accuracy long after the training set is fitted."""
    ratios = [one["t4 over t2"] for one in runs if one["t4 over t2"] is not None]
    late = sum(ratio >= LATE for ratio in ratios)
    here = f"{len(ratios)} of {len(runs)} runs generalise, {late} of them late (t4 ≥ {LATE:g}·t2)"
    if ratios:
        here += f"; t4/t2 up to {max(ratios):.1f}"
    return _claim("Power 2022, § 3.1", "late generalisation", here, _verdict(late > 0, ratios))


def _by_fraction(sweeps: Mapping[str, Sequence[Summary]]) -> dict[str, list[tuple[float, float]]]:
    """Fraction and t4 (inf: never) of the sweeps that vary the one and in which something groks."""
    found = {
        name: sorted((one["fraction"], _t4(one)) for one in runs) for name, runs in sweeps.items()
    }
    return {
        name: times
        for name, times in found.items()
        if len(times) > 1 and min(t for _, t in times) < float("inf")
    }


def monotone_in_data(sweeps: Mapping[str, Sequence[Summary]]) -> dict[str, str]:
    """Arn, § 4.2: what generalises with some data does so with more.

    >>> run = {"grokwatch": {"t4": 100}, "fraction": 0.5}
    >>> less = {"grokwatch": {"t4": None}, "fraction": 0.4}
    >>> monotone_in_data({"+": [run, less]})["verdict"]
    'agrees'
    """
    sets = _by_fraction(sweeps)
    said, good = [], []
    for name, times in sets.items():
        never = [r for r, t in times if np.isinf(t)]
        least = min(r for r, t in times if not np.isinf(t))
        good.append(not never or max(never) < least)
        said.append(f"{name}: from {least:.0%} on" if good[-1] else f"{name}: not at {never}")
    return _claim(
        "Arn 2023, § 4.2",
        "what generalises does so with more data too",
        "; ".join(said) or "no sweep generalises",
        _verdict(all(good), good),
    )


def sooner_with_more_data(sweeps: Mapping[str, Sequence[Summary]]) -> dict[str, str]:
    """Power, Fig. 1: the less data, the later.

    >>> runs = [{"grokwatch": {"t4": t}, "fraction": r} for r, t in ((0.5, 300), (0.6, 400))]
    >>> sooner_with_more_data({"+": runs})["here"]
    't4 by fraction: +: 50% 300, 60% 400'
    """
    sets = _by_fraction(sweeps)
    said = [
        f"{name}: " + ", ".join(f"{r:.0%} {'never' if np.isinf(t) else f'{t:,.0f}'}" for r, t in at)
        for name, at in sets.items()
    ]
    good = [all(less[1] * SAME >= more[1] for less, more in pairwise(at)) for at in sets.values()]
    return _claim(
        "Power 2022, Fig. 1",
        "the less data, the later",
        "t4 by fraction: " + "; ".join(said) if said else "no sweep generalises",
        _verdict(all(good), good),
    )


def no_grok_before_a_spike(runs: Sequence[Summary]) -> dict[str, str]:
    """Arn, § 4.3: what has not generalised when fitted does not before the first loss spike."""
    late = [one for one in runs if one["decay"] <= ARN_DECAY and (one["t4 over t2"] or 0.0) >= LATE]
    spiked = sum(one["slingshots before t4"] > 0 for one in late)
    here = f"weight decay ≤ {ARN_DECAY:g}: {len(late)} late runs, {spiked} with a slingshot before"
    for one in late:
        beside, first = one["grokwatch"], one["first slingshot"]
        here += f"; {one['fraction']:.0%}: t2 {beside['t2']}, first {first}, t4 {beside['t4']}"
    return _claim(
        "Arn 2023, § 4.3",
        "no grokking before the first loss spike, in his setting",
        here,
        _verdict(spiked == len(late), late),
    )


def decay_groks_without_a_spike(runs: Sequence[Summary]) -> dict[str, str]:
    """The other side of it: with a large weight decay no spike is needed."""
    late = [one for one in runs if one["decay"] > ARN_DECAY and (one["t4 over t2"] or 0) >= LATE]
    without = sum(one["slingshots before t4"] == 0 for one in late)
    here = f"larger weight decay: {len(late)} late runs, {without} without any slingshot before"
    return _claim(
        "reported since", "weight decay groks without spikes", here, _verdict(without > 0, late)
    )


def no_ungrokking(runs: Sequence[Summary]) -> dict[str, str]:
    """Arn, § 4.4: never does a network that has generalised end in a worse minimum."""
    done = [one for one in runs if one["grokwatch"]["t4"] is not None]
    lost = [one for one in done if one["last val accuracy"] < 0.95]
    here = f"{len(done)} runs that generalised, {len(lost)} end below .95"
    if done:
        lowest = min(one["lowest val accuracy after t4"] for one in done)
        after = sum(one["slingshots"] - one["slingshots before t4"] for one in done)
        here += f"; {after} slingshots after t4, lowest accuracy on the way {lowest:.2f}"
    return _claim("Arn 2023, § 4.4", "no un-grokking", here, _verdict(not lost, done))


def two_steps(runs: Sequence[Summary]) -> dict[str, str]:
    """Arn, § 4.5, Fig. 4.7: sometimes accuracy jumps twice."""
    done = [one for one in runs if one["grokwatch"]["t4"] is not None and one["jumps"]]
    twice = [one for one in done if one["jumps"] == 2]
    here = f"two error functions fit better than one in {len(twice)} of {len(done)} runs"
    return _claim("Arn 2023, Fig. 4.7", "two-step jumps occur", here, _verdict(bool(twice), done))


def high_base(runs: Sequence[Summary]) -> dict[str, str]:
    """Arn, § 4.5, Fig. 4.8: symmetric operators stand far above chance once memorised.

    Compared are runs that share fraction and weight decay and have memorised.
    """
    known: dict[tuple[float, float], dict[bool, Summary]] = {}
    for one in runs:
        if one["val accuracy at t2"] is not None:
            same = known.setdefault((one["fraction"], one["decay"]), {})
            same[one["commutative"]] = one
    pairs = [(kinds[True], kinds[False]) for kinds in known.values() if len(kinds) == 2]
    said = [
        f"{one['fraction']:.0%}: commutative {one['val accuracy at t2']:.2f} "
        f"(mirror images {one['mirror share']:.2f}), other {other['val accuracy at t2']:.2f}"
        for one, other in pairs
    ]
    higher = all(
        one["val accuracy at t2"] > max(2 * other["val accuracy at t2"], 0.5 * one["mirror share"])
        for one, other in pairs
    )
    return _claim(
        "Arn 2023, Fig. 4.8",
        "symmetric operators start from a high base",
        "validation accuracy at t2: " + "; ".join(said),
        _verdict(higher, pairs),
    )


def spikes_everywhere(runs: Sequence[Summary]) -> dict[str, str]:
    """Arn, § 4.4: spikes come in runs that never generalise as well, and after those that did."""
    never = [one for one in runs if one["grokwatch"]["t4"] is None]
    with_spikes = sum(one["slingshots"] > 0 for one in never)
    here = f"{with_spikes} of {len(never)} runs that did not generalise have slingshots"
    return _claim(
        "Arn 2023, § 4.4",
        "spikes come without generalisation too",
        here,
        _verdict(with_spikes > 0, never),
    )


def _verdict(agrees: bool, evidence: object) -> str:
    if not evidence:
        return "not testable here"
    return "agrees" if agrees else "disagrees"


def all_claims(sweeps: Mapping[str, Sequence[Summary]]) -> list[dict[str, str]]:
    """Every claim, with what the runs say of it."""
    runs = [one for some in sweeps.values() for one in some]
    return [
        late_generalisation(runs),
        sooner_with_more_data(sweeps),
        monotone_in_data(sweeps),
        no_grok_before_a_spike(runs),
        decay_groks_without_a_spike(runs),
        spikes_everywhere(runs),
        no_ungrokking(runs),
        two_steps(runs),
        high_base(runs),
    ]
