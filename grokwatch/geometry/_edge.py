"""How near training is to its optimiser's edge of stability."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from grokwatch.geometry._ends import End
from grokwatch.geometry._hvp import HessianProduct
from grokwatch.geometry._lanczos import lanczos


@dataclass(frozen=True)
class Edge:
    """The sharpness that the optimiser feels against the most that it can bear.

    Attributes:
        lambda_max: largest eigenvalue of P^(-1/2) H P^(-1/2); P is Adam's preconditioner, or 1.
        threshold: above it a quadratic bowl throws the optimiser out.
        resolved: lambda_max is known to about 1 %.
    """

    lambda_max: float
    threshold: float
    resolved: bool
    vector: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def fraction(self) -> float:
        """1 = at the edge; above, the step is locally unstable."""
        return self.lambda_max / self.threshold


def stability_limit(group: dict[str, Any]) -> float | None:
    """Largest stable learning rate times sharpness of a parameter group; None if not known.

    Gradient descent 2; with momentum μ, 2 + 2μ; Nesterov's, (2 + 2μ)/(1 + 2μ); Adam, whose
    momentum is an average, (2 + 2β₁)/(1 − β₁).

    Source: Cohen et al. 2021 (arXiv:2103.00065), appendix B; 2022 (arXiv:2207.14484).

    >>> stability_limit({"lr": 0.1, "momentum": 0.0}), stability_limit({"momentum": 0.9})
    (2.0, 3.8)
    >>> round(stability_limit({"betas": (0.9, 0.999)}), 6)
    38.0
    """
    if "betas" in group:
        beta = float(group["betas"][0])
        return (2 + 2 * beta) / (1 - beta)
    if "momentum" not in group:
        return None
    momentum = float(group["momentum"])
    limit = 2 + 2 * momentum
    if momentum and group.get("nesterov"):
        return limit / (1 + 2 * momentum)
    return limit / (1 - float(group.get("dampening", 0.0))) if momentum else limit


def is_free(optimizer: torch.optim.Optimizer | None, params: list[Tensor]) -> bool:
    """Whether the edge is λ_max itself over a limit: SGD of one rate on all the parameters."""
    if not isinstance(optimizer, torch.optim.SGD):
        return False
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    one = len({float(group["lr"]) for group in optimizer.param_groups}) == 1
    return one and all(id(p) in held for p in params)


def measure_edge(
    hessian: HessianProduct,
    optimizer: torch.optim.Optimizer,
    top: End,
    start: Tensor,
    n_hvp: int,
    generator: torch.Generator,
) -> Edge | None:
    """Measure the edge for SGD, Adam and AdamW; None for others and before Adam's first step.

    Weight decay is left out. With several groups their learning rates enter the preconditioner
    relative to the first one's.

    Args:
        hessian: the product.
        optimizer: as it stands before its next step.
        top: upper end of the plain spectrum, which is all that SGD with one rate needs.
        start: where to begin otherwise.
        n_hvp: products to spend.
        generator: source of random vectors.
    """
    groups = optimizer.param_groups
    first = float(groups[0]["lr"])
    limits = [stability_limit(group) for group in groups]
    adam = isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW))
    known = adam or isinstance(optimizer, torch.optim.SGD)
    if not known or first <= 0 or any(group.get("maximize") for group in groups):
        return None
    threshold = min(limit for limit in limits if limit is not None) / first
    pieces: dict[int, Tensor] = {}
    for group in groups:
        for p in group["params"]:
            relative = torch.full_like(p, float(group["lr"]) / first, dtype=hessian.dtype)
            if adam:
                relative = relative * _inverse(p, group, optimizer.state.get(p, {}))
            pieces[id(p)] = relative.reshape(-1)
    if not any(bool(piece.any()) for piece in pieces.values()):
        return None
    # What the optimiser does not hold does not move.
    parts = [pieces.get(id(p), torch.zeros(p.numel())).to(start) for p in hessian.params]
    squared = torch.cat(parts)
    if bool((squared == 1).all()):
        return Edge(top.value, threshold, top.resolved, top.vector)
    end, _ = lanczos(hessian, start, n_hvp, generator, squared.sqrt())
    return None if math.isnan(end.value) else Edge(end.value, threshold, end.resolved, end.vector)


def _inverse(p: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    """1/P of Adam: P = (1 − β₁^t)(√(v/(1 − β₂^t)) + ε); 0 where no step has been taken."""
    if "exp_avg_sq" not in state:
        return torch.zeros_like(p)
    steps = float(state["step"])
    beta1, beta2 = (float(beta) for beta in group["betas"])
    second = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    root = (second.detach() / (1 - beta2**steps)).sqrt() + float(group["eps"])
    inverse: Tensor = 1 / ((1 - beta1**steps) * root)
    return inverse
