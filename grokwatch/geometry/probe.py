"""A curvature probe that pays for itself out of a share of the training time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from grokwatch.geometry._batches import each_tensor, size_of, standard_loss
from grokwatch.geometry._edge import is_free
from grokwatch.geometry._hvp import trainable
from grokwatch.geometry._pace import Pace
from grokwatch.geometry._preserve import Mode
from grokwatch.geometry.curvature import Curvature, WarmStart, hessian_extremes

WARM, COLD = 8, 16  # Hessian-vector products; docs/curvature.md says what each can resolve
REFRESH = 10  # every so many probes one begins from nothing, lest λ_min lock in


class BatchLoss(Protocol):
    """Computes the scalar loss of a model on a batch."""

    def __call__(self, model: torch.nn.Module, batch: Any) -> Tensor:
        """Return a 0-d tensor with its graph."""


class CurvatureProbe:
    """Measures λ_max and λ_min on a fixed batch, as often as a share of the time allows.

    For adapters, in this order::

        probe.attach(model, optimizer)       # once; probe.batch may be set any time before use
        ...                                  # every optimiser step, before optimizer.step():
        if probe.due():                      # cheap; False until a batch is there
            found = probe.measure()          # raises what the loss raises: switch the probe off
            row = probe.measurements(found)  # {"hessian_max": ..., ...} for the monitor
        probe.request()                      # at a slingshot's onset: measure as soon as possible

    The clock decides when to measure, never what: whatever is measured goes to the monitor as
    recorded observations, so a replay needs no probe. A resumed run begins with a cold probe.

    Args:
        loss_fn: ``loss_fn(model, batch)`` returns the scalar loss. None: for a mapping
            ``model(**batch).loss``; for a pair ``cross_entropy(model(inputs), targets)`` with
            classes last, or the mean squared error if the targets are not integers.
        batch: the fixed data; tensors in it are copied, so that it stays what it was.
        name: of the batch, kept with every result; None = its number of examples.
        budget: share of the training time that probes may take, between 0 and 1.
        n_hvp: Hessian-vector products of a warm and of a cold probe.
        refresh: one of so many probes is cold.
        mode: of the model while probing: "eval", "train" or "keep".
        edge: also measure how near the optimiser is to its edge of stability; with Adam that
            doubles the cost. With plain SGD it costs nothing, and is always measured.
        seed: of random vectors and dropout.
        clock: returns seconds.

    Raises:
        ValueError: a setting outside its range.

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> data = torch.eye(2), torch.zeros(2, 1)
    >>> probe = CurvatureProbe(batch=data).attach(model)
    >>> found = probe.measure()
    >>> round(probe.measurements(found)["hessian_max"], 6), found.batch  # the mean of w1² and w2²
    (1.0, '2 examples')
    """

    def __init__(
        self,
        loss_fn: BatchLoss | None = None,
        *,
        batch: Any = None,
        name: str | None = None,
        budget: float = 0.05,
        n_hvp: tuple[int, int] = (WARM, COLD),
        refresh: int = REFRESH,
        mode: Mode = "eval",
        edge: bool = False,
        seed: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if min(n_hvp) < 2:
            raise ValueError(f"n_hvp must be at least 2 for either start but got {n_hvp}.")
        if refresh < 1:
            raise ValueError(f"refresh must be at least 1 but got {refresh}.")
        self.loss_fn: BatchLoss = loss_fn or standard_loss
        self.batch = batch
        self.name = name
        self.mode, self.edge, self.seed, self.refresh = mode, edge, seed, refresh
        self.warm_hvp, self.cold_hvp = n_hvp
        self._pace = Pace(budget)
        self._clock = clock
        self._model: torch.nn.Module | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._state: WarmStart | None = None
        self._since_cold = 0
        self._requested = False

    def attach(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None
    ) -> CurvatureProbe:
        """Say what is trained; compiled and data-parallel wrappers are taken off."""
        model = getattr(model, "_orig_mod", model)
        if isinstance(model, torch.nn.parallel.DistributedDataParallel):
            model = model.module
        self._model, self._optimizer, self._state = model, optimizer, None
        return self

    @property
    def batch(self) -> Any:
        """The fixed data; set it to copy another."""
        return self._batch

    @batch.setter
    def batch(self, batch: Any) -> None:
        self._batch = each_tensor(batch, lambda t: t.detach().clone())

    def due(self, now: float | None = None) -> bool:
        """Whether the budget has paid for the next probe; call it once per optimiser step.

        Args:
            now: the clock's time in seconds, if at hand.
        """
        if self._model is None or self._batch is None:
            return False
        at = self._clock() if now is None else now
        return self._pace.due(at, self._products(self._cold()), self._requested)

    def request(self) -> None:
        """Ask for a cold probe ahead of its time; the following ones wait until it is paid."""
        self._requested = True

    def measure(self) -> Curvature:
        """Measure now, due or not.

        Raises:
            RuntimeError: no model or no batch yet; and whatever the loss raises.
        """
        model, batch = self._model, self._batch
        if model is None or batch is None:
            lacking = "model: call attach" if model is None else "batch: set probe.batch"
            raise RuntimeError(f"the probe has no {lacking} first.")
        began = self._clock()
        cold = self._cold()
        try:
            params = trainable(model)
            if self._state is not None and self._state.v_max.numel() != sum(
                p.numel() for p in params
            ):
                cold = True  # layers were frozen or thawed
            wanted = self.edge or is_free(self._optimizer, params)
            where = params[0].device
            data = each_tensor(batch, lambda t: t.to(where))
            found = hessian_extremes(
                lambda: self.loss_fn(model, data),
                params,
                self.cold_hvp if cold else self.warm_hvp,
                state=None if cold else self._state,
                model=model,
                mode=self.mode,
                optimizer=self._optimizer if wanted else None,
                batch=self.name or size_of(batch),
                seed=self.seed,
            )
        finally:
            self._requested = False
            self._pace.spent(began, self._clock(), self._products(cold))
        self._since_cold = 1 if cold else self._since_cold + 1
        self._state = found.state
        return found

    def _cold(self) -> bool:
        return self._state is None or self._requested or self._since_cold >= self.refresh

    def _products(self, cold: bool) -> int:
        return (self.cold_hvp if cold else self.warm_hvp) * (2 if self.edge else 1)

    @staticmethod
    def measurements(found: Curvature) -> dict[str, float]:
        """What a monitor should record of a result; what is not finite is left out.

        ``hessian_max``, ``hessian_min``, ``hessian_ratio``, the residuals
        ``hessian_max_residual`` and ``hessian_min_residual``, the flags (0 or 1)
        ``hessian_max_resolved`` and ``hessian_min_resolved``, and, if measured,
        ``hessian_edge`` (1 = at the edge of stability) and ``hessian_edge_resolved``.
        """
        row = {
            "hessian_max": found.lambda_max,
            "hessian_min": found.lambda_min,
            "hessian_ratio": found.ratio,
            "hessian_max_residual": found.residual_max,
            "hessian_min_residual": found.residual_min,
            "hessian_max_resolved": float(found.resolved_max),
            "hessian_min_resolved": float(found.resolved_min),
        }
        if found.edge is not None:
            row["hessian_edge"] = found.edge.fraction
            row["hessian_edge_resolved"] = float(found.edge.resolved)
        return {name: value for name, value in row.items() if abs(value) < float("inf")}
