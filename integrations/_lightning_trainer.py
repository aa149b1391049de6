"""What can be read off a Lightning trainer, and a sink that feeds its loggers."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from grokwatch.integrations.tensorboard import TensorBoardSink
from grokwatch.sinks import Sink
from grokwatch.sinks.console import describe
from grokwatch.verdict import PHASES, Verdict

log = logging.getLogger("grokwatch")

_SIGNALS = ("spectral_log_activity", "spikes", "t2", "t4")  # what the loggers get of the signals

# The trainers of `lightning` and `pytorch_lightning` are different classes of the same shape.
Trainer = Any
Module = Any


def infer(trainer: Trainer, module: Module) -> dict[str, Any]:
    """Settings of the monitor, as far as trainer, optimizer and module show them."""
    found: dict[str, Any] = {"budget": _budget(trainer, module)}
    groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
    if groups:
        # A schedule that warms up starts low; what it was given stays in "initial_lr".
        found["learning_rate"] = _number(groups[0].get("initial_lr", groups[0].get("lr")))
        decays = [_number(group.get("weight_decay")) for group in groups]
        found["weight_decay"] = max((d for d in decays if d is not None), default=None)
    classes = _classes(module)
    found["chance"] = None if classes is None else 1.0 / classes
    return found


def _budget(trainer: Trainer, module: Module) -> int | None:
    steps = trainer.estimated_stepping_batches
    if not module.automatic_optimization and trainer.max_steps == -1:
        steps *= max(1, len(trainer.optimizers))  # each one's steps are counted
    return int(steps) if math.isfinite(steps) and steps >= 1 else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float, torch.Tensor)) else None


def _classes(module: Module) -> int | None:
    """Number of classes, if the hyper-parameters or the metrics of the module name just one."""
    hparams = getattr(module, "hparams", {})
    told = [hparams.get("num_classes"), hparams.get("n_classes")]
    told += [getattr(part, "num_classes", None) for part in module.modules()]
    counts = {n for n in told if isinstance(n, int) and not isinstance(n, bool) and n >= 2}
    return counts.pop() if len(counts) == 1 else None


def notes(module: Module, optimizer: Any) -> dict[str, str]:
    """What else a record should say of the run."""
    return {
        "trainer": "lightning",
        "module": type(module).__name__,
        "optimizer": type(optimizer).__name__,
    }


def folder(trainer: Trainer, name: str) -> Path | None:
    """Where the record goes: beside what the first logger writes; None if that is remote."""
    if trainer.fast_dev_run:
        return None
    default, own = Path("grokwatch"), None if name == "grokwatch" else name
    root: Any = trainer.default_root_dir
    if trainer.loggers:
        logger = trainer.loggers[0]
        root, default = getattr(logger, "log_dir", None), Path()
        if root is None:
            root = logger.save_dir or trainer.default_root_dir
            default = Path(str(logger.name or "grokwatch"), str(logger.version or ""))
    if "://" in str(root):
        return None
    return Path(root) / default / (own or "")


def save_before_stop(trainer: Trainer, name: str, record: Path | None) -> None:
    """Write a checkpoint from which a stopped run can be taken up again; for every process."""
    root = getattr(trainer.checkpoint_callback, "dirpath", None) or record
    path = f"{root or trainer.default_root_dir}/{name}-stop-step={trainer.global_step}.ckpt"
    path = trainer.strategy.broadcast(path)
    trainer.save_checkpoint(path)
    if trainer.is_global_zero:
        log.warning("wrote %s before stopping.", path)


def sinks(trainer: Trainer, name: str, axis: Callable[[int], int]) -> dict[str, Callable[[], Sink]]:
    """What makes the sinks that feed the trainer's loggers.

    Args:
        trainer: whose loggers.
        name: first part of the names of what is logged.
        axis: from optimiser step to the step of the loggers' other curves.
    """
    wanted: dict[str, Callable[[], Sink]] = {}
    others = []
    for number, logger in enumerate(trainer.loggers):
        writer = getattr(logger, "experiment", None)
        if isinstance(writer, SummaryWriter) and name == "grokwatch":
            wanted[f"logger {number}"] = _page(writer, axis)
        else:
            others.append(logger)
    if others:
        wanted["loggers"] = lambda: LoggerSink(others, name, axis)
    return wanted


def _page(writer: SummaryWriter, axis: Callable[[int], int]) -> Callable[[], Sink]:
    return lambda: TensorBoardSink(writer, {}, axis=axis)


def plain(verdict: Verdict) -> str:
    """What the progress bar says.

    >>> plain(Verdict(9, "memorisation", 0.8, (10, 20, 30), "continue", ""))
    'memorisation P=0.80 expect ~20'
    """
    return Text.from_markup(describe(verdict)).plain


class LoggerSink:
    """Logs every verdict's figures to loggers of any kind.

    Args:
        loggers: with ``log_metrics(metrics, step)``.
        name: first part of the names of what is logged.
        axis: from optimiser step to the step of the loggers' other curves.
    """

    def __init__(self, loggers: list[Any], name: str, axis: Callable[[int], int]) -> None:
        self._loggers, self._name, self._axis = loggers, name, axis

    def observe(self, step: int, measured: dict[str, float]) -> None:
        """See :class:`grokwatch.sinks.Sink`; the module logs its own curves."""

    def verdict(self, verdict: Verdict, news: str | None) -> None:
        """See :class:`grokwatch.sinks.Sink`."""
        found: dict[str, float] = {"phase": PHASES.index(verdict.phase)}
        if verdict.probability is not None:
            found["probability"] = verdict.probability
        if verdict.eta is not None:
            found.update(zip(("eta_low", "eta", "eta_high"), verdict.eta, strict=True))
        found.update({key: verdict.signals[key] for key in _SIGNALS if key in verdict.signals})
        metrics = {f"{self._name}/{key}": value for key, value in found.items()}
        for logger in self._loggers:
            logger.log_metrics(metrics, step=self._axis(verdict.step))

    def flush(self) -> None:
        """See :class:`grokwatch.sinks.Sink`; loggers save on a schedule of their own."""

    def close(self) -> None:
        """See :class:`grokwatch.sinks.Sink`; the loggers are the trainer's to close."""
