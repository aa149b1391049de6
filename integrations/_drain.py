"""Holds measurements and hands them over in batches: no host sync per step.

What lies on another device stays there until it is fetched with all the rest. On a CPU there is
nothing to wait for: a number is read at once, at a fifth of what a copy of its tensor costs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch

from grokwatch.ingest import as_float
from grokwatch.integrations._deferred import deferred
from grokwatch.integrations._warn import calm

_ROWS = 50  # rows between two drains
_SECONDS = 1.0  # or this long, for slow steps; time decides only when, never what
_AT_ONCE = True  # numbers on a CPU are read as they come; nobody waits for them

Submit = Callable[[int, dict[str, Any]], None]
Refuse = Callable[[str, Exception], None]
Keep = Callable[[str, Any], Any]


class Drain:
    """Collects rows of tensors and submits them as rows of numbers, in step order.

    Training batches of one step are averaged: they are micro-batches of one optimiser step.

    Args:
        submit: gets every finished row.
        refuse: told the name of a measurement that is not one real number, and the error; None
            raises it.
    """

    def __init__(self, submit: Submit, refuse: Refuse | None = None) -> None:
        self._submit, self._refuse = submit, refuse
        self._reset(closed=-1)

    def _reset(self, closed: int) -> None:
        self._rows: list[tuple[int, dict[str, Any]]] = []  # finished, still on their device
        self._ready: deque[tuple[int, dict[str, Any]]] = deque()
        self._open_step = -1
        self._open: dict[str, Any] = {}  # sums over the batches of the step under way
        self._counts: dict[str, int] = {}  # of how many batches, if of several
        self.closed = closed  # the last step whose batches were averaged
        self._drained = time.monotonic()

    def train(self, step: int, measured: Mapping[str, Any]) -> None:
        """Take one training batch; one for a step that was flushed already is left out."""
        if step != self._open_step:
            self._close_step()
            if len(self._rows) >= _ROWS or time.monotonic() - self._drained > _SECONDS:
                self.flush()
        if step == self.closed:
            return
        if step != self._open_step:
            self._open_step, self._open = step, self._kept(measured, _first)
            return
        for name, value in self._kept(measured, _keep).items():
            if name in self._open:
                self._add(name, value)
            else:
                self._open[name] = value

    def quick(self, step: int, loss: Any, accuracy: Any = None) -> bool:
        """Take the first batch of a step, if it is but numbers here; else leave it to `train`."""
        full = len(self._rows) >= _ROWS or time.monotonic() - self._drained > _SECONDS
        if full or step == self._open_step or step == self.closed:
            return False
        loss = _at_hand(loss)
        if loss is None:
            return False
        row = {"train_loss": loss}
        if accuracy is not None:
            row["train_accuracy"] = accuracy = _at_hand(accuracy)
            if accuracy is None:
                return False
        self._close_step()
        self._open_step, self._open = step, row
        return True

    def now(self, step: int, measured: Mapping[str, Any]) -> None:
        """Take a row and drain, as one with the training batches of that step so far."""
        kept = self._kept(measured, _first)
        if step >= self._open_step:
            self._close_step()
        if self._rows and self._rows[-1][0] == step and not kept.keys() & self._rows[-1][1].keys():
            self._rows[-1][1].update(kept)
        else:
            self._rows.append((step, kept))
        self.flush()

    def flush(self, everything: bool = False) -> None:
        """Submit all finished rows; with ``everything`` the step under way too."""
        if everything:
            self._close_step()
        with deferred(), calm():
            rows, self._rows = self._rows, []
            self._drained = time.monotonic()
            self._ready.extend(self._fetched(rows))
            while self._ready:  # a submission may flush in its turn: the order is kept
                step, measured = self._ready.popleft()
                self._submit(step, measured)

    def restart(self, closed: int) -> None:
        """Forget what is held; go on after step ``closed``."""
        self._reset(closed)

    def _kept(self, measured: Mapping[str, Any], keep: Keep) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in measured.items():
            if value is not None:
                try:
                    kept[name] = keep(name, value)
                except Exception as error:
                    if self._refuse is None:
                        raise
                    self._refuse(name, error)
        return kept

    def _add(self, name: str, value: Any) -> None:
        try:
            self._open[name] = self._open[name] + value
            self._counts[name] = self._counts.get(name, 1) + 1
        except Exception as error:  # on different devices, say
            if self._refuse is None:
                raise
            self._refuse(name, error)

    def _fetched(self, rows: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
        """The rows as numbers; a tensor that cannot be fetched costs only itself."""
        try:
            return _to_numbers(rows)
        except Exception:
            if self._refuse is None:
                raise
        for _, measured in rows:
            for name, value in list(measured.items()):
                if isinstance(value, torch.Tensor):
                    try:
                        measured[name] = value.item()
                    except Exception as error:
                        del measured[name]
                        self._refuse(name, error)
        return rows

    def _close_step(self) -> None:
        row = self._open
        if self._counts:
            self._open = {}
            counts, self._counts = self._counts, {}
            row = {name: total / counts.get(name, 1) for name, total in row.items()}
        if row:
            self.closed = self._open_step
            # A Ctrl-C between these statements neither loses the row nor doubles it.
            if not self._rows or self._rows[-1][1] is not row:
                self._rows.append((self._open_step, row))
            self._open = {}
        self._open_step = -1


def _first(name: str, value: Any) -> Any:
    """As :func:`_keep`, of what comes first at a step, and as a rule alone.

    Further batches are added to it in float32, on their device.
    """
    number = _at_hand(value)
    return _keep(name, value) if number is None else number


def _at_hand(value: Any) -> float | None:
    """The number, if it can be had without waiting for a device."""
    if type(value) is float:
        return value
    if _AT_ONCE and type(value) is torch.Tensor and value.is_cpu:
        try:
            number = value.item()
        except Exception:
            return None  # :func:`_keep` says what is wrong
        if type(number) is float:
            return number
    return None


def _keep(name: str, value: Any) -> Any:
    """A detached copy, so that neither the graph nor a reused buffer can matter."""
    if isinstance(value, torch.Tensor):
        if value.dtype is torch.float32 and not value.ndim:
            return value.detach().clone()
        if value.numel() != 1 or value.is_complex():
            raise TypeError(
                f"{name} must be one real number, but got a tensor of shape "
                f"{tuple(value.shape)} and {value.dtype}; pass its mean."
            )
        return value.detach().reshape(()).to(torch.float32, copy=True)
    return value if type(value) is float else as_float(name, value)


def _to_numbers(rows: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """The rows with every tensor fetched: one transfer per device."""
    tensors: dict[torch.device, list[torch.Tensor]] = {}
    for _, measured in rows:
        for value in measured.values():
            if type(value) is not float and isinstance(value, torch.Tensor):
                tensors.setdefault(value.device, []).append(value)
    if not tensors:
        return rows
    fetched = {d: iter(torch.stack(ts).tolist()) for d, ts in tensors.items()}
    return [
        (step, {k: next(fetched[v.device]) if isinstance(v, torch.Tensor) else v
                for k, v in measured.items()})
        for step, measured in rows
    ]  # fmt: skip
