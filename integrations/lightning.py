"""Watch a Lightning trainer, of `lightning` or of `pytorch_lightning`: one callback, no arguments.

    Trainer(callbacks=[GrokWatchCallback()]).fit(module)

Training losses come from what ``training_step`` returns, without a host sync per step; validation
results, and training accuracies, from what the module logs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from grokwatch.integrations._callback import Follower, next_check
from grokwatch.integrations._curvature import Wanted
from grokwatch.integrations._lightning_base import base
from grokwatch.integrations._lightning_curvature import KeepsBatch, follow_curvature, whole
from grokwatch.integrations._lightning_metrics import Metrics
from grokwatch.integrations._lightning_trainer import (
    Module,
    Trainer,
    folder,
    infer,
    notes,
    plain,
    save_before_stop,
    sinks,
)
from grokwatch.verdict import STOPS, Recommendation, Verdict

log = logging.getLogger("grokwatch")

_Callback: Any = base()


class GrokWatchCallback(KeepsBatch, _Callback):  # type: ignore[misc]
    """Follows a ``Trainer.fit``; ``callback.verdict`` holds the latest verdict.

    Args:
        stop: act on ``stop_on``; otherwise only advise.
        stop_on: recommendations that stop the run when ``stop`` is set.
        on_stop: "checkpoint" writes one before stopping, so that the run can be taken up again
            with ``fit(ckpt_path=...)``; or a function of the verdict, called in every process.
        budget: optimiser steps the run may take; None = what the trainer's limits come to.
        log_dir: folder for the record ``grokwatch.jsonl``; None = beside the first logger's files.
        train_loss: key returned by ``training_step`` or logged, if its name does not say so;
            likewise ``train_accuracy``, and ``val_loss`` and ``val_accuracy`` for what is logged.
        name: tells several callbacks of one trainer apart: checkpoint, log folder, curves.
        on_verdict: called with every verdict that is news.
        on_error: "warn" tells once, switches the part that failed off and lets training go on;
            "raise" raises.
        norms_every: cadence of norms in optimiser steps; 0 measures none. Models that are split
            over several devices are not measured.
        curvature: measure the Hessian's extremes: True or a ``CurvatureProbe``.
        **settings: of :class:`grokwatch.Monitor`. Learning rate, weight decay and number of
            classes are taken from optimizer, hyper-parameters and metrics unless given.

    With several processes the first one judges, from its own training loss, and all stop after the
    same optimiser step; they agree at steps that are a function of the step count alone.
    """

    def __init__(
        self,
        *,
        stop: bool = False,
        stop_on: Sequence[Recommendation] = STOPS,
        on_stop: Literal["checkpoint"] | Callable[[Verdict], object] | None = "checkpoint",
        budget: int | None = None,
        log_dir: str | Path | None = None,
        train_loss: str | None = None,
        train_accuracy: str | None = None,
        val_loss: str | None = None,
        val_accuracy: str | None = None,
        name: str = "grokwatch",
        on_verdict: Callable[[Verdict], object] | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        norms_every: int = 50,
        curvature: Wanted = False,
        **settings: Any,
    ) -> None:
        if not (on_stop is None or on_stop == "checkpoint" or callable(on_stop)):
            raise ValueError(f"on_stop must be None, 'checkpoint' or callable but got {on_stop!r}.")
        named = dict(train_loss=train_loss, train_accuracy=train_accuracy)
        named |= dict(val_loss=val_loss, val_accuracy=val_accuracy)
        self._named = {what: key for what, key in named.items() if key is not None}
        self._stop, self._on_stop = stop, on_stop
        self._log_dir = None if log_dir is None else Path(log_dir)
        self._name = name
        self._follower = Follower(
            stop_on=stop_on,
            on_verdict=on_verdict,
            on_error=on_error,
            norms_every=norms_every,
            curvature=curvature,
            settings={"budget": budget, **settings},
        )
        self._metrics = Metrics(self._named)
        self._step = 0  # optimiser steps taken
        self._stopped = False
        self._next_check = 0
        self._axis_at = (0, 0)  # an optimiser step, and the step the loggers have for it

    @property
    def verdict(self) -> Verdict:
        """The latest verdict (of the first process, in the first process)."""
        return self._follower.verdict

    @property
    def log_dir(self) -> Path | None:
        """The folder of the record; settled with the first row."""
        return self._follower.log_dir

    # -- hooks ----------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: Module) -> None:
        """Make the monitor: now the trainer knows its limits and its optimizers."""
        step = trainer.global_step
        goes_on = 0 < self._step <= step  # a second fit() of the same trainer
        self._step, self._next_check, self._stopped = step, next_check(step), False
        self._axis_at = (step, trainer.fit_loop.epoch_loop._batches_that_stepped)
        if not trainer.is_global_zero:
            return
        follower = self._follower
        with follower.guard():
            if goes_on and not follower.waiting:
                self.load_state_dict(self.state_dict())
            by_step, self._metrics = self._metrics.by_step, Metrics(self._named)
            self._metrics.by_step = by_step if follower.waiting else []
            optimizer = trainer.optimizers[0] if trainer.optimizers else None
            follower.start(
                infer(trainer, pl_module),
                log_dir=self._log_dir or folder(trainer, self._name),
                notes=notes(pl_module, optimizer),
                sinks=sinks(trainer, self._name, self._axis),
            )
            if optimizer is not None and whole(trainer):
                follower.measure_norms(pl_module, optimizer)
            follow_curvature(follower, trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the loss of a batch; now and then judge, and agree on stopping."""
        step = trainer.global_step
        stepped = step > self._step
        check = stepped and step >= self._next_check
        if stepped:
            self._axis_at = (step, trainer.fit_loop.epoch_loop._batches_that_stepped)
        if self._follower.works:
            with self._follower.guard():
                automatic = pl_module.automatic_optimization
                scale = trainer.accumulate_grad_batches if automatic else 1
                found = self._metrics.batch(outputs, scale)
                if check:
                    found |= self._metrics.logged_by_step(trainer.callback_metrics, found)
                self._follower.train(step if stepped else self._step + 1, **found)
                if check:
                    self._follower.flush()
                    self._show(trainer)
        self._step = step
        if check:
            self._next_check = next_check(step)
            self._agree(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: Module) -> None:
        """Take a validation result, unless it is the sanity check's."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self._follower.works:
            return
        with self._follower.guard():
            self._follower.observe(self._step, **self._metrics.validation(trainer.callback_metrics))
            self._show(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Module) -> None:
        """Take what the module logs as a mean over the epoch."""
        if self._follower.works:
            with self._follower.guard():
                found = self._metrics.logged_by_epoch(trainer.callback_metrics)
                if any(value is not None for value in found.values()):
                    self._follower.observe(self._step, **found)

    # What the module logs in its own on_train_epoch_end is visible only from here.
    on_train_epoch_start = on_train_epoch_end

    def on_train_end(self, trainer: Trainer, pl_module: Module) -> None:
        """Judge and write what is left, while the loggers are still open."""
        self.on_train_epoch_end(trainer, pl_module)
        self._follower.close()
        self._show(trainer)

    def on_exception(self, trainer: Trainer, pl_module: Module, exception: BaseException) -> None:
        """Write what is left."""
        self._follower.close()

    def teardown(self, trainer: Trainer, pl_module: Module, stage: str) -> None:
        """Write what is left."""
        self._follower.close()

    # -- state ----------------------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """Where a checkpoint keeps the state; differs by ``name`` only."""
        return f"GrokWatchCallback[{self._name}]"

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state."""
        state = self._follower.state_dict()
        return {**state, "by_step": list(self._metrics.by_step)} if state else {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a saved state with the next ``fit``."""
        self._follower.load_state_dict(state_dict)
        self._metrics.by_step = list(state_dict.get("by_step", ()))

    # -- inside ---------------------------------------------------------------------------------

    def _axis(self, step: int) -> int:
        """The step that the loggers' other curves have for an optimiser step."""
        at, axis = self._axis_at
        return max(0, axis - (at - step))

    def _show(self, trainer: Trainer) -> None:
        """Put the verdict into the trainer's progress bar."""
        if trainer.is_global_zero:
            trainer.progress_bar_metrics[self._name] = plain(self.verdict)

    def _agree(self, trainer: Trainer) -> None:
        """Stop every process if the first one says so."""
        if not self._stop or self._stopped or trainer.fast_dev_run:
            return
        wish = self._follower.should_stop
        if not trainer.strategy.reduce_boolean_decision(wish, all=False):
            return
        self._stopped = True
        try:
            if callable(self._on_stop):
                self._on_stop(self.verdict)
            elif self._on_stop == "checkpoint":
                save_before_stop(trainer, self._name, self.log_dir)
        except Exception as error:
            if trainer.world_size > 1:  # the others wait for this process: only a crash ends that
                raise
            self._follower.fault(error, "on_stop")
            return  # what cannot be undone is not done
        trainer.should_stop = True
        if trainer.is_global_zero:
            log.warning("stopping at step %s: %s", f"{self._step:,}", self.verdict.reason)
