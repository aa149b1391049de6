"""The optimiser's steps, counted through its hooks, and the norms measured at their cadence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from grokwatch.ingest import check_step
from grokwatch.integrations._distributed import is_split
from grokwatch.integrations._norms import NormProbe, Number

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None


class Clock:
    """Counts the steps of the first optimizer; without one, training batches.

    Args:
        model: whose norms are measured.
        optimizers: as :func:`as_list` gives them.
        norms_every: cadence in optimiser steps; 0 measures none.
        measures: whether norms are wanted in this process.
        fault: told what failed.

    Attributes:
        step: steps taken, or what the user says the step is.
        moved: grows with every step, whatever the user says.
        probed: optimiser steps seen by the probe.
        measured: norms that wait for the row of their step.
        driven: whether an optimizer counts the steps.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: list[torch.optim.Optimizer],
        norms_every: int,
        measures: Callable[[], bool],
        fault: Callable[[str, Exception], None],
    ) -> None:
        self.step = self.moved = self.probed = 0
        self._model, self._measures, self._fault = model, measures, fault
        self.measured: dict[str, Number] = {}
        self.driven = bool(optimizers)
        self._probe = NormProbe(model, norms_every) if optimizers and norms_every else None
        self._plan()
        self._handles: list[Any] = []
        for first in optimizers[:1]:
            try:
                self._handles.append(first.register_step_pre_hook(self._before_step))
                self._handles.append(first.register_step_post_hook(self._after_step))
            except AttributeError:
                raise TypeError(
                    f"{type(first).__name__} takes no step hooks; pass the torch optimizer that "
                    f"it wraps, or none and step=... to watch.train."
                ) from None

    def batch(self, step: Any) -> int:
        """A training batch has come: the step it belongs to."""
        if not self.driven:
            self.moved += 1
        if step is not None:
            self.step = check_step(step)
        elif not self.driven:
            self.step += 1
        return self.step

    def norms(self) -> dict[str, Number]:
        """The norms not yet asked for."""
        norms, self.measured = self.measured, {}
        return norms

    def restart(self, step: int, probed: int) -> None:
        """Go on after a step."""
        self.step, self.probed, self.measured = step, probed, {}
        self._plan()

    def close(self) -> None:
        """Remove the hooks."""
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.remove()

    # Between two measurements these two must cost next to nothing.

    def _before_step(self, *_: Any) -> None:
        if self.probed + 1 == self._due:
            self._prepare()

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self.step += 1
        self.moved += 1
        self.probed += 1
        if self.probed == self._due:
            self._measure(optimizer)

    def _prepare(self) -> None:
        if self._probe is not None and self._measures():
            try:
                # One rank alone may not ask for the norm of what is split over all of them.
                if is_split(self._model):
                    raise NotImplementedError("the weights are split over several processes")
                self._probe.before_step()
            except Exception as error:
                self._lose_probe(error)

    def _measure(self, optimizer: torch.optim.Optimizer) -> None:
        if self._probe is not None and self._measures():
            try:
                self.measured = self._probe.after_step(optimizer)
            except Exception as error:
                self._lose_probe(error)
        self._plan()

    def _plan(self) -> None:
        self._due = -1 if self._probe is None else self._probe.next_after(self.probed)

    def _lose_probe(self, error: Exception) -> None:
        self._probe = None
        self._plan()
        self._fault("norms", error)


def as_list(optimizer: Optimizers) -> list[torch.optim.Optimizer]:
    """The torch optimizers; of Accelerate's wrappers what they wrap, which has the hooks.

    Raises:
        TypeError: something that is not an optimizer.
    """
    if optimizer is None:
        return []
    several = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
    for one in several:
        if not isinstance(one, torch.optim.Optimizer):
            raise TypeError(
                f"optimizer must be a torch.optim.Optimizer, or several in a list, but got "
                f"{type(one).__name__}."
            )
    return [_inner(one) for one in several]


def settings_of(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, float]:
    """Learning rate and weight decay of the first optimizer, as settings of a monitor."""
    found = dict[str, float]()
    for group in [one.param_groups[0] for one in optimizers[:1]]:
        for setting, key in (("learning_rate", "lr"), ("weight_decay", "weight_decay")):
            if isinstance(group.get(key), (int, float, torch.Tensor)):
                found[setting] = float(group[key])
    return found


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    inner = getattr(optimizer, "optimizer", None)
    return _inner(inner) if isinstance(inner, torch.optim.Optimizer) else optimizer
