"""What a fitted jump says, and whether it is one to rely on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from grokwatch.signals.erf_guess import FloatArray
from grokwatch.signals.erf_solver import Jumps, Mask

#: A residual this small beside the rise is rounding: accuracies are float32.
EXACT = 1e-6


@dataclass(frozen=True, slots=True)
class ErfFit:
    """One fitted jump; a curve without any variation has a NaN time and zero sharpness.

    Times have the unit of ``t``, sharpness is its inverse, the rest are fractions of 1 or counts.
    Errors are least-squares standard errors: they assume independent residuals.
    """

    time: float  #: t*, when half of the rise is over
    sharpness: float  #: s > 0; the rise takes about 2 / s
    time_error: float
    sharpness_error: float
    low: float  #: level before the jump, fitted or given
    high: float  #: level after the jump; below ``low`` for a falling curve
    r2: float
    parabola_r2: float  #: R^2 of a parabola through the same points
    noise: float  #: root mean square residual
    residual_autocorrelation: float  #: lag 1; near 1 the curve has a shape that erf has not
    rise_points: int  #: points within 1 / s of t*
    start: float  #: first time
    end: float  #: last time
    n: int

    @property
    def amplitude(self) -> float:
        """The rise in accuracy, ``high - low``."""
        return self.high - self.low

    @property
    def doubt(self) -> str:
        """Why this is no S-shape to rely on, in words; empty when it is one."""
        if not self.sharpness > 0.0:
            return "the accuracy does not vary"
        if self.amplitude <= 0.0:
            return "the accuracy falls"
        if not self.start < self.time < self.end:
            return "the middle of the rise lies outside the data"
        # Autocorrelated residuals carry fewer independent points than there are.
        rho = min(max(self.residual_autocorrelation, 0.0), 0.9)
        inflation = math.sqrt((1.0 + rho) / (1.0 - rho))
        before = math.erf(self.sharpness * (self.start - self.time))
        after = math.erf(self.sharpness * (self.end - self.time))
        reasons = (
            (before > -0.7, "the level before the rise was not seen"),
            (after < 0.7, "the rise is not over"),
            (self.rise_points < 3, "fewer than 3 points fall on the rise"),
            (self.amplitude < 6.0 * self.noise, "the rise does not stand out of the noise"),
            (self.r2 < 0.8, "the curve fits badly"),
            (1.0 - self.r2 > 0.5 * (1.0 - self.parabola_r2), "a parabola fits about as well"),
            (self.time_error * self.sharpness * inflation > 0.25, "the time is uncertain"),
            (self.sharpness_error * inflation > 0.5 * self.sharpness, "the width is uncertain"),
        )
        return next((reason for wrong, reason in reasons if wrong), "")

    @property
    def s_shaped(self) -> bool:
        """Whether the data show a whole, well resolved S-shaped rise; if not, see ``doubt``."""
        return not self.doubt


@dataclass(frozen=True, slots=True)
class TwoErfFit:
    """A rise in two steps with a plateau between them; ``r2`` is of the whole curve."""

    first: ErfFit
    second: ErfFit
    r2: float
    bic_gain: float  #: BIC of one jump less BIC of two

    @property
    def main(self) -> ErfFit:
        """The larger jump: the one that crosses the middle of the whole range."""
        return self.first if self.first.amplitude > self.second.amplitude else self.second


def describe(
    t: FloatArray, y: FloatArray, w: FloatArray, fit: Jumps, jump: int, part: Mask | None = None
) -> ErfFit:
    """The figures of one jump of a fitted curve, judged on the points of ``part`` (None: all)."""
    keep = np.full(len(t), True) if part is None else part
    t, y, w, residual = t[keep], y[keep], w[keep], fit.residual[keep]
    width = float(fit.widths[jump])
    time, sharpness = float(fit.centres[jump]), 1.0 / width
    low, high = float(fit.levels[jump]), float(fit.levels[jump + 1])
    cost = float(w @ residual**2)
    noise = math.sqrt(cost / float(w.sum()))
    return ErfFit(
        time=time,
        sharpness=sharpness,
        time_error=float(fit.centre_errors[jump]),
        sharpness_error=float(fit.width_errors[jump]) * sharpness,
        low=low,
        high=high,
        r2=r_squared(cost, y, w),
        parabola_r2=r_squared(_parabola_cost(t, y, w), y, w),
        noise=noise,
        residual_autocorrelation=_autocorrelation(residual * np.sqrt(w))
        if noise > EXACT * abs(high - low)
        else 0.0,
        rise_points=int(np.count_nonzero(np.abs(t - time) <= width)),
        start=float(t[0]),
        end=float(t[-1]),
        n=len(t),
    )


def r_squared(cost: float, y: FloatArray, w: FloatArray) -> float:
    """1 - cost / weighted variation of ``y``; 0 where it does not vary."""
    variation = float(w @ (y - np.average(y, weights=w)) ** 2)
    return 1.0 - cost / variation if variation > 0.0 else 0.0


def _parabola_cost(t: FloatArray, y: FloatArray, w: FloatArray) -> float:
    """Weighted sum of squared residuals of the best parabola: a rise without two plateaus."""
    x = (t - t[0]) / (t[-1] - t[0] or 1.0)
    root = np.sqrt(w)
    rest, directions = root * y, list[FloatArray]()
    for power in (root, root * x, root * x * x):
        new = power - sum((d @ power) * d for d in directions)
        length = float(np.sqrt(new @ new))
        if length > 1e-9 * float(np.sqrt(power @ power)):
            directions.append(new / length)
            rest = rest - (directions[-1] @ rest) * directions[-1]
    return float(rest @ rest)


def _autocorrelation(residual: FloatArray) -> float:
    """Lag-1 autocorrelation about the mean."""
    r = residual - residual.mean()
    total = float(r @ r)
    return float(r[:-1] @ r[1:]) / total if total > 0.0 else 0.0
