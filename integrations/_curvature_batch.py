"""A probe for a raw loop; it finds its batch itself, if the loss of that batch can be told."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from grokwatch.integrations._curvature import HOW, Prober, Wanted
from grokwatch.integrations._distributed import Ranks
from grokwatch.integrations._outlet import Outlet

_SAME = 1e-5  # relative; rounding of a float32 mean is below, label smoothing above
_FLAT = 0.05  # logits that vary less do not tell one loss from another


class WatchProber(Prober):
    """Without a batch of the user's own, listens to forward passes until ``train`` tells the loss.

    Nothing is guessed: a batch is taken only if the logits handed to ``watch.train`` are what the
    model returned for it, and if the cross-entropy of logits and targets is the loss.

    Args:
        curvature: True for a probe of the usual settings, one of the user's own, or False.
        optimizers: of the watch.

    Raises:
        TypeError: no probe.
        ValueError: no optimizer, or a loss without a batch.
    """

    def __init__(self, curvature: Wanted, optimizers: list[torch.optim.Optimizer]) -> None:
        super().__init__(curvature)
        if self.probe is None:
            return
        if not optimizers:
            raise ValueError("curvature needs the optimizer: watch(model, optimizer, ...).")
        if self.own_loss and self.probe.batch is None:
            raise ValueError(f"the probe has a loss_fn but no batch for it; {HOW}.")
        self._seen: tuple[Any, weakref.ref[torch.Tensor]] | None = None

    def watch(
        self,
        model: torch.nn.Module,
        optimizers: list[torch.optim.Optimizer],
        ranks: Ranks,
        outlet: Outlet,
    ) -> None:
        """Measure when the first optimizer steps, on the rank that judges."""
        for first in optimizers[:1]:
            takes = lambda: ranks.judges and outlet.works()  # noqa: E731
            self.start(model, first, takes, lambda: outlet.monitor.verdict, outlet.fault)
        if self.lacks_batch:
            # A compiler that traced it would compile anew.
            hook: Any = torch.compiler.disable(self._listen)  # type: ignore[no-untyped-call]
            self.until_close(model.register_forward_hook(hook, with_kwargs=True).remove)

    def _listen(self, _: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        trains = isinstance(output, torch.Tensor) and output.requires_grad
        if trains and self.lacks_batch and self._takes():
            try:
                from grokwatch.geometry._batches import each_tensor

                # A buffer may be reused before the loss is told.
                given = {"args": tuple(args), "kwargs": dict(kwargs)}
                inputs = each_tensor(given, lambda tensor: tensor.detach().clone())
                self._seen = inputs, weakref.ref(output)
            except Exception as error:
                self.fail(error)

    def offer(self, loss: Any, logits: Any, targets: Any) -> None:
        """Take the batch of the last forward pass, or tell why not; what ``watch.train`` got."""
        try:
            batch = self._caught(loss, logits, targets)
        except Exception as error:
            self.fail(error)
            return
        if batch is not None:
            self._seen = None
            self.take_batch(batch, caught_loss)

    def _caught(self, loss: Any, logits: Any, targets: Any) -> dict[str, Any] | None:
        ask = f"curvature=True cannot tell the loss of a batch: {{}}; {HOW}."
        if loss is None or logits is None or targets is None:
            raise ValueError(ask.format("watch.train must be given loss, logits and targets"))
        last = None if self._seen is None else self._seen[1]()
        if self._seen is None or last is None or last is not logits:
            raise ValueError(ask.format("the logits are not what the model returned last"))
        if targets.is_floating_point() or last.shape[:-1] != targets.shape:
            raise ValueError(ask.format("the targets are not one class for each row of logits"))
        with torch.no_grad():
            told, rows = float(loss), last.flatten(0, -2).float()
            found = float(cross_entropy(rows, targets.flatten()))
            flat = float(rows.std()) < _FLAT
        half = getattr(loss, "dtype", None) in (torch.float16, torch.bfloat16)
        if not abs(found - told) <= (0.01 if half else _SAME) * abs(told) + 1e-9:
            why = f"it is {told:.6g}, the cross-entropy of logits and targets is {found:.6g}"
            raise ValueError(ask.format(why))
        return None if flat else {**self._seen[0], "targets": targets}


def caught_loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    """The cross-entropy of a batch that was caught."""
    logits: torch.Tensor = model(*batch["args"], **batch["kwargs"])
    return cross_entropy(logits.flatten(0, -2), batch["targets"].flatten())
