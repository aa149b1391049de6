"""Where a Trainer shows things: its progress bar, TensorBoard writer and other loggers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.text import Text
from torch.utils.tensorboard import SummaryWriter
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import (
    CallbackHandler,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
)

from grokwatch.sinks.console import describe
from grokwatch.verdict import PHASES, Verdict


def calling_handler() -> CallbackHandler | None:
    """The handler that is calling a callback just now, None if it cannot be made out.

    No event hands a callback its Trainer or its neighbours, and through the neighbours lies the
    only way to the user's progress bar and loggers, so the calling frames are asked for them.
    """
    frame = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, CallbackHandler):
            return caller
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None


def writer_of(handler: CallbackHandler | None) -> SummaryWriter | None:
    """The writer of the Trainer's own TensorBoard callback, if it reports there."""
    for callback in [] if handler is None else handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            writer = getattr(callback, "tb_writer", None)
            if isinstance(writer, SummaryWriter):  # not tensorboardX's
                return writer
    return None


class _Sink:
    def observe(self, step: int, measured: dict[str, float]) -> None:
        """See :class:`grokwatch.sinks.Sink`."""

    def flush(self) -> None:
        """See :class:`grokwatch.sinks.Sink`."""

    def close(self) -> None:
        """See :class:`grokwatch.sinks.Sink`."""


class ProgressSink(_Sink):
    """Says the verdict behind the Trainer's own progress bar.

    Args:
        callbacks: all of the Trainer; the bar is made after ours is called.
    """

    def __init__(self, callbacks: Sequence[TrainerCallback]) -> None:
        self._callbacks = callbacks

    def verdict(self, verdict: Verdict, news: str | None) -> None:
        """See :class:`grokwatch.sinks.Sink`."""
        for callback in self._callbacks:
            bar = getattr(callback, "training_bar", None)
            if isinstance(callback, ProgressCallback) and bar is not None:
                bar.set_postfix_str(Text.from_markup(describe(verdict)).plain, refresh=False)


class LoggersSink(_Sink):
    """Hands forecasts to the Trainer's other callbacks, as one of its logs.

    It does what ``Trainer.log`` does, but leaves out those who would call us back, print every
    line, or get more than this through their own sink. ``control`` stays as it is.

    Args:
        callbacks: of the Trainer, without ours.
        event: what every event of the Trainer hands over: args, state, control, and the rest.
    """

    def __init__(
        self, callbacks: Sequence[TrainerCallback], event: tuple[Any, Any, Any, dict[str, Any]]
    ) -> None:
        self._event = event
        self._callbacks = [c for c in callbacks if _logs(c)]

    def verdict(self, verdict: Verdict, news: str | None) -> None:
        """See :class:`grokwatch.sinks.Sink`."""
        args, state, control, others = self._event
        for callback in self._callbacks:
            callback.on_log(args, state, control, logs=forecast_of(verdict), **others)


def _logs(callback: TrainerCallback) -> bool:
    known = (ProgressCallback, PrinterCallback, TensorBoardCallback)
    listens = type(callback).on_log is not TrainerCallback.on_log
    return listens and not isinstance(callback, known)


def forecast_of(verdict: Verdict) -> dict[str, float]:
    """A verdict in a few numbers for a log.

    >>> forecast_of(Verdict(9, "memorisation", 0.8, (10, 20, 30), "continue", ""))
    {'grokwatch/step': 9, 'grokwatch/phase': 2, 'grokwatch/probability': 0.8,
     'grokwatch/eta_low': 10, 'grokwatch/eta': 20, 'grokwatch/eta_high': 30}
    """
    shown: dict[str, float] = {"step": verdict.step, "phase": PHASES.index(verdict.phase)}
    if verdict.probability is not None:
        shown["probability"] = verdict.probability
    if verdict.eta is not None:
        shown.update(zip(("eta_low", "eta", "eta_high"), verdict.eta, strict=True))
    return {f"grokwatch/{name}": value for name, value in shown.items()}
