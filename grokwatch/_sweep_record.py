"""What a sweep keeps of an ended trial: a few numbers, so that 10^4 of them stay loadable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from grokwatch.forecast._own_record import Outcome, OwnRun, Seen, seen_by
from grokwatch.forecast.base import Settings
from grokwatch.forecast.learned import Forecast, worth_it
from grokwatch.state import decode, encode, take

FloatArray = npt.NDArray[np.float64]

#: Verdicts kept of a trial, evenly spread on its grid of log-spaced steps.
KEPT = 12
_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
_TOLD = ("learning_rate", "weight_decay", "train_fraction", "max_kill_rate")
_NUMBERS = ("budget", "told_chance", *_TOLD, "chance", "t2", "t4", "last", "outcome", "lowest",
            "control", "stopped_at", "would_stop_at")  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One ended trial.

    Attributes:
        seen: what a fit needs of it.
        lowest: the lowest log-odds that two verdicts in a row stayed below, as far as a stop
            would have saved anything; inf = there were none.
        control: it was never to be stopped.
        stopped_at: the step at which it was stopped as unpromising, or None.
        would_stop_at: for a control run, the step at which it would have been, or None.
    """

    seen: Seen
    lowest: float
    control: bool
    stopped_at: int | None
    would_stop_at: int | None

    @property
    def generalised(self) -> bool:
        """Whether it did."""
        return self.seen.outcome == "generalised"

    @property
    def finished(self) -> bool:
        """Whether it was left to show its outcome."""
        return self.seen.outcome != "cut short"

    @property
    def killed(self) -> bool:
        """Whether it generalised, but would have been stopped before it had."""
        at, t4 = self.would_stop_at, self.seen.t4
        return self.generalised and at is not None and (t4 is None or at < t4)


def reduced(base: Forecast, run: OwnRun) -> tuple[Seen, float]:
    """What a fit needs of a run, in few rows and single precision, and its ``lowest``."""
    seen = seen_by(base, run)
    odds = seen.log_odds.astype(np.float32).astype(np.float64)
    reach = np.log10((run.budget + 1.0) / (run.steps + 1.0))
    worth = np.where(worth_it(reach), odds, np.inf)
    lowest = float(np.maximum(worth[1:], worth[:-1]).min(initial=np.inf))
    count = len(run.steps)
    kept = np.unique(np.linspace(0, count - 1, min(count, KEPT)).round().astype(np.int64))
    few = {
        "steps": seen.steps[kept],
        "log_odds": odds[kept],
        "quantiles": seen.quantiles[kept].astype(np.float32).astype(np.float64),
    }
    return Seen(**{**vars(seen), **few}), lowest


def pack(trials: Sequence[Trial]) -> dict[str, Any]:
    """Plain, JSON-able form of many trials, column by column."""
    columns: dict[str, list[float]] = {name: [] for name in _NUMBERS}
    for trial in trials:
        seen, settings = trial.seen, trial.seen.settings
        row = {
            "budget": settings.budget,
            "told_chance": settings.chance,
            **{name: getattr(settings, name) for name in _TOLD},
            "chance": seen.chance,
            "t2": seen.t2,
            "t4": seen.t4,
            "last": seen.last,
            "outcome": _OUTCOMES.index(seen.outcome),
            "lowest": trial.lowest,
            "control": trial.control,
            "stopped_at": trial.stopped_at,
            "would_stop_at": trial.would_stop_at,
        }
        for name, value in row.items():
            columns[name].append(math.nan if value is None else float(value))
    rows = [trial.seen for trial in trials]
    return {
        "names": [seen.name for seen in rows],
        **{name: encode(np.array(values, dtype=np.float64)) for name, values in columns.items()},
        "sizes": encode(np.array([len(seen.steps) for seen in rows], dtype=np.float32)),
        "steps": encode(_joined([seen.steps.astype(np.float64) for seen in rows])),
        "log_odds": encode(_joined([seen.log_odds for seen in rows]).astype(np.float32)),
        "quantiles": encode(_joined([seen.quantiles for seen in rows]).astype(np.float32)),
    }


def unpack(plain: Mapping[str, Any]) -> list[Trial]:
    """The trials that :func:`pack` wrote.

    Raises:
        ValueError: a key is missing, or the columns do not fit together.
    """
    names: list[str] = list(take(plain, "names"))
    columns = {name: decode(take(plain, name)) for name in _NUMBERS}
    sizes = decode(take(plain, "sizes")).astype(np.int64)
    steps = decode(take(plain, "steps")).astype(np.int64)
    odds = decode(take(plain, "log_odds")).astype(np.float64)
    quantiles = decode(take(plain, "quantiles")).astype(np.float64)
    total = int(sizes.sum())
    lengths = {len(names), len(sizes), *map(len, columns.values())}
    if len(lengths) > 1 or not len(steps) == len(odds) == len(quantiles) // 3 == total:
        raise ValueError("the saved sweep is broken: its columns do not fit together.")
    ends = np.cumsum(sizes)
    found = []
    for i, name in enumerate(names):
        row = {key: _optional(values[i]) for key, values in columns.items()}
        rows = slice(int(ends[i] - sizes[i]), int(ends[i]))
        settings = Settings(
            int(columns["budget"][i]),
            row["told_chance"],
            row["learning_rate"],
            row["weight_decay"],
            row["train_fraction"],
            float(columns["max_kill_rate"][i]),
        )
        seen = Seen(
            name=name,
            settings=settings,
            chance=row["chance"],
            t2=row["t2"],
            t4=row["t4"],
            last=int(columns["last"][i]),
            outcome=_OUTCOMES[int(columns["outcome"][i])],
            steps=steps[rows],
            log_odds=odds[rows],
            quantiles=quantiles.reshape(-1, 3)[rows],
        )
        stopped, would = (row[key] for key in ("stopped_at", "would_stop_at"))
        found.append(
            Trial(
                seen,
                float(columns["lowest"][i]),
                bool(columns["control"][i]),
                None if stopped is None else int(stopped),
                None if would is None else int(would),
            )
        )
    return found


def _optional(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _joined(parts: Sequence[FloatArray]) -> FloatArray:
    return np.concatenate([np.empty(0), *(part.ravel() for part in parts)])
