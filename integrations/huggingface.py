"""Watch a Hugging Face ``Trainer``: loss of every step, accuracy of every evaluation, no loop."""

from __future__ import annotations

import json
import logging
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

try:
    from transformers.trainer_callback import (
        ExportableState,
        TrainerCallback,
        TrainerControl,
        TrainerState,
    )
    from transformers.trainer_utils import SaveStrategy
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "grokwatch.integrations.huggingface needs the package transformers: "
        "pip install 'grokwatch[huggingface]'"
    ) from error

from grokwatch.integrations._callback import Follower
from grokwatch.integrations._curvature import Wanted
from grokwatch.integrations._huggingface_curvature import follow_curvature
from grokwatch.integrations._huggingface_own_type import OwnType
from grokwatch.integrations._huggingface_run import Event, Options, Run
from grokwatch.integrations._huggingface_sinks import calling_handler
from grokwatch.verdict import STOPS, Recommendation, Verdict

log = logging.getLogger("grokwatch")


class GrokWatchCallback(TrainerCallback, ExportableState, metaclass=OwnType):
    """Follows the training of a ``Trainer``; no argument is needed.

    The training loss is the model's own, of every optimiser step (micro-batches averaged, the
    main process's share of the data), and with it the accuracy wherever the model returns logits
    for class labels; for causal language models that is over the tokens whose label is not -100.
    Where the model returns no loss (label smoothing, ``compute_loss_func``), the logged mean is
    taken. Validation comes from ``evaluate``: ``eval_loss``, and an accuracy if
    ``compute_metrics`` returns one. Budget, learning rate, weight decay and, for classifiers,
    chance are found and told on the logger ``grokwatch``.

    Args:
        stop: act on ``stop_on``: save a checkpoint and end the training. Otherwise only advise.
        stop_on: recommendations that count for ``stop``.
        on_stop: "checkpoint" writes one before stopping, so that the stop can be undone by
            resuming; None writes none; or a function of the verdict, called in every process.
        log_dir: folder for the record ``grokwatch.jsonl``; None = the Trainer's ``output_dir``,
            False writes none. One that holds a record is left alone (``<log_dir>-2`` is used),
            unless the run is resumed.
        tensorboard: None writes to the Trainer's own writer if it reports to TensorBoard; True
            writes an event file of our own into ``log_dir`` if it does not; False writes none.
        val_loss: key of the metric; None finds it. Likewise ``val_accuracy``.
        train_accuracy: measure it in training batches.
        on_verdict: called with every verdict that is news.
        on_error: "warn" tells once, switches that part off and lets training go on; "raise".
        norms_every: cadence of norms in optimiser steps; 0 measures none.
        curvature: measure the Hessian's extremes: True or a ``CurvatureProbe``.
        notes: for the record, plain JSON-able Python.
        **settings: of :class:`grokwatch.Monitor`; they come before what is found.

    The state is saved in every checkpoint and comes back with ``resume_from_checkpoint``, whatever
    ``restore_callback_states_from_checkpoint`` says; a checkpoint made without this callback is
    made up for from its log history. In a distributed run the main process judges, all processes
    stop after the same step, and only the main one has verdicts (the others know the last).

    Raises:
        TypeError, ValueError: wrong arguments, at once.

    >>> callback = GrokWatchCallback(chance=1 / 97)
    >>> callback.verdict.phase
    'unknown'
    """

    def __init__(
        self,
        *,
        stop: bool = False,
        stop_on: Sequence[Recommendation] = STOPS,
        on_stop: Literal["checkpoint"] | Callable[[Verdict], object] | None = "checkpoint",
        log_dir: str | Path | Literal[False] | None = None,
        tensorboard: bool | None = None,
        val_loss: str | None = None,
        val_accuracy: str | None = None,
        train_accuracy: bool = True,
        on_verdict: Callable[[Verdict], object] | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        norms_every: int = 50,
        curvature: Wanted = False,
        notes: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if not (on_stop is None or on_stop == "checkpoint" or callable(on_stop)):
            raise ValueError(f"on_stop must be None, 'checkpoint' or callable but got {on_stop!r}.")
        self._follower = Follower(
            stop_on=stop_on,
            on_verdict=on_verdict,
            on_error=on_error,
            norms_every=norms_every,
            curvature=curvature,
            settings=settings,
        )
        self._stop, self._on_stop = stop, on_stop
        keys = {"val_loss": val_loss, "val_accuracy": val_accuracy}
        self._options = Options(
            log_dir, tensorboard, keys, train_accuracy, on_error == "raise", dict(notes or {})
        )
        self._run: Run | None = None
        self._training = False
        self._place = 0  # among the callbacks of this name
        weakref.finalize(self, _finish, self._follower, os.getpid())

    @property
    def verdict(self) -> Verdict:
        """The latest verdict; on a process that does not judge, the one that stopped the run."""
        ranks = None if self._run is None else self._run.ranks
        agreed = None if ranks is None or ranks.judges else ranks.verdict
        return self._follower.verdict if agreed is None else agreed

    @property
    def log_dir(self) -> Path | None:
        """The folder of the record; settled with the first row."""
        return self._follower.log_dir

    # -- events of the Trainer ------------------------------------------------------------------

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin a run, or go on with a resumed one."""
        handler = calling_handler()
        with self._follower.guard():
            self._leave()
            callbacks = [] if handler is None else list(handler.callbacks)
            alike = [c for c in callbacks if type(c).__name__ == type(self).__name__]
            self._place = alike.index(self) if self in alike else 0
            states: Any = state.stateful_callbacks
            saved = self._saved_in(states) if state.global_step > 0 else None
            # The Trainer fails at its first save if it resumes a checkpoint made without us.
            states.setdefault(type(self).__name__, self.state())
            self._run = Run(self._follower, self._options, Event(args, state, control, kwargs))
            self._training = True
            if state.is_world_process_zero:
                others = [c for c in callbacks if not isinstance(c, GrokWatchCallback)]
                self._run.start(handler, others, saved)
                follow_curvature(self._follower, args, kwargs)

    def on_step_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See that the evaluation before, now over, has told what is needed."""
        if self._run is not None and self._training:
            with self._follower.guard():
                self._run.settle_keys()

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Take the step's loss; stop if all processes agree to."""
        run, step = self._run, state.global_step
        if run is None or not self._training:
            return control
        with self._follower.guard():
            if self._follower.works:
                run.step_ended(step)
        with self._follower.guard("stop"):
            if self._stop and run.should_stop(step):
                if not control.should_training_stop:
                    log.info("Stopping at step %s: %s", f"{step:,}", self.verdict.reason)
                    if callable(self._on_stop):
                        with self._follower.guard("on_stop"):
                            self._on_stop(self.verdict)
                control.should_training_stop = True
                if self._on_stop == "checkpoint":
                    control.should_save = True
                    if args.save_strategy == SaveStrategy.BEST:  # an evaluation would undo it
                        control.should_evaluate = False
        return control

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the logged loss where the model shows none."""
        if self._run is not None and self._training and self._follower.works:
            with self._follower.guard():
                self._run.logged(state.global_step, logs or {})

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the validation metrics."""
        if self._run is not None and self._training:
            with self._follower.guard():
                self._run.evaluated(state.global_step, metrics or {})

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Judge and write what is left."""
        with self._follower.guard():
            if self._run is not None:
                self._run.settle_keys()
        self._leave()

    def _leave(self) -> None:
        self._training = False
        if self._run is not None:
            self._run.close()

    # -- saved state ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What the Trainer keeps in a checkpoint."""
        kept: dict[str, Any] = {}
        with self._follower.guard("state"):
            kept = json.loads(json.dumps(self._follower.state_dict()))
        return {"args": {}, "attributes": {"saved": {"place": self._place, "follower": kept}}}

    def _saved_in(self, states: Mapping[str, Any]) -> dict[str, Any] | None:
        """Our own state in a checkpoint, None if it was made without us."""
        entries = states.get(type(self).__name__, [])
        found: dict[str, Any] | None = None
        for entry in entries if isinstance(entries, list) else [entries]:
            saved = entry.get("attributes", {}).get("saved", {})
            if saved.get("place") == self._place:  # the Trainer appends: the last one counts
                found = saved.get("follower") or found
        return found


def _finish(follower: Follower, process: int) -> None:
    """What a callback whose training broke off still owes."""
    if os.getpid() == process:  # in a child process the rows and files are the parent's
        follower.close()
