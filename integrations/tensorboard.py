"""TensorBoard: curves, verdict and forecast as scalars, one readable page of custom charts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from grokwatch.report.transition_figure import transition_figure
from grokwatch.verdict import PHASES, Verdict

ROOT = "grokwatch"

#: The custom-scalars page: chart -> [kind, tags]. Curves all have the colour of their run;
#: TensorBoard tells those of one chart apart by marks, in this order.
LAYOUT = {
    "1 Verdict": {
        "Probability of generalising within the budget": [
            "Multiline",
            [f"{ROOT}/forecast/probability"],
        ],
        "Expected step of generalisation (80 % interval)": [
            "Margin",
            [f"{ROOT}/forecast/eta", f"{ROOT}/forecast/eta_low", f"{ROOT}/forecast/eta_high"],
        ],
    },
    "2 Curves": {
        "Accuracy (◼ training, ◆ validation)": [
            "Multiline",
            [f"{ROOT}/train_accuracy", f"{ROOT}/val_accuracy"],
        ],
        "Loss (◼ training, ◆ validation)": [
            "Multiline",
            [f"{ROOT}/train_loss", f"{ROOT}/val_loss"],
        ],
        # Each has its own scale.
        "Validation margin": ["Multiline", [f"{ROOT}/val_margin"]],
        "Norm of the weights": ["Multiline", [f"{ROOT}/weight_norm"]],
        "Norm of the gradient": ["Multiline", [f"{ROOT}/grad_norm"]],
    },
    "3 Signals": {
        "Spectral activity of log10 loss": ["Multiline", [f"{ROOT}/spectral/log_activity"]],
        "Spikes (◼ so far, ◆ decades of the last)": [
            "Multiline",
            [f"{ROOT}/slingshot/spikes", f"{ROOT}/slingshot/spike_amplitude"],
        ],
        "Trend a doubling (◼ val. loss, ◆ accuracy)": [
            "Multiline",
            [f"{ROOT}/trend/val_loss_4x", f"{ROOT}/trend/val_accuracy_4x"],
        ],
    },
}

#: Comes to the page with the first curvature.
CURVATURE = {
    "4 Curvature": {
        "Largest and smallest eigenvalue of the Hessian": [
            "Multiline",
            [f"{ROOT}/hessian_max", f"{ROOT}/hessian_min"],
        ],
        "Their ratio": ["Multiline", [f"{ROOT}/hessian_ratio"]],
        "Edge of stability (1 = at the edge)": ["Multiline", [f"{ROOT}/hessian_edge"]],
    },
}

_PER_E_FOLD = 40  # training curves are thinned to this many points each time the step grows e-fold
_CURVE_POINTS = 400  # validation accuracies kept for the figure of the jump


class TensorBoardSink:
    """Writes one run.

    Args:
        log_dir: folder for the event file, or a writer that somebody else owns.
        settings: shown as hyper-parameters, only numbers and strings; in somebody else's writer
            that page is theirs.
        resumed_after: the last step known; later points of an earlier process are purged.
        axis: from optimiser step to the step that the writer's other curves have for it.
    """

    def __init__(
        self,
        log_dir: str | Path | SummaryWriter,
        settings: dict[str, Any],
        resumed_after: int | None = None,
        axis: Callable[[int], int] = int,
    ) -> None:
        self._axis = axis
        self._owned = not isinstance(log_dir, SummaryWriter)
        new = True
        if isinstance(log_dir, SummaryWriter):
            self.writer = log_dir
        else:
            purge = None if resumed_after is None else resumed_after + 1
            new = not purge or not any(Path(log_dir).glob("events.out.tfevents.*"))
            self.writer = SummaryWriter(log_dir, purge_step=purge)
        self._next: dict[str, int] = {}
        self._curve: list[tuple[int, float]] = []
        self._drawn: tuple[float, float] | None = None
        if new:
            if self._owned:
                self._write_hparams(settings)
            self.writer.add_custom_scalars(LAYOUT)
        self._curved = False

    def _write_hparams(self, settings: dict[str, Any]) -> None:
        shown = {k: v for k, v in settings.items() if isinstance(v, (int, float, str, bool))}
        # `add_hparams` would make a second run of it.
        for summary in hparams(shown, {f"{ROOT}/val_accuracy": None}):  # type: ignore[no-untyped-call]
            self.writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]

    def observe(self, step: int, measured: dict[str, float]) -> None:
        """Write the row's curves: validation always, training thinned evenly in log time."""
        if "hessian_max" in measured and not self._curved:
            self._curved = True  # TensorBoard shows the page that was written last
            self.writer.add_custom_scalars(LAYOUT | CURVATURE)
        for name, value in measured.items():
            if name.startswith("train_"):  # each by itself: some come at every step, some rarely
                if step < self._next.get(name, 0):
                    continue
                self._next[name] = step + max(1, step // _PER_E_FOLD)
            self.writer.add_scalar(f"{ROOT}/{name}", value, self._axis(step))
        if "val_accuracy" in measured:
            self._curve.append((step, measured["val_accuracy"]))
            if len(self._curve) > _CURVE_POINTS:
                self._curve = self._curve[::2]

    def verdict(self, verdict: Verdict, news: str | None) -> None:
        """Write the forecast and the signals; news as text; a figure when a jump was fitted."""
        add, step = self.writer.add_scalar, self._axis(verdict.step)
        add(f"{ROOT}/forecast/phase", PHASES.index(verdict.phase), step)
        if verdict.probability is not None:
            add(f"{ROOT}/forecast/probability", verdict.probability, step)
        if verdict.eta is not None:
            for tag, value in zip(("eta_low", "eta", "eta_high"), verdict.eta, strict=True):
                add(f"{ROOT}/forecast/{tag}", value, step)
        for name, value in verdict.signals.items():
            where = _tag(name)
            if where is not None:
                add(where, value, step)
        if news is not None:
            self.writer.add_text(f"{ROOT}/news", f"step {verdict.step:,}: {news}", step)
            self.writer.flush()
        self._draw(verdict)

    def _draw(self, verdict: Verdict) -> None:
        """Draw the fitted jump once it is over, anew when the fit has moved."""
        signals = verdict.signals
        if verdict.phase != "generalised" or "transition_time" not in signals:
            return
        fit = (signals["transition_time"], signals["transition_sharpness"])
        if fit != self._drawn and len(self._curve) >= 3:
            self._drawn = fit
            steps, values = zip(*self._curve, strict=True)
            figure = transition_figure(steps, values, signals)
            self.writer.add_figure(f"{ROOT}/transition", figure, self._axis(verdict.step))

    def flush(self) -> None:
        """See :class:`grokwatch.sinks.Sink`."""
        self.writer.flush()

    def close(self) -> None:
        """Flush; close the writer if it is ours."""
        if self._owned:
            self.writer.close()
        else:
            self.writer.flush()


def _tag(name: str) -> str | None:
    """Where a signal goes; None for what the curves or the news already say."""
    if name.startswith("spectral_"):
        return f"{ROOT}/spectral/{name.removeprefix('spectral_')}"
    if name.startswith("spike"):
        return f"{ROOT}/slingshot/{name}"
    if "_slope_" in name:
        return f"{ROOT}/trend/{name.replace('_slope', '')}"
    if name.startswith(("transition_", "relative_", "absolute_", "train_transition_")):
        return f"{ROOT}/jump/{name}"
    return None
