"""Power iteration: the dominant eigenvalue, then the other end of the shifted spectrum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grokwatch.geometry._ends import UNKNOWN, End, judge
from grokwatch.geometry._hvp import HessianProduct


def power(hessian: HessianProduct, starts: tuple[Tensor, Tensor], steps: int) -> tuple[End, End]:
    """Find both ends by plain power iteration, half of the products for each.

    The first half finds the eigenvalue μ of largest magnitude, the second the one of H − μI,
    which is the other end. This is what the grokking papers did. It converges like
    (second/first)^(2k): well for λ_max; for a small λ_min it would take thousands of products.

    Args:
        hessian: the product.
        starts: a vector of shape (n,) for each half.
        steps: products to spend, at least 2.

    Returns:
        The upper and the lower end; unknown if a product is not finite.
    """
    pairs: list[tuple[float, float, Tensor]] = []
    shift = 0.0
    for start, share in zip(starts, (steps - steps // 2, steps // 2), strict=True):
        v = start
        for k in range(share):
            v = v / torch.linalg.vector_norm(v)
            product = hessian(v)
            value = float(v @ product)
            if not math.isfinite(value):
                return UNKNOWN, UNKNOWN
            residual = float(torch.linalg.vector_norm(product - value * v))
            shifted = product - shift * v
            if k + 1 == share or not shifted.any():
                break
            v = shifted
        pairs.append((value, residual, v))
        shift = value
    noise = torch.finfo(hessian.dtype).eps * abs(pairs[0][0])
    upper, lower = max(pairs, key=lambda p: p[0]), min(pairs, key=lambda p: p[0])
    top = judge(upper[0], upper[1], noise, top=True, complete=hessian.n == 1)
    bottom = judge(lower[0], lower[1], noise, top=False, complete=hessian.n == 1)
    return End(upper[0], upper[1], top, upper[2]), End(lower[0], lower[1], bottom, lower[2])
