"""The diagram while the sweep goes on, in TensorBoard; and what came of one with stops."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from phase_plots import Runs, heat, median_of, share_generalised
from phase_watch import DECISION, unpromising
from torch.utils.tensorboard import SummaryWriter

_SECONDS = 5.0  # between two pictures: drawing must not slow the sweep


class Board:
    """Heat maps of the runs that have ended, as TensorBoard images.

    Args:
        folder: of the event file.
        total: runs of the sweep.
    """

    def __init__(self, folder: Path, total: int) -> None:
        self._writer = SummaryWriter(str(folder))
        self._total, self._shown, self._drawn = total, 0, 0.0

    def show(self, runs: Runs) -> None:
        """Draw what has ended, but not too often."""
        due = time.monotonic() - self._drawn > _SECONDS or len(runs) == self._total
        if len(runs) == self._shown or not due:
            return
        figure, axes = plt.subplots(1, 2, figsize=(13, 4), layout="constrained")
        heat(axes[0], runs, median_of("last_val_accuracy"), "validation accuracy", vmin=0, vmax=1)
        heat(axes[1], runs, share_generalised, "share that generalised", vmin=0, vmax=1)
        figure.suptitle(f"{len(runs)} of {self._total} runs have ended")
        self._writer.add_figure("phase diagram", figure, len(runs))
        self._writer.flush()
        plt.close(figure)
        self._shown, self._drawn = len(runs), time.monotonic()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def _predicted(cell: Runs) -> float | None:
    said = [run["grokwatch"]["last probability"] for run in cell]  # the last before t4
    known = [one[1] for one in said if one is not None]
    return float(np.median(known)) if known else None


def _stopped_at(cell: Runs) -> float | None:
    steps = [run["steps"] for run in cell if unpromising(run)]
    return float(np.median(steps)) if steps else None


def watched(runs: Runs, budget: int, report: str, beside: Mapping[str, Any] | None) -> Figure:
    """A sweep with stops: outcome, t4, prediction, stops, compute saved, the control arm.

    Args:
        runs: sidecars.
        budget: steps a run may take.
        report: the sweep's own, in words.
        beside: of `phase_watch.agreement`, if the full sweep is on disk.
    """
    figure, axes = plt.subplots(2, 3, figsize=(17, 8), layout="constrained")

    def saved(cell: Runs) -> float:
        return float(np.mean([1 - r["steps"] / budget if unpromising(r) else 0.0 for r in cell]))

    share = {"vmin": 0, "vmax": 1}
    heat(axes[0, 0], runs, share_generalised, "outcome: share that generalised", **share)
    heat(axes[0, 1], runs, median_of("t4"), "t4", "{:.0f}".format, vmin=0, cmap="viridis_r")
    heat(axes[0, 2], runs, _predicted, "predicted: last probability before t4", **share)
    heat(
        axes[1, 0], runs, _stopped_at, "stopped as unpromising at step", "{:.0f}".format,
        vmin=0, vmax=budget,
    )  # fmt: skip
    heat(axes[1, 1], runs, saved, "share of the budget saved", **share)
    _control_arm(axes[1, 2], runs, budget)
    lines = [report]
    if beside:
        lines.append(
            f"beside the full sweep: {beside['cells with the same outcome']:.0%} of cells and "
            f"{beside['runs with the same outcome']:.0%} of runs with the same outcome, "
            f"{len(beside['generalisers stopped'])} of "
            f"{beside['generalisers in the full sweep']} generalisers stopped"
        )
    figure.suptitle("\n".join(lines), fontsize=10)
    return figure


def _control_arm(ax: Any, runs: Runs, budget: int) -> None:
    """Runs that were never stopped: when they would have been, and when they generalised."""
    arm: Sequence[Mapping[str, Any]] = [run for run in runs if run[DECISION]["control"]]
    for i, run in enumerate(arm):
        ax.plot([0, run["steps"]], [i, i], color="0.85", lw=4, zorder=0)
        if run["t4"] is not None:
            ax.plot(run["t4"], i, "C2o", label="generalised")
        would = run[DECISION]["would_stop"]
        if would is not None and would["recommendation"] == "stop_unpromising":
            ax.plot(would["step"], i, "C3x", label="would have been stopped")
    names = [f"lr {r['learning_rate']:g}, wd {r['weight_decay']:g}, seed {r['seed']}" for r in arm]
    ax.set_yticks(range(len(arm)), names, fontsize=7)
    ax.set(
        title=f"control arm: {len(arm)} of {len(runs)} runs, never stopped",
        xlabel="step",
        xlim=(0, budget),
    )
    handles, labels = ax.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        ax.legend(unique.values(), unique.keys(), fontsize=8)
