"""One training by a Trainer, followed: what its events mean to a :class:`Follower`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transformers.trainer_callback import CallbackHandler, TrainerCallback, TrainerState

from grokwatch.integrations._callback import Follower, next_check
from grokwatch.integrations._distributed import Ranks
from grokwatch.integrations._huggingface_batches import Batches
from grokwatch.integrations._huggingface_infer import can_measure_norms, infer, inner, notes_of
from grokwatch.integrations._huggingface_metrics import Keys, logged_loss, rows_of
from grokwatch.integrations._huggingface_sinks import LoggersSink, ProgressSink, writer_of
from grokwatch.integrations.tensorboard import TensorBoardSink
from grokwatch.sinks import Sink
from grokwatch.verdict import Verdict

log = logging.getLogger("grokwatch")


@dataclass
class Options:
    """What the user chose; see :class:`grokwatch.integrations.huggingface.GrokWatchCallback`."""

    log_dir: str | Path | Literal[False] | None = None
    tensorboard: bool | None = None
    keys: dict[str, str | None] = field(default_factory=dict)
    train_accuracy: bool = True
    raises: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


class Event(NamedTuple):
    """What a Trainer hands over with every event."""

    args: Any
    state: TrainerState
    control: Any
    others: dict[str, Any]


class Run:
    """Follows one training, from its beginning or from a checkpoint.

    Args:
        follower: gets the measurements; started on the main process only.
        options: what the user chose.
        event: the beginning of the training.
    """

    def __init__(self, follower: Follower, options: Options, event: Event) -> None:
        self._follower, self._options, self._event = follower, options, event
        args = event.args
        over = args.world_size if args.average_tokens_across_devices else 1
        self._batches = Batches(follower, over, options.train_accuracy)
        self._keys = Keys(options.keys)
        self._evaluated = False  # since the last decision
        self._from_logs = False  # the training loss is the Trainer's logged mean
        self._next_check = next_check(event.state.global_step)
        self.ranks = Ranks(lambda part, error: follower.fault(error, part))

    # -- beginning and end ----------------------------------------------------------------------

    def start(
        self,
        handler: CallbackHandler | None,
        neighbours: list[TrainerCallback],
        saved: dict[str, Any] | None,
    ) -> None:
        """Begin on the process that judges.

        Args:
            handler: of the Trainer's callbacks.
            neighbours: the callbacks that are not ours.
            saved: state of the follower in the checkpoint that is being resumed.
        """
        args, state, options, follower = *self._event[:2], self._options, self._follower
        model, optimizer = self._event.others["model"], self._event.others.get("optimizer")
        if saved is not None:
            follower.load_state_dict(saved)
        writer = writer_of(handler) if options.tensorboard is not False else None
        follower.start(
            infer(state, model, optimizer),
            log_dir=args.output_dir if options.log_dir is None else options.log_dir or None,
            tensorboard=options.tensorboard is True and writer is None,
            notes={**notes_of(args, model, optimizer), **options.notes},
            sinks=self._sinks(neighbours, writer),
        )
        if optimizer is not None and can_measure_norms(model, optimizer):
            follower.measure_norms(model, inner(optimizer))
        if args.n_gpu > 1:  # every batch goes to copies of the model
            self._take_logs("the model is copied to several devices")
        else:
            self._batches.attach(model)
        if state.global_step > 0 and saved is None:
            self._make_up()

    def _sinks(
        self, neighbours: list[TrainerCallback], writer: Any
    ) -> dict[str, Callable[[], Sink]]:
        sinks: dict[str, Callable[[], Sink]] = {
            "progress": lambda: ProgressSink(neighbours),
            "loggers": lambda: LoggersSink(neighbours, self._event),
        }
        if writer is not None:
            sinks["tensorboard"] = lambda: TensorBoardSink(writer, self._follower.settings)
        return sinks

    def _make_up(self) -> None:
        """Take from the log history what a checkpoint made without us lacks."""
        state, filtered = self._event.state, self._event.args.logging_nan_inf_filter
        keys = Keys(self._options.keys)
        rows = rows_of(state.log_history, keys, filtered, state.global_step)
        log.info(
            "The checkpoint has no state of grokwatch: %d steps are taken from its log history, "
            "in which training losses are means since the log before.",
            len(rows),
        )
        for step, row in rows.items():
            self._follower.observe(step, **row)

    def close(self) -> None:
        """Judge and write what is left."""
        self._batches.detach()
        self._follower.close()

    # -- what the Trainer tells -----------------------------------------------------------------

    def step_ended(self, step: int) -> None:
        """Take what the forward passes of an optimiser step said."""
        loss, accuracy = self._batches.step()
        if loss is None and not self._from_logs:
            self._take_logs("the model returns no loss")
        if not (loss is None and accuracy is None):
            self._follower.train(step, None if self._from_logs else loss, accuracy)

    def _take_logs(self, why: str) -> None:
        self._from_logs = True
        log.info("Since %s, training losses are the Trainer's logged means.", why)

    def logged(self, step: int, logs: Mapping[str, Any]) -> None:
        """Take the mean loss if there is no other, and the last log before loggers close."""
        loss = logged_loss(logs, self._event.args.logging_nan_inf_filter)
        if self._from_logs and loss is not None:
            self._follower.observe(step, train_loss=loss)
        if "train_runtime" in logs:
            self._follower.flush()

    def evaluated(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Take the metrics of an evaluation; several data sets come one by one."""
        self._evaluated = True
        found = self._keys.take(metrics)
        if found:
            self._follower.observe(step, **found)

    def settle_keys(self) -> None:
        """Once all data sets of an evaluation are through: raise if a key is missing."""
        try:
            self._keys.settle()
        except LookupError:
            if self._options.raises or self._follower.works:  # else only one process tells
                raise

    def should_stop(self, step: int) -> bool:
        """Whether to stop after this step: the same answer on every process."""
        wanted: Verdict | None = None
        if self.ranks.judges and (self._evaluated or step >= self._next_check):
            self._next_check, self._evaluated = next_check(step), False
            self._follower.flush()
            if self._follower.should_stop:
                wanted = self._follower.verdict
        return self.ranks.should_stop(step, wanted)
