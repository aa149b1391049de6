"""PyHessian's own power iteration, kept away from the model it would change."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from grokwatch.geometry._ends import UNKNOWN, End, judge
from grokwatch.geometry._hvp import HessianProduct

_TOLERANCE = 1e-3  # PyHessian's default: relative change at which it stops


def dominant(hessian: HessianProduct, steps: int) -> tuple[End, End]:
    """Find the eigenvalue of largest magnitude with PyHessian; the other end stays unknown.

    PyHessian 0.1 leaves a model in eval mode, overwrites its gradients, leaks its graph and
    fails on unused parameters. Here it gets a stand-in of one flat parameter, and its
    data-loader product is answered by ours, so that nothing of the real model is in its reach.

    Args:
        hessian: the product.
        steps: products to spend at most, at least 2; the last one measures the residual.

    Raises:
        ModuleNotFoundError: PyHessian is not installed.

    Source: Yao et al. 2020, PyHessian: Neural Networks Through the Lens of the Hessian.
    """
    solver = _solver(_import(), hessian)
    _, vectors = solver.eigenvalues(maxIter=steps - 1, tol=_TOLERANCE, top_n=1)
    v = vectors[0][0].to(hessian.device, hessian.dtype)
    v = v / torch.linalg.vector_norm(v)
    product = hessian(v)
    value = float(v @ product)
    if not math.isfinite(value):
        return UNKNOWN, UNKNOWN
    residual = float(torch.linalg.vector_norm(product - value * v))
    noise = torch.finfo(hessian.dtype).eps * abs(value)
    complete = hessian.n == 1
    end = End(value, residual, judge(value, residual, noise, top=value > 0, complete=complete), v)
    return (end, UNKNOWN) if value > 0 else (UNKNOWN, end)


def _import() -> ModuleType:
    try:
        import pyhessian
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "method='pyhessian' needs PyHessian: pip install 'grokwatch[pyhessian]'."
        ) from None
    module: ModuleType = pyhessian
    return module


def _solver(pyhessian: ModuleType, hessian: HessianProduct) -> Any:
    class Solver(pyhessian.hessian):  # type: ignore[misc,name-defined]
        def dataloader_hv_product(self, v: list[Tensor]) -> tuple[float, list[Tensor]]:
            at = v[0].to(hessian.device, hessian.dtype)
            product = hessian(at)
            return float(at @ product), [product.to(v[0])]

    stand_in = torch.nn.Module()
    stand_in.register_parameter("flat", torch.nn.Parameter(torch.zeros(hessian.n)))
    # With a data loader its constructor runs no backward pass of its own.
    return Solver(stand_in, criterion=None, dataloader=[], cuda=False)
