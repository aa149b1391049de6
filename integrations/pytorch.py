"""Watch a raw PyTorch loop: tensors in, verdicts out, no host sync per step, no harm done."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from grokwatch.integrations._drain import Drain
from grokwatch.integrations._norms import NormProbe
from grokwatch.monitor import Monitor
from grokwatch.news import headline
from grokwatch.sinks import Sink
from grokwatch.sinks.console import ConsoleSink
from grokwatch.sinks.jsonl import JsonlSink
from grokwatch.state import take
from grokwatch.verdict import STOPS, Recommendation, Verdict, check_stop_on

log = logging.getLogger("grokwatch")

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None


class Watch:
    """Follows a training loop; made by :func:`grokwatch.watch`.

    Args:
        model: whose weights are measured (compiled models too).
        optimizer: one or several; the first one's steps are the clock. None: every call of
            :meth:`train` is a step, and norms are not measured.
        budget: optimiser steps the run may take.
        log_dir: folder for the record (``grokwatch.jsonl``) and the TensorBoard events; None
            writes nothing. A folder that holds a record already is left alone: a sibling
            ``<log_dir>-2`` is used, unless :meth:`load_state_dict` resumes the run.
        stop_on: recommendations that set :attr:`should_stop`.
        on_verdict: called with every verdict that is news: a new phase or recommendation, a spike.
        console: show a progress bar (only on a terminal).
        tensorboard: write TensorBoard events into ``log_dir``.
        norms_every: cadence of norms in optimiser steps; 0 measures none.
        notes: anything worth keeping with the record.
        **settings: of :class:`grokwatch.Monitor`. Learning rate and weight decay are taken from
            the optimizer unless given, ``chance`` from the logits given to :meth:`validate`.

    Wrong settings raise here, at once. After that nothing raises: whatever fails is told once, in
    a warning, and switched off, and training goes on. Use it as a context manager, or call
    :meth:`close`, to remove its hooks and write what is left.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: Optimizers = None,
        *,
        budget: int,
        log_dir: str | Path | None = None,
        stop_on: Sequence[Recommendation] = STOPS,
        on_verdict: Callable[[Verdict], object] | None = None,
        console: bool = False,
        tensorboard: bool = True,
        norms_every: int = 50,
        notes: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if norms_every < 0:
            raise ValueError(f"norms_every cannot be negative but got {norms_every}.")
        optimizers = _as_list(optimizer)
        if optimizers:
            group = optimizers[0].param_groups[0]
            settings.setdefault("learning_rate", float(group["lr"]))
            if "weight_decay" in group:
                settings.setdefault("weight_decay", float(group["weight_decay"]))
        self._settings = {"budget": budget, **settings}
        self._monitor = Monitor(budget=budget, **settings)
        self.log_dir = None if log_dir is None else Path(log_dir)
        self._stop_on = check_stop_on(stop_on)
        self._on_verdict = on_verdict
        self._console, self._tensorboard, self._notes = console, tensorboard, notes
        self._sinks: dict[str, Sink] | None = None  # made with the first observation
        self._resumed_after: int | None = None
        self._off: set[str] = set()
        self._told: Verdict | None = None
        self._drain = Drain(self._submit)
        self._step = 0  # optimiser steps taken
        self._clocked = bool(optimizers)
        self._probe = NormProbe(model, norms_every) if optimizers and norms_every else None
        self._handles = []
        if optimizers:
            first = optimizers[0]
            self._handles.append(first.register_step_pre_hook(self._before_step))
            self._handles.append(first.register_step_post_hook(self._after_step))

    # -- what a training loop calls -------------------------------------------------------------

    def train(
        self,
        loss: Any = None,
        accuracy: Any = None,
        *,
        logits: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
        step: int | None = None,
        **others: Any,
    ) -> None:
        """Take the training loss (and accuracy) of a batch; tensors stay on their device.

        Call it once per batch. What arrives between two optimiser steps (gradient accumulation)
        is averaged into one row.

        Args:
            loss: 0-d tensor or float.
            accuracy: 0-d tensor or float, a fraction.
            logits: shape (..., classes); with ``targets`` gives the accuracy instead.
            targets: class indices of shape (...).
            step: the optimiser step, if not the optimizer's own count.
            **others: further measurements that the monitor knows.
        """
        try:
            if not self._clocked and step is None:
                self._step += 1
            if accuracy is None and logits is not None and targets is not None:
                accuracy = _accuracy(logits, targets)
            measured = {"train_loss": loss, "train_accuracy": accuracy, **others}
            self._drain.train(self._step if step is None else step, measured)
        except Exception as error:
            self._fault("monitor", error)

    def validate(
        self,
        loss: Any = None,
        accuracy: Any = None,
        *,
        margin: Any = None,
        logits: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
        step: int | None = None,
    ) -> Verdict:
        """Take a validation result: numbers, or logits and targets to compute them from.

        Args:
            loss: 0-d tensor or float.
            accuracy: 0-d tensor or float, a fraction.
            margin: mean over examples of correct logit minus largest other.
            logits: shape (..., classes); gives whatever of the three is missing.
            targets: class indices of shape (...).
            step: the optimiser step, if not the optimizer's own count.

        Returns:
            The latest verdict.
        """
        try:
            if logits is not None and targets is not None:
                computed = evaluate(logits, targets)
                loss = computed[0] if loss is None else loss
                accuracy = computed[1] if accuracy is None else accuracy
                margin = computed[2] if margin is None else margin
            measured = {"val_loss": loss, "val_accuracy": accuracy, "val_margin": margin}
            if self._settings.get("chance") is None and logits is not None:
                measured["chance"] = 1.0 / logits.shape[-1]
            self._drain.now(self._step if step is None else step, measured)
        except Exception as error:
            self._fault("monitor", error)
        return self.verdict

    def observe(self, *, step: int | None = None, **measurements: Any) -> None:
        """Take any other measurement, such as the input of a signal of your own."""
        try:
            self._drain.now(self._step if step is None else step, measurements)
        except Exception as error:
            self._fault("monitor", error)

    @property
    def verdict(self) -> Verdict:
        """The latest verdict."""
        return self._monitor.verdict

    @property
    def should_stop(self) -> bool:
        """Whether the latest verdict recommends stopping on a ground named in ``stop_on``."""
        return "monitor" not in self._off and self.verdict.recommendation in self._stop_on

    def flush(self) -> Verdict:
        """Judge everything handed over so far, the last batch included."""
        try:
            self._drain.flush(everything=True)
        except Exception as error:
            self._fault("monitor", error)
        return self.verdict

    def close(self) -> None:
        """Remove every hook, judge and write what is left; harmless if called twice."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.flush()
        for name, sink in (self._sinks or {}).items():
            try:
                sink.close()
            except Exception as error:
                self._fault(name, error)
        self._sinks = {}

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- saved state ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state to keep in a checkpoint."""
        self.flush()
        return {"monitor": self._monitor.state_dict(), "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state: same verdicts, same record, same TensorBoard curves.

        Raises:
            ValueError: the state is of another version or other thresholds, or broken.
        """
        self._monitor.load_state_dict(take(state, "monitor"))
        self._step = take(state, "step")
        self._resumed_after = self._monitor.last_step

    # -- inside ---------------------------------------------------------------------------------

    def _before_step(self, *_: Any) -> None:
        if self._probe is not None and self._probe.due(self._step + 1):
            try:
                self._probe.before_step()
            except Exception as error:
                self._probe = None
                self._fault("norms", error)

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._step += 1
        if self._probe is not None and self._probe.due(self._step):
            try:
                self._drain.later(self._step, self._probe.after_step(optimizer))
            except Exception as error:
                self._probe = None
                self._fault("norms", error)

    def _submit(self, step: int, measured: dict[str, float]) -> None:
        """One finished row: to the monitor, then to the sinks."""
        if "monitor" in self._off:
            return
        try:
            verdict = self._monitor.update(step, **measured)
        except Exception as error:
            self._fault("monitor", error)
            return
        if self._monitor.catching_up:
            return
        if self._sinks is None:
            self._sinks = self._make_sinks()
        news = None
        if verdict is not self._told:
            news = headline(self._told, verdict)
            self._told = verdict
            if news is not None and self._on_verdict is not None and "on_verdict" not in self._off:
                try:
                    self._on_verdict(verdict)
                except Exception as error:
                    self._fault("on_verdict", error)
            fresh = True
        else:
            fresh = False
        for name, sink in list(self._sinks.items()):
            try:
                sink.observe(step, measured)
                if fresh:
                    sink.verdict(verdict, news)
            except Exception as error:
                self._sinks.pop(name)
                self._fault(name, error)

    def _make_sinks(self) -> dict[str, Sink]:
        sinks: dict[str, Sink] = {}
        if int(os.environ.get("RANK", "0")) != 0:  # one writer in a distributed run
            return sinks
        budget, resumed = self._monitor.settings.budget, self._resumed_after
        folder = self.log_dir

        def record() -> Sink:
            assert folder is not None
            return JsonlSink(folder / "grokwatch.jsonl", self._settings, self._notes, resumed)

        def tensorboard() -> Sink:
            from grokwatch.integrations.tensorboard import TensorBoardSink

            return TensorBoardSink(folder, self._settings, resumed)

        wanted: dict[str, Callable[[], Sink]] = {}
        if self._console:
            wanted["console"] = lambda: ConsoleSink(budget)
        if folder is not None:
            if resumed is None:
                self.log_dir = folder = _unused(folder)
            wanted["record"] = record
            if self._tensorboard:
                wanted["tensorboard"] = tensorboard
        for name, make in wanted.items():
            try:
                sinks[name] = make()
            except Exception as error:
                self._fault(name, error)
        return sinks

    def _fault(self, part: str, error: Exception) -> None:
        """Tell once, then leave that part off; training must go on."""
        if part in self._off:
            return
        self._off.add(part)
        try:
            warnings.warn(
                f"grokwatch: {part} failed and is switched off, training goes on: "
                f"{type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=3,
            )
        except RuntimeWarning as warning:  # the user turns warnings into errors: still no harm
            log.error("%s", warning)


def evaluate(
    logits: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cross-entropy, accuracy and margin, 0-d tensors on the device of the logits.

    Args:
        logits: shape (..., classes), at least two classes.
        targets: class indices of shape (...).

    Raises:
        ValueError: shapes that do not fit.

    >>> loss, accuracy, margin = evaluate(torch.tensor([[2., 0.], [0., 1.]]), torch.tensor([0, 0]))
    >>> float(accuracy), float(margin)
    (0.5, 0.5)
    """
    if logits.ndim < 2 or logits.shape[:-1] != targets.shape or logits.shape[-1] < 2:
        raise ValueError(
            f"logits must have shape (..., classes) and targets (...), but got "
            f"{tuple(logits.shape)} and {tuple(targets.shape)}."
        )
    with torch.no_grad():
        flat = logits.detach().reshape(-1, logits.shape[-1]).float()
        index = targets.detach().reshape(-1, 1)
        right = flat.gather(1, index)
        margin = right - flat.scatter(1, index, -torch.inf).amax(1, keepdim=True)
        loss = flat.logsumexp(1, keepdim=True) - right
        return loss.mean(), _accuracy(flat, index[:, 0]), margin.mean()


def _accuracy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return (logits.detach().argmax(-1) == targets).float().mean()


def _as_list(optimizer: Optimizers) -> list[torch.optim.Optimizer]:
    if optimizer is None:
        return []
    return [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)


def _unused(folder: Path) -> Path:
    """The folder itself, or a sibling with a number if it holds a record already."""
    number, candidate = 1, folder
    while (candidate / "grokwatch.jsonl").exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    if number > 1:
        log.info("%s holds a run already; writing to %s.", folder, candidate)
    return candidate
