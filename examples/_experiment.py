"""What the experiments share: arguments, progress, grokwatch's opinion, figures, results."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: no window is wanted

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

import grokwatch

console = Console(stderr=True)


class Experiment:
    """One run of a script: its arguments, and the folder of its figures and results.

    Args:
        name: of the script; the default folder is named after it.
        description: for ``--help``.
        presets: what ``--preset`` chooses from; anything with ``_asdict`` (a NamedTuple).
        argv: instead of the command line's.
    """

    def __init__(
        self,
        name: str,
        description: str,
        presets: Mapping[str, Any],
        argv: list[str] | None = None,
    ) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--preset", choices=presets, default="small")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--out", type=Path, help="folder (default: under runs/)")
        args = parser.parse_args(argv)
        self.preset: Any = presets[args.preset]
        self.seed: int = args.seed
        self.out: Path = args.out or Path("runs") / f"{name}-{args.preset}-seed{args.seed}"
        self.out.mkdir(parents=True, exist_ok=True)
        settings = {"script": name, "preset": args.preset, "seed": args.seed}
        self.results: dict[str, Any] = {"settings": settings | self.preset._asdict()}
        self._began = time.perf_counter(), time.process_time()

    @contextmanager
    def progress(self, what: str, total: float) -> Iterator[Any]:
        """A bar on a terminal; call what it yields to advance it."""
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda amount=1: bar.advance(task, amount)

    def save(self, figure: Figure, name: str) -> None:
        """Write a figure as PNG."""
        figure.savefig(self.out / f"{name}.png", dpi=80)

    def finish(self) -> int:
        """Write results.json and say where; 0, the exit status."""
        self.results["seconds"] = {
            "all": round(time.perf_counter() - self._began[0], 1),
            "processor": round(time.process_time() - self._began[1], 1),
            "load average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        }
        (self.out / "results.json").write_text(json.dumps(plain(self.results), indent=1) + "\n")
        print(f"{self.results['seconds']['all']:.0f} s; see {self.out}")
        return 0


class Opinion:
    """What a monitor said of one run while it went on, and whether it was right.

    Args:
        budget: optimiser steps of the run.
        **settings: of :class:`grokwatch.Monitor`.

    >>> opinion = Opinion(budget=1000, chance=0.1)
    >>> for step in range(0, 1000, 10):
    ...     opinion.see(step, train_accuracy=min(1, step / 100), val_accuracy=float(step >= 500))
    >>> beside = opinion.beside()
    >>> beside["t2"], beside["t4"], beside["generalised"], beside["said at the end"]
    (100, 500, True, 'generalised')
    """

    def __init__(self, budget: int, **settings: Any) -> None:
        self.monitor = grokwatch.Monitor(budget=budget, **settings)
        self._said: list[tuple[int, float]] = []  # step, probability; before t4 is declared
        self._stops: dict[str, int] = {}  # recommendation -> the first step of it

    def see(self, step: int, **measurements: float) -> None:
        """Pass measurements on; what is not finite counts as measured and is passed on too."""
        before = self.monitor.verdict
        verdict = self.monitor.update(step, **measurements)
        if verdict is before:
            return
        if verdict.probability is not None and "t4" not in verdict.signals:
            self._said.append((verdict.step, verdict.probability))
        if verdict.recommendation != "continue":
            self._stops.setdefault(verdict.recommendation, verdict.step)

    def beside(self) -> dict[str, Any]:
        """The outcome (by the monitor's own milestones) and what was said of it, beside it.

        "right since" is the first step from which every probability before t4 was declared lay
        on the side of the outcome; None without a probability, or if the last one was wrong.
        """
        verdict = self.monitor.verdict
        marks = {name: verdict.signals.get(name) for name in ("t1", "t2", "t3", "t4")}
        generalised = marks["t4"] is not None
        right_since = None
        t4 = marks["t4"]
        said = [one for one in self._said if t4 is None or one[0] < t4]  # it is declared later
        for step, probability in reversed(said):
            if (probability > 0.5) != generalised:
                break
            right_since = step
        stopped = self._stops.get("stop_unpromising")
        return {
            **{name: None if at is None else int(at) for name, at in marks.items()},
            "generalised": generalised,
            "said at the end": verdict.phase,
            "first probability": said[0] if said else None,
            "last probability": said[-1] if said else None,
            "right since": right_since,
            "steps ahead of t4": (
                int(t4) - right_since if t4 is not None and right_since is not None else None
            ),
            "recommended": self._stops,
            "killed a run that generalised": generalised and stopped is not None,
            "spikes": int(verdict.signals.get("spikes", 0)),
        }


def in_words(name: str, beside: Mapping[str, Any]) -> str:
    """One line of an :meth:`Opinion.beside`.

    >>> in_words("run", {"t2": 1, "t4": None, "generalised": False, "first probability": None,
    ...     "right since": None, "said at the end": "memorisation", "recommended": {}, "spikes": 0})
    'run: t2 1, t4 never; grokwatch: memorisation; no probability given'
    """
    at = [f"{t} {'never' if beside[t] is None else format(beside[t], ',')}" for t in ("t2", "t4")]
    words = f"{name}: {', '.join(at)}; grokwatch: {beside['said at the end']}; "
    if beside["first probability"] is None:
        words += "no probability given"
    elif beside["right since"] is None:
        words += f"wrong: its last probability was {beside['last probability'][1]:.2f}"
    else:
        words += f"right from step {beside['right since']:,} on"
        if beside["generalised"]:
            words += f" ({beside['steps ahead of t4']:,} steps ahead of t4)"
    for recommendation, step in beside["recommended"].items():
        words += f"; {recommendation} at {step:,}"
    return words


def straight_line(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Least-squares line with the 95 % interval of its slope (normal residuals, Student's t).

    >>> line = straight_line(np.arange(5.0), np.array([1.0, 3.1, 4.9, 7.0, 9.0]))
    >>> round(line["slope"], 2), round(line["intercept"], 2), line["low"] < 2 < line["high"]
    (1.99, 1.02, True)
    """
    from scipy.stats import linregress, t

    fit = linregress(x, y)
    half = float(t.ppf(0.975, len(x) - 2)) * float(fit.stderr)
    slope = float(fit.slope)
    return {
        "slope": slope,
        "low": slope - half,
        "high": slope + half,
        "intercept": float(fit.intercept),
        "n": len(x),
    }


def log_steps(last: int, per_decade: int = 50, first: int = 1) -> np.ndarray:
    """Whole steps, evenly spaced in their logarithm, each once, the last one included.

    >>> log_steps(100, per_decade=3).tolist()
    [1, 2, 3, 6, 10, 18, 32, 56, 100]
    """
    n = max(2, math.ceil(per_decade * math.log10(last / first)) + 3)
    return np.unique(np.geomspace(first, last, n).round().astype(np.int64))


def plain(value: Any) -> Any:
    """The same as plain JSON-able Python; numbers that are not finite become None.

    >>> plain({"a": np.float64(1.5), "b": [np.nan], "c": np.arange(2)})
    {'a': 1.5, 'b': [None], 'c': [0, 1]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
