"""The figures of one run, and what each says in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from grokwatch.replay import Replay
from grokwatch.report import _panels as panels
from grokwatch.report._facts import milestones, spikes, stops
from grokwatch.report._style import COLOURS, new_figure
from grokwatch.report._thin import thin
from grokwatch.report.demo_table import forecasts
from grokwatch.report.transition_figure import draw_transition


class Words(NamedTuple):
    """A figure's title, what it shows (for everybody), and what is to be seen in it."""

    title: str
    caption: str
    told: str


def draw_all(replayed: Replay) -> dict[str, Figure]:
    """Draw what there is something to draw for; see :func:`grokwatch.report.figures`."""
    makers: dict[str, Callable[[Replay], Figure | None]] = {
        "accuracy": _accuracy,
        "loss": _loss,
        "probability": _probability,
        "eta": _eta,
        "transition": _transition,
        "spectral": _spectral,
        "norms": _norms,
        "curvature": _curvature,
    }
    drawn = {name: make(replayed) for name, make in makers.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def small_figure(replayed: Replay, limits: tuple[float, float]) -> Figure:
    """Accuracy, or loss where there is none, for a page of many runs on one step axis."""
    figure, axes = new_figure((3.4, 2.2), right=0.78)
    figure.subplots_adjust(left=0.17, top=0.92, bottom=0.13)
    panels.frame(axes, replayed, limits)
    has = any(len(_known(replayed, side)) for side in ("train_accuracy", "val_accuracy"))
    (panels.accuracies if has else panels.losses)(axes, replayed)
    axes.set_ylabel("")
    return figure


def words(name: str, replayed: Replay) -> Words:
    """What a figure shows, and what is to be seen in this one."""
    reached = ", ".join(f"{key} at step {step:,}" for key, step in milestones(replayed).items())
    reached = f"Milestones: {reached}." if reached else "No milestone was reached."
    title, caption, told = _WORDS[name]
    if name == "loss" and (hidden := _hidden_losses(replayed)):
        caption += f" {hidden:,} values are not shown: they are 0 or not finite."
    return Words(title, caption, " ".join(filter(None, (told, _seen(name, replayed), reached))))


def _hidden_losses(replayed: Replay) -> int:
    columns = [replayed.run.columns.get(f"{side}_loss", ((), ())) for side in ("train", "val")]
    return sum(int((~(np.isfinite(v) & (np.asarray(v) > 0))).sum()) for _, v in columns)


def _seen(name: str, replayed: Replay) -> str:
    """What is particular to this run."""
    last = replayed.final
    if name in ("accuracy", "loss"):
        ends = []
        for side, label in (("train", "training"), ("val", "validation")):
            values = _known(replayed, f"{side}_{name}")
            if len(values):
                ends.append(f"{label} {name} ends at {values[-1]:.3g}")
        if name == "loss" and (found := spikes(replayed)):
            ends.append(f"slingshots at steps {', '.join(f'{s.step:,}' for s in found[:12])}")
        return f"{'; '.join(ends)}." if ends else ""
    if name == "probability":
        ended = "unknown" if last.probability is None else f"{last.probability:.2f}"
        first = stops(replayed)
        stop = f"stopping is first recommended at step {first[0].verdict.step:,}" if first else (
            "stopping is never recommended"
        )  # fmt: skip
        return f"It ends at {ended}; {stop}."
    if name == "eta" and (foreseen := forecasts(replayed.verdicts)) and foreseen[0].eta:
        low, median, high = foreseen[0].eta
        return (
            f"First forecast at step {foreseen[0].step:,}: {median:,.0f} ({low:,.0f} to "
            f"{high:,.0f})."
        )
    if name == "transition":
        return f"The jump is at step {last.signals['transition_time']:,.0f}."
    return ""


_STEP = "The optimiser step runs to the right on a logarithmic axis."

_WORDS = {
    "accuracy": Words(
        "Accuracy",
        "Training and validation accuracy; the colours behind are the phases, the lines t1 to t4.",
        f"Training and validation accuracy in per cent. {_STEP}",
    ),
    "loss": Words(
        "Loss",
        "Training and validation loss, both axes logarithmic; triangles mark slingshots.",
        f"Training and validation loss on a logarithmic axis. {_STEP}",
    ),
    "probability": Words(
        "Probability of generalising",
        "What the monitor gave at each step, before it knew the rest; the bar at the bottom is "
        "where it recommended to stop.",
        f"Probability that the run generalises within its budget. {_STEP}",
    ),
    "eta": Words(
        "Expected step of generalisation",
        "Median and 80 % interval of the forecast of t4, over the step at which it was made.",
        f"Forecast of the step of generalisation, with an 80 per cent band. {_STEP}",
    ),
    "transition": Words(
        "The jump",
        "Validation accuracy and the error function fitted to it (Miller et al. 2024); the step "
        "axis is linear.",
        "Validation accuracy around its jump, and the fitted error function.",
    ),
    "spectral": Words(
        "Spectral signature",
        "Variance of the last 400 training losses, of the loss and of its log10 (activity, "
        "Notsawo et al. 2023).",
        f"Spectral activity of the training loss and of its logarithm. {_STEP}",
    ),
    "norms": Words(
        "Norms",
        "Norms of weights and gradient.",
        f"Norms of weights and gradient on a logarithmic axis. {_STEP}",
    ),
    "curvature": Words(
        "Curvature",
        "Largest and smallest eigenvalue of the Hessian, by size; an open dot marks a negative "
        "one.",
        f"Size of the extreme eigenvalues of the Hessian. {_STEP}",
    ),
}


def _accuracy(replayed: Replay) -> Figure | None:
    if not any(len(_known(replayed, f"{side}_accuracy")) for side in ("train", "val")):
        return None
    return _framed(replayed, panels.accuracies)


def _loss(replayed: Replay) -> Figure | None:
    if not any((_known(replayed, f"{side}_loss") > 0).any() for side in ("train", "val")):
        return None
    return _framed(replayed, panels.losses)


def _probability(replayed: Replay) -> Figure | None:
    if all(verdict.probability is None for verdict in replayed.verdicts):
        return None
    return _framed(replayed, panels.probability)


def _eta(replayed: Replay) -> Figure | None:
    return _framed(replayed, panels.expected_step) if forecasts(replayed.verdicts) else None


def _transition(replayed: Replay) -> Figure | None:
    signals = replayed.final.signals
    if "transition_time" not in signals or "val_accuracy" not in replayed.run.columns:
        return None
    steps, values = replayed.run.columns["val_accuracy"]
    shown = np.isfinite(values) & (steps > 0)
    figure, axes = new_figure(right=0.96)
    draw_transition(axes, *thin(steps[shown], values[shown]), signals)
    return figure


def _spectral(replayed: Replay) -> Figure | None:
    curves = [
        panels.signal(replayed, "spectral_activity", "loss", "training"),
        panels.signal(replayed, "spectral_log_activity", "log10 loss", "third"),
    ]
    return _over_steps(replayed, curves, "activity")


def _norms(replayed: Replay) -> Figure | None:
    curves = [
        panels.column(replayed, "weight_norm", "weights", "training"),
        panels.column(replayed, "last_layer_norm", "last layer", "third"),
        panels.column(replayed, "grad_norm", "gradient", "validation"),
    ]
    return _over_steps(replayed, curves, "norm")


def _curvature(replayed: Replay) -> Figure | None:
    columns = replayed.run.columns
    curves = []
    for name, label, role in (("max", "λ max", "training"), ("min", "|λ min|", "validation")):
        steps, values = columns.get(f"hessian_{name}", ((), np.empty(0)))
        curves.append(panels.curve(steps, np.abs(values), label, role))
    figure = _over_steps(replayed, curves, "eigenvalue, size")
    if figure is not None and "hessian_min" in columns:
        steps, values = columns["hessian_min"]
        below = panels.curve(steps, -values, "", "validation")
        if below is not None:
            figure.axes[0].plot(below.steps, below.values, "o", ms=4.5, mfc="none", mew=1.0,
                                color=COLOURS["validation"], zorder=5)  # fmt: skip
    return figure


def _over_steps(replayed: Replay, curves: list[panels.Curve | None], label: str) -> Figure | None:
    known = [curve for curve in curves if curve is not None]
    if not known:
        return None
    return _framed(replayed, lambda axes, _: panels.over_steps(axes, known, label))


def _framed(replayed: Replay, draw: Callable[..., None]) -> Figure:
    figure, axes = new_figure()
    panels.frame(axes, replayed)
    draw(axes, replayed)
    panels.name_milestones(axes, replayed)
    axes.set_xlabel("optimiser step")
    return figure


def _known(replayed: Replay, name: str) -> np.ndarray:
    values = replayed.run.columns.get(name, (None, np.empty(0)))[1]
    return values[np.isfinite(values)]
