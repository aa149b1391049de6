"""Curvature at the optimiser's steps: when the probe runs, and what becomes of what it finds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from grokwatch.integrations._distributed import is_split
from grokwatch.integrations._warn import calm
from grokwatch.verdict import Verdict

if TYPE_CHECKING:
    from grokwatch.geometry.probe import BatchLoss, CurvatureProbe
    from grokwatch.integrations._callback import Follower

log = logging.getLogger("grokwatch")

FIRST = "first training batch"
HOW = "pass curvature=CurvatureProbe(loss_fn=lambda model, batch: ..., batch=...)"

Wanted: TypeAlias = "bool | CurvatureProbe"
Fault = Callable[[str, Exception], None]


class Prober:
    """Runs a probe before optimiser steps, as often as its budget allows and at new spikes.

    Args:
        curvature: True for a probe of the usual settings, one of the user's own, or False.

    Raises:
        TypeError: something else.

    >>> Prober(True).notes
    {'curvature': {'batch': 'first training batch', 'mode': 'eval'}}
    >>> Prober("yes")
    Traceback (most recent call last):
    TypeError: curvature must be True, False or a CurvatureProbe but is str.
    """

    def __init__(self, curvature: Wanted = False) -> None:
        self._usual = curvature is True
        self.probe = _probe(curvature)
        self.busy = False  # a probe is running: what the model does is not training
        self.measured: dict[str, float] = {}  # waiting for the row of its step
        self._undo: list[Callable[[], object]] = []
        self._on = False

    @property
    def notes(self) -> dict[str, Any]:
        """What a record should say: on which data, in which mode."""
        if self.probe is None:
            return {}
        from grokwatch.geometry._batches import size_of

        batch = self.probe.batch
        name = self.probe.name or (FIRST if batch is None else size_of(batch))
        return {"curvature": {"batch": name, "mode": self.probe.mode}}

    @property
    def own_loss(self) -> bool:
        """Whether the user said how to compute the loss."""
        from grokwatch.geometry._batches import standard_loss

        return self.probe is not None and self.probe.loss_fn is not standard_loss

    @property
    def lacks_batch(self) -> bool:
        """Whether a probe that runs still waits for its data."""
        return self._on and self.probe is not None and self.probe.batch is None

    def start(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        takes: Callable[[], bool],
        verdict: Callable[[], Verdict],
        fault: Fault,
        loss: BatchLoss | None = None,
    ) -> None:
        """Measure when this optimizer steps, until :meth:`close`.

        Args:
            model: what is trained.
            optimizer: has step hooks.
            takes: whether measurements are wanted in this process.
            verdict: the latest verdict; a spike that is new in it asks for a probe.
            fault: told what failed; the probe is then off.
            loss: of model and batch, where the user has given none.
        """
        self.close()
        if self._usual:  # what an earlier run left in it is not this run's
            self.probe = _probe(True)
        if self.probe is None:
            return
        if loss is not None and not self.own_loss:
            self.probe.loss_fn = loss
        self.probe.attach(model, optimizer)
        self._model, self._takes, self._verdict, self._fault = model, takes, verdict, fault
        self._known: Verdict | None = None
        self._spikes: float | None = None
        self._on = True
        self.until_close(optimizer.register_step_pre_hook(self._before_step).remove)

    def follow(
        self,
        follower: Follower,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: BatchLoss | None,
    ) -> None:
        """Measure for a callback's follower, as :meth:`start`."""
        if follower.works:
            with follower.guard("curvature"):
                takes, verdict = lambda: follower.works, lambda: follower.verdict
                fault: Fault = lambda part, error: follower.fault(error, part)  # noqa: E731
                self.start(model, optimizer, takes, verdict, fault, loss)

    def until_close(self, undo: Callable[[], object]) -> None:
        """Call this when it is over."""
        self._undo.append(undo)

    def take_batch(self, batch: Any, loss: BatchLoss | None = None) -> None:
        """Measure on this batch, with this loss (None = the one that is set)."""
        if self.probe is not None:
            from grokwatch.geometry._batches import size_of

            self.probe.batch = batch
            self.probe.loss_fn = loss or self.probe.loss_fn
            self.probe.name = self.probe.name or f"{FIRST}, {size_of(batch)}"
            log.info(
                "curvature is measured on the %s, in mode %r.", self.probe.name, self.probe.mode
            )

    def row(self) -> dict[str, float]:
        """What was measured and not yet asked for."""
        row, self.measured = self.measured, {}
        return row

    def fail(self, error: Exception) -> None:
        """Tell once and measure no more."""
        fault = self._fault
        self.close()
        fault("curvature", error)

    def close(self) -> None:
        """Remove every hook; what is measured can still be asked for."""
        self._on = False
        undo, self._undo = self._undo, []
        for step in undo:
            step()

    def _before_step(self, *_: Any) -> None:
        probe = self.probe
        if not self._on or probe is None or not self._takes():
            return
        try:
            self._look_for_spikes(probe)
            if not probe.due():
                return
            # One rank alone may not run what is split over all of them.
            if is_split(self._model):
                raise NotImplementedError("the weights are split over several processes")
            self.busy = True
            try:
                with calm():
                    found = probe.measure()
            finally:
                self.busy = False
            self.measured = probe.measurements(found)
        except Exception as error:
            self.fail(error)

    def _look_for_spikes(self, probe: CurvatureProbe) -> None:
        verdict = self._verdict()
        if verdict is self._known:
            return
        self._known = verdict
        spikes = verdict.signals.get("spikes", 0.0)
        if self._spikes is not None and spikes > self._spikes:
            probe.request()
        self._spikes = spikes


def _probe(curvature: Any) -> CurvatureProbe | None:
    if curvature is False or curvature is None:
        return None
    from grokwatch.geometry.probe import CurvatureProbe

    if curvature is True:
        return CurvatureProbe()
    if not isinstance(curvature, CurvatureProbe):
        raise TypeError(
            f"curvature must be True, False or a CurvatureProbe but is {type(curvature).__name__}."
        )
    return curvature
