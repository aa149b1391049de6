"""Closed forms of grokking at the edge of linear separability (Beck et al. 2024), and integration.

Label -1 throughout: f = S·x + b has to become negative, so b falls.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import nnls
from scipy.special import lambertw
from scipy.stats import binom

_Z = np.linspace(-10.0, 10.0, 4001)
_NORMAL = np.exp(-(_Z**2) / 2) / math.sqrt(2 * math.pi) * (_Z[1] - _Z[0])


def generalisation_accuracy(norm: float, bias: float, sigma: float) -> float:
    """Share of fresh points on the right side, ½[1 - erf(b / (√2 σ‖S‖))] (Eq. 6).

    >>> round(generalisation_accuracy(1.0, -1.0, 1.0), 4)
    0.8413
    """
    if norm == 0.0:
        return 0.5 if bias == 0.0 else float(bias < 0.0)
    return 0.5 * math.erfc(bias / (math.sqrt(2) * sigma * norm))


def generalisation_loss(norm: float, bias: float, sigma: float) -> float:
    """Expected log(1 + e^(σ‖S‖z + b)) over z ~ N(0, 1), by the trapezoidal rule (Eq. 5).

    >>> round(generalisation_loss(0.0, 0.0, 1.0), 6)  # log 2
    0.693147
    """
    return float(np.logaddexp(0.0, sigma * norm * _Z + bias) @ _NORMAL)


def limiting_accuracy(margin: float, sigma: float) -> float:
    """Accuracy that a separable set leads to, ½[1 + erf(1 / (√2 σ M))], M the margin at σ = 1.

    >>> round(limiting_accuracy(1.0, 1.0), 4)
    0.8413
    """
    return 0.5 * (1 + math.erf(1 / (math.sqrt(2) * sigma * margin)))


def separable_probability(n: int, d: int) -> float:
    """Chance that n isotropic points of d dimensions lie in one half-space (Wendel 1962, Eq. 19).

    >>> round(separable_probability(400, 192), 5), round(separable_probability(4000, 1980), 5)
    (0.21158, 0.26352)
    """
    return float(binom.cdf(d - 1, n - 1, 0.5))


def margin(x: np.ndarray) -> float:
    """Distance of the origin from the convex hull of the rows of x, shape (n, d); 0 if inside.

    >>> margin(np.array([[1.0, -3.0], [1.0, 5.0]])), margin(np.array([[1.0], [-2.0]]))
    (1.0, 0.0)
    """
    # With a = s·w, w in the simplex, s²‖xᵀw‖² + (s - 1)² is least where ‖xᵀw‖ is.
    target = np.append(np.zeros(x.shape[1]), 1.0)
    a, residual = nnls(np.vstack([x.T, np.ones(len(x))]), target, maxiter=30 * max(x.shape))
    return float(np.linalg.norm(x.T @ a) / a.sum()) if residual > 1e-9 else 0.0


def exact(lam: float, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S and b of the two-point model at σ = 1, η = 1 and λ = 0, ½ or 1 (Eqs. 33, 36 and 37).

    >>> [round(float(v[0]), 3) for v in exact(1.0, np.array([1e6]))]
    [7.254, -7.254]
    """
    if lam == 0.0:
        return np.zeros_like(t), -np.log1p(t)
    if lam == 0.5:
        u = lambertw(t / 2).real
        return np.log1p(u), -u - np.log1p(u)
    if lam == 1.0:
        s = np.log1p(2 * t) / 2
        return s, -s
    raise ValueError(f"lam must be 0, 0.5 or 1, where a solution is known, but got {lam}.")


def two_points(lam: float, sigma: float, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """σS and b of the two-point model at times t, by integration; η = 1.

    >>> s, b = two_points(0.3, 10.0, np.array([1e8]))
    >>> round(float(s[0]), 4)  # -log(1-2λ) / (2(1-λ))
    0.6545
    """
    path = _integrate(lam, sigma, math.log1p(2 * float(t.max())) + 12)
    betas = np.linspace(0, path.t[-1], 50_001)
    v = path.sol(betas)[1]
    # v = t·e^-β, so that nothing overflows; the first point is t = 0.
    at = np.interp(np.log(t), betas[1:] + np.log(v[1:]), betas[1:])
    return path.sol(at)[0], -at


def grokking_ratio(lam: float, sigma: float, threshold: float = 1e-4) -> float:
    """log(t_gen/t_tr): when generalisation and training loss fall below a threshold for good.

    Exponential losses, as in appendix E.3; fresh points are x ~ N(0, σ²).

    >>> round(grokking_ratio(0.45, 100.0) ** 0.5, 2)
    1.61
    """
    x = np.array([-1.0, 1 - 2 * lam])
    path = _integrate(lam, sigma, -math.log(threshold) + math.log(1 - 2 * lam) ** 2 + 10)
    betas = np.linspace(0, path.t[-1], 50_001)
    s, v = path.sol(betas)
    train = np.log(np.exp(np.outer(x, s)).mean(0)) - betas
    general = s**2 / 2 - betas
    log_t = betas + np.log(np.maximum(v, 1e-300))
    first, last = (np.flatnonzero(one > math.log(threshold))[-1] for one in (train, general))
    return float(log_t[last] - log_t[first])


def _integrate(lam: float, sigma: float, until: float) -> Any:
    """Gradient flow of ½ Σ e^(Sx_i + b) in β = -b, which grows steadily: σS, and t·e^-β."""
    x = np.array([-1.0, 1 - 2 * lam])

    def slope(_: float, y: np.ndarray) -> list[float]:
        terms = np.exp(y[0] * x) / 2
        loss = terms.sum()
        return [-(sigma**2) * float(x @ terms) / loss, 1 / loss - y[1]]

    return solve_ivp(
        slope, (0, until), [0.0, 0.0], method="LSODA", rtol=1e-9, atol=1e-11, dense_output=True
    )
