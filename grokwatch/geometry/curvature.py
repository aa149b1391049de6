"""Both ends of the Hessian's spectrum at the present weights, within a budget of products."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from grokwatch.geometry._edge import Edge, measure_edge
from grokwatch.geometry._ends import UNKNOWN, End
from grokwatch.geometry._hvp import HessianProduct, Params, trainable
from grokwatch.geometry._lanczos import lanczos
from grokwatch.geometry._power import power
from grokwatch.geometry._preserve import Mode
from grokwatch.geometry._protect import untouched
from grokwatch.geometry._pyhessian import dominant

Method = Literal["lanczos", "power", "pyhessian"]
_NOISE = 0.3  # norm of the random part of a warm start; see docs/curvature.md


@dataclass(frozen=True)
class WarmStart:
    """Where the next probe may begin: the eigenvectors found last, of shape (n,) each.

    Attributes:
        v_max: unit eigenvector of λ_max.
        v_min: unit eigenvector of λ_min.
        v_edge: that of the preconditioned λ_max, if it was measured.
        probes: number of probes behind it; varies the random part.
    """

    v_max: Tensor
    v_min: Tensor
    v_edge: Tensor | None = None
    probes: int = 1


@dataclass(frozen=True)
class Curvature:
    """Result of :func:`hessian_extremes`; what could not be measured is NaN and not resolved.

    Attributes:
        lambda_max: largest eigenvalue of the Hessian of the loss.
        lambda_min: smallest one.
        residual_max: ‖Hv − λv‖ for v the unit eigenvector found: some eigenvalue is this near.
        residual_min: the same at the lower end.
        resolved_max: λ_max is positive and known to about 1 %.
        resolved_min: λ_min is negative for certain and known to about 10 %. False says nothing
            about its sign; |λ_min| is then small against λ_max, see docs/curvature.md.
        n_hvp: Hessian-vector products spent.
        seconds: wall-clock time taken.
        batch: name of the data it was measured on.
        mode: "eval", "train" or "mixed": how the modules ran; "" if none was called.
        method: how it was measured.
        loss: the loss there.
        warm: whether it began at the eigenvectors of an earlier probe.
        edge: nearness to the optimiser's edge of stability, if asked for.
        state: pass it to the next call for a warm start; holds the eigenvectors.
    """

    lambda_max: float
    lambda_min: float
    residual_max: float
    residual_min: float
    resolved_max: bool
    resolved_min: bool
    n_hvp: int
    seconds: float
    batch: str
    mode: str
    method: str
    loss: float
    warm: bool
    edge: Edge | None = None
    state: WarmStart | None = field(default=None, repr=False, compare=False)

    @property
    def ratio(self) -> float:
        """λ_min/λ_max, which Notsawo et al. call the condition number; NaN if λ_max is 0."""
        return self.lambda_min / self.lambda_max if self.lambda_max else math.nan


def hessian_extremes(
    loss_fn: Callable[[], Tensor],
    params: Params,
    n_hvp: int = 16,
    method: Method = "lanczos",
    state: WarmStart | None = None,
    *,
    model: torch.nn.Module | None = None,
    mode: Mode = "eval",
    optimizer: torch.optim.Optimizer | None = None,
    batch: str = "",
    seed: int = 0,
) -> Curvature:
    """Measure the largest and the smallest eigenvalue of the Hessian of a loss.

    Nothing is left behind: parameters, ``.grad``, random numbers, buffers, modes and hooks stay
    as they are. It works under no_grad and autocast (which is off inside) and with compiled
    models, whose original code then runs. Memory: the loss's graph and n_hvp vectors of the
    size of the parameters. Forward hooks of the model do see the probe. Weight decay is not
    part of the loss unless loss_fn adds it.

    Args:
        loss_fn: returns the scalar loss of the probe batch; called once.
        params: tensors, named parameters, or the module; frozen ones are left out, tied ones
            counted once.
        n_hvp: Hessian-vector products to spend on each spectrum, at least 2: 16 from nothing,
            8 from a recent state.
        method: "lanczos"; "power", what the papers did: λ_max only, in practice; "pyhessian",
            the eigenvalue of largest magnitude by that library.
        state: of an earlier result on the same parameters; None = from the gradient, with signs
            turned, and a random vector.
        model: the module that loss_fn runs, if it should be set to ``mode`` meanwhile.
        mode: "eval" or "train", for ``model``; "keep" leaves it as it is.
        optimizer: adds :class:`Edge`; for Adam that is a second spectrum of n_hvp products.
        batch: name of the data, kept with the result.
        seed: of the random vectors and of dropout; the process's own generator is not used.

    Raises:
        TypeError: loss_fn does not return a tensor, or params are none.
        ValueError: a setting or the loss makes no sense, or the state is of another size.
        RuntimeError: under inference_mode, or loss_fn calls a DistributedDataParallel model.
        ModuleNotFoundError: PyHessian is asked for and not installed.

    Source: Notsawo et al. 2023 (arXiv:2306.13253), section 4; Lanczos 1950.

    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> found = hessian_extremes(lambda: 3 * x[0] ** 2 - x[1] ** 2, [x])
    >>> round(found.lambda_max, 4), round(found.lambda_min, 4), found.n_hvp
    (6.0, -2.0, 2)
    >>> found.resolved_max, found.resolved_min, round(found.ratio, 4)
    (True, True, -0.3333)
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be in {get_args(Method)} but got {method!r}.")
    if n_hvp < 2:
        raise ValueError(f"n_hvp must be at least 2 but got {n_hvp}.")
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be in {get_args(Mode)} but got {mode!r}.")
    began = time.perf_counter()
    chosen = trainable(params)
    n = sum(p.numel() for p in chosen)
    if state is not None and state.v_max.numel() != n:
        raise ValueError(
            f"the state is of {state.v_max.numel()} parameters but there are {n}; start with "
            f"state=None."
        )
    probes = 0 if state is None else state.probes
    generator = torch.Generator().manual_seed(seed * 1_000_003 + probes)
    edge, next_state = None, None
    with untouched(chosen, model, mode, seed) as modules:
        hessian = HessianProduct(loss_fn, chosen)
        with torch.no_grad():
            top, bottom = _ends(hessian, n_hvp, method, state, generator)
            if optimizer is not None and top.vector is not None:
                v_edge = None if state is None else state.v_edge
                start = _start(hessian, generator, v_edge)
                edge = measure_edge(hessian, optimizer, top, start, n_hvp, generator)
    vectors = [end.vector for end in (top, bottom) if end.vector is not None]
    if vectors:
        v_edge = None if edge is None else edge.vector
        next_state = WarmStart(vectors[0], vectors[-1], v_edge, probes + 1)
    return Curvature(
        lambda_max=top.value,
        lambda_min=bottom.value,
        residual_max=top.residual,
        residual_min=bottom.residual,
        resolved_max=top.resolved,
        resolved_min=bottom.resolved,
        n_hvp=hessian.count,
        seconds=time.perf_counter() - began,
        batch=batch,
        mode=modules.mode,
        method=method,
        loss=hessian.loss,
        warm=state is not None and method != "pyhessian",
        edge=None if edge is None else replace(edge, vector=None),
        state=next_state,
    )


def _ends(
    hessian: HessianProduct,
    n_hvp: int,
    method: Method,
    state: WarmStart | None,
    generator: torch.Generator,
) -> tuple[End, End]:
    if not math.isfinite(hessian.loss):
        return UNKNOWN, UNKNOWN
    if method == "pyhessian":
        return dominant(hessian, n_hvp)
    if method == "power":
        if state is None:  # at random, as the papers did
            return power(hessian, (hessian.draw(generator), hessian.draw(generator)), n_hvp)
        v_max, v_min = (_start(hessian, generator, v) for v in (state.v_max, state.v_min))
        return power(hessian, (v_max, v_min), n_hvp)
    # λ_max is found from almost anywhere, so that most of the start goes to λ_min.
    known = None if state is None else state.v_max + 4 * state.v_min
    return lanczos(hessian, _start(hessian, generator, known), n_hvp, generator)


def _start(hessian: HessianProduct, generator: torch.Generator, known: Tensor | None) -> Tensor:
    """A vector to begin from, always with a random part: what it lacks would never be found."""
    noise = hessian.draw(generator)
    if known is not None:
        return known.to(noise) + _NOISE * noise
    gradient = hessian.alternating()
    return noise if gradient is None else noise + gradient
