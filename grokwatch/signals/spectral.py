"""Spectral signature of the loss (Notsawo et al. 2023, arXiv:2306.13253, section 3 and App. F).

The paper's moments ``m_n = ∫ ω^n |F(L)(ω)|² dω`` are, by Parseval, sums of squares of the signal
and of its forward differences; that is how they are computed here (no taper, unit steps, ω in
radians per step). The paper asks for the slow component to be removed first: removing the mean is
the default because the paper's own Figure 6 has the scale of ``var(L[:400])``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from grokwatch.history import FloatArray, Steps, Values, Window
from grokwatch.state import take

Detrend = Literal["mean", "linear", "highpass"]

#: ``highpass`` removes everything slower than this (radians per step): periods above 50 steps.
HIGHPASS_CUTOFF = 2 * np.pi / 50
_LOG_FLOOR = 1e-12
_MIN_POINTS = 8  # a rolling signature of fewer would be mostly window


@dataclass(frozen=True, slots=True)
class Signature:
    """Spectral moments of a window.

    Attributes:
        energy: m0 = Σ x².
        activity: m0 / n; the variance when the mean was removed.
        mobility: √(m2/m0), radians per step.
        complexity: √(m4/m2), radians per step, as the paper prints it.
        hjorth_complexity: complexity / mobility, Hjorth's (1970) own definition.
        frequency: the strongest non-zero frequency, radians per step.
    """

    energy: float
    activity: float
    mobility: float
    complexity: float
    hjorth_complexity: float
    frequency: float


def signature(x: npt.ArrayLike, detrend: Detrend | None = "mean") -> Signature:
    """Spectral signature of a signal sampled at unit steps.

    Args:
        x: the signal, shape (n,), n >= 3, finite.
        detrend: what to remove first: the "mean" (default), a straight line ("linear"), all that
            is slower than :data:`HIGHPASS_CUTOFF` ("highpass"), or nothing (None).

    Raises:
        ValueError: wrong shape, fewer than 3 points, or a NaN or inf.

    A constant signal has no energy; its ratios are reported as 0.

    >>> s = signature(np.cos(np.pi / 2 * np.arange(400)))
    >>> round(s.energy, 9), round(s.activity, 9), round(s.frequency, 6)
    (200.0, 0.5, 1.570796)
    >>> round(s.mobility, 2)   # |1 - e^(-iω)| = √2 at ω = π/2
    1.41
    """
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or values.size < 3:
        raise ValueError(f"x must have shape (n,) with n >= 3 but has shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError("x holds NaN or inf; remove them first.")
    return _signature(remove_trend(values, detrend))


def remove_trend(x: FloatArray, detrend: Detrend | None) -> FloatArray:
    """``x`` without its slow component; see :func:`signature`.

    >>> remove_trend(np.array([1., 2., 3.]), "mean")
    array([-1.,  0.,  1.])
    """
    if detrend is None:
        return x
    if detrend == "mean":
        centred: FloatArray = x - x.mean()
        return centred
    n = x.size
    t = np.arange(n) - (n - 1) / 2
    line: FloatArray = x - x.mean() - t * (t @ x) / (t @ t)
    if detrend == "linear":
        return line
    if detrend == "highpass":  # after the line, whose jump at the ends would leak everywhere
        spectrum = np.fft.rfft(line)
        spectrum[2 * np.pi * np.fft.rfftfreq(n) < HIGHPASS_CUTOFF] = 0.0
        return np.fft.irfft(spectrum, n)
    raise ValueError(f"detrend knows 'mean', 'linear', 'highpass' and None, but got {detrend!r}.")


def _signature(x: FloatArray) -> Signature:
    first = x[1:] - x[:-1]
    second = first[1:] - first[:-1]
    m0, m2, m4 = float(x @ x), float(first @ first), float(second @ second)
    if m0 <= 0.0 or m2 <= 0.0:
        return Signature(m0, m0 / x.size, 0.0, 0.0, 0.0, 0.0)
    spectrum = np.fft.rfft(x)[1:]
    power = spectrum.real**2 + spectrum.imag**2
    mobility, complexity = (m2 / m0) ** 0.5, (m4 / m2) ** 0.5
    return Signature(
        energy=m0,
        activity=m0 / x.size,
        mobility=mobility,
        complexity=complexity,
        hjorth_complexity=complexity / mobility,
        frequency=2 * np.pi * (int(power.argmax()) + 1) / x.size,
    )


def unit_steps(steps: npt.NDArray[np.int64], values: FloatArray) -> FloatArray | None:
    """Values at unit steps, small gaps filled by the last value; None if too much is missing.

    >>> unit_steps(np.array([10, 11, 20]), np.array([1., 2., 3.])) is None
    True
    """
    span = int(steps[-1] - steps[0]) + 1
    if span == steps.size:
        return values
    if steps.size < 0.9 * span:
        return None
    at = np.searchsorted(steps, np.arange(steps[0], steps[-1] + 1), side="right") - 1
    return values[at]


class Spectral:
    """Rolling signature of the training loss and of its log10 over the last ``window`` steps.

    Also keeps the activity of the run's first ``window`` steps, the paper's predictor. Read on
    demand: the window holds the raw values, so nothing drifts, however long the run.

    >>> spectral = Spectral(window=8)
    >>> for step in range(12): spectral.update(step, "train_loss", 1.0 + step % 2)
    >>> spectral.values()["spectral_activity"]
    0.25
    """

    name = "spectral"
    inputs = ("train_loss",)

    def __init__(self, window: int = 400, detrend: Detrend | None = "mean") -> None:
        if window < _MIN_POINTS:
            raise ValueError(f"window must be at least {_MIN_POINTS} steps but got {window}.")
        self.detrend = detrend
        self._window = Window(window)
        self._reset()

    def _reset(self) -> None:
        self._window.clear()
        self._seen = 0
        self._early: float | None = None

    def update(self, step: int, name: str, value: float) -> None:
        """Take one training loss; NaN and inf are left out."""
        self.extend((step,), (value,))

    def extend(self, steps: Steps, values: Values) -> None:
        """Take several, as if one by one."""
        if isinstance(values, np.ndarray):
            kept = np.isfinite(values)
            if not kept.all():
                steps, values = np.asarray(steps)[kept], values[kept]
        else:
            known = [(s, v) for s, v in zip(steps, values, strict=True) if v - v == 0.0]
            if len(known) < len(values):
                steps, values = [s for s, _ in known], [v for _, v in known]
        room = self._window.size - self._seen
        if 0 < room <= len(values):  # the first window fills up inside this batch
            self._window.extend(steps[:room], values[:room])
            x = unit_steps(self._window.steps, self._window.values)
            self._early = None if x is None else _signature(remove_trend(x, self.detrend)).activity
            self._window.extend(steps[room:], values[room:])
        else:
            self._window.extend(steps, values)
        self._seen += len(values)

    def signature(self, log: bool = False) -> Signature | None:
        """The signature now; None for fewer than 8 points, gaps, or the log of a loss <= 0."""
        return self._signature_of(self._recent(), log)

    def _recent(self) -> FloatArray | None:
        """The losses of the last steps, at unit steps; None for too few or gaps."""
        steps, values = self._window.steps, self._window.values
        if len(steps) and steps.min() <= (oldest := steps[-1] - self._window.size):
            recent = steps > oldest
            steps, values = steps[recent], values[recent]
        return unit_steps(steps, values) if len(steps) >= _MIN_POINTS else None

    def _signature_of(self, x: FloatArray | None, log: bool) -> Signature | None:
        if x is None:
            return None
        if log:
            if x.min() < 0.0:
                return None
            x = np.log10(np.maximum(x, _LOG_FLOOR))
        return _signature(remove_trend(x, self.detrend))

    def values(self) -> dict[str, float]:
        """``spectral_*`` of the loss, ``spectral_log_*`` of its log10, and the early activity."""
        found: dict[str, float] = {}
        recent = self._recent()
        for prefix, log in (("spectral_", False), ("spectral_log_", True)):
            now = self._signature_of(recent, log)
            if now is not None:
                for field in Signature.__slots__:
                    found[prefix + field] = getattr(now, field)
        if self._early is not None:
            found["spectral_early_activity"] = self._early
        return found

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state."""
        return {"window": self._window.state_dict(), "seen": self._seen, "early": self._early}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._window.load_state_dict(take(state, "window"))
        self._seen = take(state, "seen")
        self._early = take(state, "early")
