"""Watch a raw PyTorch loop: tensors in, verdicts out, no host sync per step, no harm done."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from grokwatch.ingest import check_step
from grokwatch.integrations._drain import Drain
from grokwatch.integrations._evaluate import accuracy as accuracy_of
from grokwatch.integrations._evaluate import evaluate
from grokwatch.integrations._norms import NormProbe, Number
from grokwatch.integrations._outlet import Destinations, Outlet
from grokwatch.monitor import Monitor
from grokwatch.state import take
from grokwatch.verdict import STOPS, Recommendation, Verdict, check_stop_on

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
        notes: anything worth keeping with the record, as plain JSON-able Python.
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
        if not isinstance(model, torch.nn.Module):
            raise TypeError(f"model must be a torch.nn.Module but is {type(model).__name__}.")
        if norms_every < 0:
            raise ValueError(f"norms_every cannot be negative but got {norms_every}.")
        if on_verdict is not None and not callable(on_verdict):
            raise TypeError(f"on_verdict must be callable but got {on_verdict!r}.")
        optimizers = _as_list(optimizer)
        for group in [o.param_groups[0] for o in optimizers[:1]]:
            for setting, key in (("learning_rate", "lr"), ("weight_decay", "weight_decay")):
                if isinstance(group.get(key), (int, float, torch.Tensor)):
                    settings.setdefault(setting, float(group[key]))
        Monitor(budget=budget, **settings)  # raises for a wrong setting
        self._percent = settings.pop("accuracy_unit", "fraction") == "percent"
        monitor = Monitor(budget=budget, **settings)
        self._chance_known = settings.get("chance") is not None
        self._stop_on = check_stop_on(stop_on)
        where = Destinations(
            None if log_dir is None else Path(log_dir),
            tensorboard,
            console,
            {"budget": budget, **settings},
            _plain(notes or {}),
        )
        self._outlet = Outlet(monitor, where, on_verdict, self._percent)
        self._drain = Drain(self._outlet.submit)
        self._step = 0  # optimiser steps taken, or what the user says the step is
        self._probed = 0  # optimiser steps seen by the probe
        self._norms: dict[str, Number] = {}  # measured, waiting for the row of their step
        self._clocked = bool(optimizers)
        self._closed = False
        self._probe = NormProbe(model, norms_every) if optimizers and norms_every else None
        self._handles = []
        if optimizers:
            first = optimizers[0]
            self._handles.append(first.register_step_pre_hook(self._before_step))
            self._handles.append(first.register_step_post_hook(self._after_step))
        self._finish = weakref.finalize(self, _finish, self._drain, self._outlet)

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
        is averaged into one row; validation ends the row of its step.

        Args:
            loss: 0-d tensor or float.
            accuracy: 0-d tensor or float, a fraction.
            logits: shape (..., classes); with ``targets`` gives the accuracy instead.
            targets: class indices of shape (...); negative ones are left out.
            step: the optimiser step, if not the optimizer's own count.
            **others: further measurements that the monitor knows.
        """
        if self._closed or not self._outlet.works():
            return
        try:
            if step is not None:
                self._step = check_step(step)
            elif not self._clocked:
                self._step += 1
            if accuracy is None and logits is not None and targets is not None:
                accuracy = self._unit(accuracy_of(logits, targets))
            measured = {"train_loss": loss, "train_accuracy": accuracy, **others}
            norms, self._norms = self._norms, {}
            self._drain.train(self._step, {**norms, **measured})
        except Exception as error:
            self._outlet.fault("monitor", error)

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
            targets: class indices of shape (...); negative ones are left out.
            step: the optimiser step, if not the optimizer's own count.

        Returns:
            The latest verdict.
        """
        if self._closed or not self._outlet.works():
            return self.verdict
        try:
            chance = None
            if logits is not None and targets is not None:
                computed = evaluate(logits, targets)
                loss = computed[0] if loss is None else loss
                accuracy = self._unit(computed[1]) if accuracy is None else accuracy
                margin = computed[2] if margin is None else margin
                chance = None if self._chance_known else 1.0 / logits.shape[-1]
            measured = {"val_loss": loss, "val_accuracy": accuracy, "val_margin": margin}
            at = self._step if step is None else check_step(step)
            self._drain.now(at, {**measured, "chance": chance})
        except Exception as error:
            self._outlet.fault("monitor", error)
        return self.verdict

    def observe(self, *, step: int | None = None, **measurements: Any) -> None:
        """Take any other measurement, such as the input of a signal of your own."""
        if self._closed or not self._outlet.works():
            return
        try:
            self._drain.now(self._step if step is None else check_step(step), measurements)
        except Exception as error:
            self._outlet.fault("monitor", error)

    @property
    def verdict(self) -> Verdict:
        """The latest verdict."""
        return self._outlet.monitor.verdict

    @property
    def should_stop(self) -> bool:
        """Whether the latest verdict recommends stopping on a ground named in ``stop_on``."""
        return self._outlet.works() and self.verdict.recommendation in self._stop_on

    @property
    def log_dir(self) -> Path | None:
        """The folder written to; settled with the first row."""
        return self._outlet.destinations.log_dir

    def flush(self) -> Verdict:
        """Judge everything handed over so far, the last batch included.

        Batches that still come for the same optimiser step are left out.
        """
        try:
            norms, self._norms = self._norms, {}
            if norms:
                self._drain.now(self._step, norms)
            self._drain.flush(everything=True)
        except Exception as error:
            self._outlet.fault("monitor", error)
        return self.verdict

    def close(self) -> None:
        """Remove every hook, judge and write what is left; harmless if called twice."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if not self._closed:
            self.flush()
            self._closed = True
            self._finish.detach()
            self._outlet.close()

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
        """Plain, JSON-able state to keep in a checkpoint; writes what the record lacks."""
        self.flush()
        return {
            "monitor": self._outlet.monitor.state_dict(),
            "step": self._step,
            "probed": self._probed,
            "closed": self._drain.closed,
            "outlet": self._outlet.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state: same verdicts, same record, same TensorBoard curves.

        Raises:
            ValueError: the state is of another version or other thresholds, or broken.
        """
        outlet, closed = take(state, "outlet"), take(state, "closed")
        step, probed = take(state, "step"), take(state, "probed")
        row, folder = take(outlet, "row"), take(outlet, "folder")
        self._outlet.monitor.load_state_dict(take(state, "monitor"))
        self._outlet.resume((row[0], row[1]), folder)
        self._drain.restart(closed)
        self._step, self._probed, self._norms = step, probed, {}

    # -- inside ---------------------------------------------------------------------------------

    def _unit(self, fraction: torch.Tensor) -> torch.Tensor:
        return fraction * 100.0 if self._percent else fraction

    def _before_step(self, *_: Any) -> None:
        if self._probe is not None and self._probe.due(self._probed + 1):
            try:
                self._probe.before_step()
            except Exception as error:
                self._lose_probe(error)

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._step += 1
        self._probed += 1
        if self._probe is not None and self._probe.due(self._probed):
            try:
                self._norms = self._probe.after_step(optimizer)
            except Exception as error:
                self._lose_probe(error)

    def _lose_probe(self, error: Exception) -> None:
        self._probe = None
        self._outlet.fault("norms", error)


def _finish(drain: Drain, outlet: Outlet) -> None:
    """What a watch that nobody closed still owes, at its end or the program's."""
    if outlet.forked:  # the rows and the files are the parent's
        return
    try:
        drain.flush(everything=True)
    except Exception as error:
        outlet.fault("monitor", error)
    outlet.close()


def _as_list(optimizer: Optimizers) -> list[torch.optim.Optimizer]:
    if optimizer is None:
        return []
    several = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
    for one in several:
        if not isinstance(one, torch.optim.Optimizer):
            raise TypeError(
                f"optimizer must be a torch.optim.Optimizer, or several in a list, but got "
                f"{type(one).__name__}."
            )
    return several


def _plain(notes: dict[str, Any]) -> dict[str, Any]:
    try:
        copy: dict[str, Any] = json.loads(json.dumps(notes, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"notes must be plain JSON-able Python: {error}.") from None
    return copy
