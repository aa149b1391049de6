"""Every run of a split replayed once through ``Monitor``; every table is made from that.

Kept in ``out/replays`` by forecast, code, shard and way of logging, because it takes minutes.
"""

from __future__ import annotations

import hashlib
import math
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.corpus.load import SHARDS, Run, load_shard
from benchmarks.forecast.dataset import verdicts
from grokwatch.forecast import base, extrapolation, features, learned, trees
from grokwatch.forecast.base import Evidence, Outlook
from grokwatch.forecast.extrapolation import LogTimeExtrapolation
from grokwatch.forecast.learned import STOPPABLE, Forecast

OUT = Path(__file__).resolve().parent / "out"
_LEVELS = ("val_loss", "val_margin", "weight_norm", "val_loss_slope_4x")


@dataclass(frozen=True)
class Ask:
    """One way of replaying: a forecast's file (None = log-time extrapolation) and what it is shown.

    Only the extrapolation also keeps the signals, for the baselines.
    """

    path: str | None
    variant: int = 0
    told: bool = False


@dataclass(frozen=True)
class Trace:
    """What was said of one run, verdict by verdict; every array of shape (n,).

    Attributes:
        meta: the run's labels and settings.
        step: step of the verdict.
        probability: NaN = no answer.
        eta: low, median and high, shape (n, 3); NaN = no answer.
        may_stop: the forecast would recommend a stop if the probability were low enough.
        stop: ``stop_unpromising`` was recommended.
        signals: name to values, NaN = not known.
    """

    meta: dict[str, Any]
    step: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]
    eta: npt.NDArray[np.float64]
    may_stop: npt.NDArray[np.bool_]
    stop: npt.NDArray[np.bool_]
    signals: dict[str, npt.NDArray[np.float64]]

    def at(self, when: float) -> int | None:
        """Index of the last verdict at or before ``when``, if it is recent."""
        i = int(np.searchsorted(self.step, when, side="right")) - 1
        return i if i >= 0 and self.step[i] >= 0.8 * when else None


class _Watched(Forecast):
    """The forecast as it is, which also writes down when a stop was open to it."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        super().__init__(parameters)
        self.open: dict[int, bool] = {}

    def kill_below(self, max_kill_rate: float) -> float | None:
        return math.inf

    def outlook(self, evidence: Evidence) -> Outlook:
        found = super().outlook(evidence)
        self.open[evidence.step] = found.unpromising
        below = super().kill_below(evidence.settings.max_kill_rate)
        stop = found.unpromising and below is not None and (found.probability or 0.0) < below
        return replace(found, unpromising=stop)


def trace(run: Run, ask: Ask, parameters: dict[str, Any] | None) -> Trace:
    """Replay one run."""
    forecast = LogTimeExtrapolation() if parameters is None else _Watched(parameters)
    said = verdicts(run, forecast, ask.variant, ask.told)
    nan = float("nan")
    kept: dict[str, npt.NDArray[np.float64]] = {}
    if parameters is None:
        names = {name for v in said for name in v.signals if name.startswith("spectral")}
        kept = {
            name: np.array([v.signals.get(name, nan) for v in said])
            for name in sorted(names.union(_LEVELS))
        }
    opened = forecast.open if isinstance(forecast, _Watched) else {}
    return Trace(
        meta=run.meta,
        step=np.array([v.step for v in said]),
        probability=np.array([nan if v.probability is None else v.probability for v in said]),
        eta=np.array([v.eta or (nan, nan, nan) for v in said]).reshape(-1, 3),
        # A step may be judged twice; the forecast is not asked any more once it has generalised.
        may_stop=np.array([opened.get(v.step, False) and v.phase in STOPPABLE for v in said]),
        stop=np.array([v.recommendation == "stop_unpromising" for v in said]),
        signals=kept,
    )


def _replay_shard(job: tuple[Path, Ask, str | None, Path]) -> None:
    path, ask, split, kept = job
    parameters = None if ask.path is None else dict(Forecast.load(ask.path).parameters)
    runs = [run for run in load_shard(path) if split is None or run.meta["split"] == split]
    found = [trace(run, ask, parameters) for run in runs]
    unfinished = kept.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(pickle.dumps(found))
    unfinished.rename(kept)


def replays(
    asks: list[Ask],
    kinds: tuple[str, ...],
    split: str | None,
    every: int = 1,
) -> dict[Ask, list[Trace]]:
    """The traces of every run of these kinds and that split (None = any), by way of replaying.

    ``every`` = 3 takes every third shard of a kind, for a quick look.
    """
    shards = [path for kind in kinds for path in sorted(SHARDS.glob(f"{kind}-*.npz"))[::every]]
    files: dict[Ask, list[Path]] = {}
    jobs = []
    (OUT / "replays").mkdir(parents=True, exist_ok=True)
    for ask in asks:
        used = (base, extrapolation) if ask.path is None else (base, features, learned, trees)
        source = b"".join(Path(str(module.__file__)).read_bytes() for module in used)
        source += b"" if ask.path is None else Path(ask.path).read_bytes()
        for shard in shards:
            mark = hashlib.sha256(source + shard.read_bytes()).hexdigest()[:16]
            name = f"{shard.stem}-{split}-{ask.variant}{'t' if ask.told else ''}-{mark}.pickle"
            kept = OUT / "replays" / name
            files.setdefault(ask, []).append(kept)
            if not kept.exists():
                jobs.append((shard, ask, split, kept))
    if jobs:
        print(f"replaying {len(jobs)} shards ({', '.join(kinds)})", flush=True)
        os.environ["OMP_NUM_THREADS"] = "1"
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(_replay_shard, jobs))
    return {
        ask: [found for path in paths for found in pickle.loads(path.read_bytes())]
        for ask, paths in files.items()
    }
