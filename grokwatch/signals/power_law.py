"""The training budget as a power law of the data fraction (Notsawo et al. 2023, App. E)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_STEEPEST = 30.0  # largest gamma: the steepest known is below 8


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """t4(r) = a * r^-gamma + b, with r the data fraction in percent.

    >>> addition = PowerLaw(gamma=7.73, a=1.09e15, b=1442.63)  # the paper's modular addition
    >>> round(addition.predict(30.0)), addition.stop_step(30.0)
    (5604, 6605)
    """

    gamma: float
    a: float  #: steps
    b: float  #: steps
    r2: float = math.nan  #: of ln t4; NaN where nothing was fitted

    def predict(self, r_percent: float) -> float:
        """The step t4 at which a run on ``r_percent`` of the data generalises.

        Raises:
            ValueError: if ``r_percent`` lies outside 0..100.
        """
        if not 0.0 < r_percent <= 100.0:
            raise ValueError(f"r_percent must lie in (0, 100] but is {r_percent:g}.")
        return self.a * math.exp(-self.gamma * math.log(r_percent)) + self.b

    def stop_step(self, r_percent: float, margin: float = 1000.0) -> int:
        """The step after which a run that has not generalised may be stopped.

        The paper stops at t4(r) + 1000 (Notsawo et al. 2023, section 2).

        Raises:
            ValueError: if ``r_percent`` lies outside 0..100 or ``margin`` is negative.
        """
        if not margin >= 0.0:
            raise ValueError(f"margin cannot be negative but is {margin:g} steps.")
        return math.ceil(self.predict(r_percent) + margin)


def fit_power_law(r_percent: npt.ArrayLike, t4: npt.ArrayLike) -> PowerLaw:
    """Fit t4(r) = a * r^-gamma + b with 0 <= gamma <= 30, b >= 0 (Notsawo et al. 2023, App. E).

    Least squares on ln t4: generalisation times span decades and scatter in proportion, so that
    plain least squares would see the slowest runs alone.

    Args:
        r_percent: data fractions in percent, shape (n,), at least 3 different ones.
        t4: steps of generalisation, shape (n,), positive; censored runs have none: leave them out.

    Raises:
        ValueError: for shapes that differ, fewer than 3 different fractions, fractions outside
            0..100 or all at most 1 (not percent), or steps that are not positive and finite.

    >>> law = fit_power_law([30, 40, 50, 60, 80], [33426, 23804, 18293, 14752, 10506])
    >>> round(law.gamma, 2), round(law.predict(30), -2), law.b < 10
    (1.18, 33400.0, True)
    """
    r, t = _checked(r_percent, t4)
    from scipy.optimize import least_squares

    middle = math.exp(float(np.log(r).mean()))
    x, z, scale = np.log(r / middle), np.log(t), float(t.min())

    def curve(p: FloatArray) -> tuple[FloatArray, FloatArray]:
        power = np.exp(np.minimum(p[0] - p[1] * x, 600.0))
        return power, power + scale * p[2]

    def residual(p: FloatArray) -> FloatArray:
        return np.asarray(np.log(curve(p)[1]) - z)

    def jacobian(p: FloatArray) -> FloatArray:
        power, total = curve(p)
        return np.stack([power, -x * power, np.full_like(x, scale)], axis=1) / total[:, None]

    fits = []
    for share in (0.0, 0.5, 0.9):  # of the fastest run's t4 that is owed to b
        slope, level = np.polyfit(x, np.log(t - share * scale), 1)
        start = [level, min(max(-slope, 0.01), 0.9 * _STEEPEST), share]
        fits.append(
            least_squares(
                residual,
                start,
                jac=jacobian,
                bounds=([-np.inf, 0.0, 0.0], [float(z.max()) + 30.0, _STEEPEST, np.inf]),
                ftol=1e-14,
                xtol=1e-14,
                gtol=1e-14,
            )
        )
    best = min(fits, key=lambda fit: float(fit.cost))
    level, gamma, share = (float(value) for value in best.x)
    cost = 2.0 * float(best.cost)
    # The bounded search only comes near b = 0; there the problem is a straight line.
    slope, height = (float(value) for value in np.polyfit(x, z, 1))
    line_cost = float(((slope * x + height - z) ** 2).sum())
    if -_STEEPEST <= slope <= 0.0 and line_cost <= cost * (1.0 + 1e-6):
        level, gamma, share, cost = height, -slope, 0.0, line_cost
    variation = float(((z - z.mean()) ** 2).sum())
    r2 = 1.0 - cost / variation if variation > 0.0 else 0.0
    return PowerLaw(gamma, math.exp(level + gamma * math.log(middle)), share * scale, r2)


def _checked(r_percent: npt.ArrayLike, t4: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    r, t = np.asarray(r_percent, dtype=np.float64), np.asarray(t4, dtype=np.float64)
    if r.ndim != 1 or r.shape != t.shape:
        raise ValueError(
            f"r_percent and t4 must be one-dimensional and of one length but their shapes are "
            f"{r.shape} and {t.shape}."
        )
    if not (np.isfinite(t) & (t > 0.0)).all():
        raise ValueError("t4 must be positive and finite; leave out the runs that have none.")
    if not ((r > 0.0) & (r <= 100.0)).all():
        raise ValueError(f"r_percent must lie in (0, 100] but reaches from {r.min()} to {r.max()}.")
    if len(set(r.tolist())) < 3:
        raise ValueError(
            f"a power law needs at least 3 different data fractions but got {len(set(r.tolist()))}."
        )
    if r.max() <= 1.0:
        raise ValueError(f"r_percent is in percent but is at most {r.max():g}; multiply by 100.")
    return r, t
