"""Symmetric Lanczos with full reorthogonalisation: both ends of a spectrum at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from grokwatch.geometry._ends import UNKNOWN, End, judge
from grokwatch.geometry._hvp import HessianProduct


def lanczos(
    hessian: HessianProduct,
    start: Tensor,
    steps: int,
    generator: torch.Generator,
    scale: Tensor | None = None,
) -> tuple[End, End]:
    """Find the largest and the smallest eigenvalue that a Krylov space shows.

    The vectors keep the precision of the parameters; the tridiagonal matrix is float64. Where
    the space is exhausted early (few parameters, few distinct eigenvalues, a zero Hessian) the
    iteration goes on from a random vector orthogonal to it.

    Args:
        hessian: the product.
        start: any vector of shape (n,) but zero.
        steps: products to spend; n are enough.
        generator: source of random vectors.
        scale: None, or a vector s of shape (n,): the matrix is then diag(s) H diag(s).

    Returns:
        The upper and the lower end; unknown if a product is not finite.

    Source: Lanczos 1950; Golub and Van Loan, Matrix Computations, 10.1 to 10.3.
    """
    steps = min(steps, hessian.n)
    basis = torch.empty(steps, hessian.n, dtype=hessian.dtype, device=hessian.device)
    diagonal, coupling = np.zeros(steps), np.zeros(steps)
    rounding = torch.finfo(hessian.dtype).eps
    asymmetry, largest = 0.0, 0.0
    q = start / _norm(start)
    for k in range(steps):
        basis[k] = q
        w = hessian(q) if scale is None else scale * hessian(scale * q)
        size = _norm(w)
        if not np.isfinite(size):
            return UNKNOWN, UNKNOWN
        largest = max(largest, size)
        known = basis[: k + 1]
        parts = _project_out(w, known)
        diagonal[k] = parts[k]
        # Were the products exact, only the last two parts would differ from zero.
        parts[k] = 0.0
        if k:
            parts[k - 1] -= coupling[k - 1]
        asymmetry = float(np.hypot(asymmetry, np.linalg.norm(parts)))
        coupling[k] = _norm(w)
        if coupling[k] > 10 * rounding * largest:
            q = w / coupling[k]
        else:
            coupling[k] = 0.0
            if k + 1 < steps:
                q = _fresh(hessian, known, generator)
    matrix = np.diag(diagonal) + np.diag(coupling[:-1], 1) + np.diag(coupling[:-1], -1)
    values, vectors = np.linalg.eigh(matrix)
    residuals = np.hypot(coupling[-1] * np.abs(vectors[-1]), asymmetry)
    noise = max(asymmetry, rounding * float(np.abs(values).max()))
    ends = []
    for top, i, neighbour in ((True, steps - 1, steps - 2), (False, 0, 1)):
        gap = abs(float(values[i] - values[neighbour])) if steps > 1 else 0.0
        value, residual = float(values[i]), float(residuals[i])
        complete = steps == hessian.n
        resolved = judge(value, residual, noise, top=top, gap=gap, complete=complete)
        mix = torch.from_numpy(vectors[:, i].copy()).to(basis)
        ends.append(End(value, residual, resolved, mix @ basis))
    return ends[0], ends[1]


def _norm(vector: Tensor) -> float:
    # In float64: the squares of a tiny Hessian's entries would vanish in float32.
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))


def _project_out(w: Tensor, known: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Take the parts along the rows of ``known`` out of w, in place, and return them."""
    total = torch.zeros(len(known), dtype=torch.float64)
    for _ in range(2):  # twice is enough: what rounding leaves of the first pass
        parts = known @ w
        w.addmv_(known.T, parts, alpha=-1)
        total += parts.to(total)
    array: np.ndarray[tuple[int], np.dtype[np.float64]] = total.numpy()
    return array


def _fresh(hessian: HessianProduct, known: Tensor, generator: torch.Generator) -> Tensor:
    vector = hessian.draw(generator)
    _project_out(vector, known)
    return vector / _norm(vector)
