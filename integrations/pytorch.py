"""Watch a raw PyTorch loop: tensors in, verdicts out, no host sync per step, no harm done."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from grokwatch.ingest import check_step
from grokwatch.integrations._checks import check_watch
from grokwatch.integrations._clock import Clock, Optimizers, as_list, settings_of
from grokwatch.integrations._curvature import Wanted
from grokwatch.integrations._curvature_batch import WatchProber
from grokwatch.integrations._distributed import Ranks
from grokwatch.integrations._drain import Drain
from grokwatch.integrations._evaluate import evaluate as evaluate
from grokwatch.integrations._given import Given
from grokwatch.integrations._on_stop import BeforeStop, OnStop
from grokwatch.integrations._outlet import Destinations, Outlet
from grokwatch.integrations._pipeline import Pipeline, plain
from grokwatch.monitor import Monitor
from grokwatch.verdict import STOPS, Recommendation, Verdict, check_stop_on

_QUICK = 50  # batches


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
        on_stop: what to do once, when :attr:`should_stop` first says so: "checkpoint" saves model,
            optimizers and this watch to ``<log_dir>/grokwatch-stop.pt``; a function is called
            with the verdict, on every rank.
        console: show a progress bar (only on a terminal).
        tensorboard: write TensorBoard events into ``log_dir``.
        norms_every: cadence of norms in optimiser steps; 0 measures none.
        curvature: measure the Hessian's extremes: a ``CurvatureProbe(batch=(inputs, targets))``;
            or True, if :meth:`train` is given logits, targets and their cross-entropy.
        notes: anything worth keeping with the record, as plain JSON-able Python.
        **settings: of :class:`grokwatch.Monitor`. Learning rate and weight decay are taken from
            the optimizer unless given, ``chance`` from the logits given to :meth:`validate`.

    Wrong settings raise here, at once. After that nothing raises: whatever fails (or one wrong
    measurement) is told once, in a warning, and switched off, and training goes on. Use it as a
    context manager, or call :meth:`close`, to remove its hooks and write what is left.

    To undo a stop, make model, optimizer and watch anew (``stop_on=()``, lest it stop again)::

        saved = torch.load("runs/mod97/grokwatch-stop.pt", weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizers"][0])
        watch.load_state_dict(saved["watch"])

    On several processes (``torch.distributed``, Accelerate) make the same watches in the same
    order on every rank and call the same methods; rank 0 judges and writes. It knows what it is
    given: the loss of its own share of the data; validation may be left to it alone.
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
        on_stop: OnStop = None,
        console: bool = False,
        tensorboard: bool = True,
        norms_every: int = 50,
        curvature: Wanted = False,
        notes: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        check_watch(model, norms_every, on_verdict, on_stop, log_dir)
        optimizers = as_list(optimizer)
        self._prober = prober = WatchProber(curvature, optimizers)
        settings = {**settings_of(optimizers), **settings, "budget": budget}
        Monitor(**settings)  # raises for a wrong setting
        percent = settings.pop("accuracy_unit", "fraction") == "percent"
        monitor = Monitor(**settings)
        self._stop_on = check_stop_on(stop_on)
        folder = None if log_dir is None else Path(log_dir)
        where = Destinations(folder, tensorboard, console, settings, plain(notes, prober.notes))
        self._outlet = outlet = Outlet(monitor, where, on_verdict, percent)
        self._drain = Drain(outlet.submit, outlet.refuse)
        self._given = Given(percent, settings.get("chance") is not None, outlet.refuse)
        self._ranks = ranks = Ranks(outlet.fault)
        self._clock = Clock(model, optimizers, norms_every, lambda: ranks.judges, outlet.fault)
        self._pipeline = Pipeline(self._clock, self._drain, outlet, prober)
        prober.watch(model, optimizers, ranks, outlet)
        self._before_stop = BeforeStop(on_stop, model, optimizers, self._pipeline)
        self._closed = False
        self._quick = 0  # so many batches may go to the drain at once, before all is asked again
        self._finish = weakref.finalize(self, self._pipeline.finish)

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
        if self._closed:
            return
        try:
            if (
                self._quick
                and step is None
                and logits is None
                and not others
                and not self._clock.measured
                and not self._prober.measured
                and self._drain.quick(self._clock.step, loss, accuracy)
            ):
                self._quick -= 1
                return
            self._quick = self._quick - 1 if self._quick else self._quick_rows()
            at = self._clock.batch(step)
            if not self._takes():
                return
            measured = self._given.training(loss, accuracy, logits, targets, others)
            if self._prober.lacks_batch:
                self._prober.offer(loss, logits, targets)
            self._drain.train(at, self._pipeline.with_probed(measured))
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
        if self._closed or not self._takes():
            return self.verdict
        try:
            measured = self._given.validation(loss, accuracy, margin, logits, targets)
            self._drain.now(self._clock.step if step is None else check_step(step), measured)
        except Exception as error:
            self._outlet.fault("monitor", error)
        return self.verdict

    def observe(self, *, step: int | None = None, **measurements: Any) -> None:
        """Take any other measurement, such as the input of a signal of your own."""
        if self._closed or not self._takes():
            return
        try:
            measured = self._given.local(measurements)
            self._drain.now(self._clock.step if step is None else check_step(step), measured)
        except Exception as error:
            self._outlet.fault("monitor", error)

    @property
    def verdict(self) -> Verdict:
        """The latest verdict; on ranks that do not judge, the one that stopped the run."""
        stopped_by = self._ranks.verdict
        if stopped_by is not None and not self._ranks.judges:
            return stopped_by
        return self._outlet.monitor.verdict

    @property
    def should_stop(self) -> bool:
        """Whether the latest verdict recommends stopping on a ground named in ``stop_on``.

        On several processes this is agreed on through the key-value store of the process group,
        without waiting for anybody. Ask on every rank at the same places of the loop, after
        optimiser steps: the n-th answer is the same on all of them, and once it is yes it stays
        yes, at most 10 questions (2 %) after rank 0 has decided. Where ranks take different
        numbers of steps (``Join``, uneven data) ask where they meet again: after the epoch.
        """
        verdict = self._outlet.monitor.verdict
        wanted = self._outlet.works() and verdict.recommendation in self._stop_on
        stop = self._ranks.should_stop(self._clock.moved, verdict if wanted else None)
        if stop:
            self._before_stop(self._ranks.verdict or verdict, self._ranks.judges)
        return stop

    @property
    def log_dir(self) -> Path | None:
        """The folder written to; settled with the first row."""
        return self._outlet.destinations.log_dir

    def flush(self) -> Verdict:
        """Judge everything handed over; batches still to come for this step are left out."""
        self._pipeline.flush()
        return self.verdict

    def close(self) -> None:
        """Remove every hook, judge and write what is left; harmless if called twice."""
        if not self._closed:
            self._closed = True
            self._ranks.works = False
            self._finish.detach()
            self._pipeline.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state to keep in a checkpoint; writes what the record lacks."""
        return self._pipeline.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state: same verdicts, same record, same TensorBoard curves.

        Raises:
            ValueError: the state is of another version or other thresholds, or broken.
        """
        self._pipeline.load_state_dict(state)

    def _quick_rows(self) -> int:
        """How many batches may follow this one without asking who judges and whether it works."""
        if not self._clock.driven or self._prober.lacks_batch or not self._takes():
            return 0
        self._ranks.look()
        return _QUICK if self._takes() else 0

    def _takes(self) -> bool:
        return self._ranks.judges and self._outlet.works()
