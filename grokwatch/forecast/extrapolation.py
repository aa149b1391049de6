"""The simplest forecast that can be right: extrapolate the validation curve on a log-time axis.

It often answers None. It never calls a run unpromising: its probability is not calibrated, so a
stop by it would have no stated risk.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from grokwatch.forecast.base import Evidence, Outlook
from grokwatch.history import FloatArray
from grokwatch.signals.trend import look_back

_LOOK_BACK = 4.0
_MIN_BINS = 8
_LEARNT_LOSS = 0.05  # a validation loss this far below its first value has generalised
_MODEL_SPREAD = 0.35  # spread of ln t4 about a straight-line guess, from the model alone
_FARTHEST = 1.5 * math.log(10.0)  # a line is not believed beyond a decade and a half
_NORMAL = NormalDist()


class LogTimeExtrapolation:
    """Straight lines in log time through validation accuracy, log loss and margin.

    Takes the earliest of three crossings: accuracy reaching ``generalised_at``, loss reaching 5 %
    of its first value, margin reaching zero (the right answers overtake the others); each only if
    the slope over the last two doublings is in the right direction by at least three standard
    errors, and the crossing at most a decade and a half ahead. Grokking speeds up as it goes, so a
    line is late rather than early. The probability is that of a log-normal time about it.
    """

    def __init__(self, generalised_at: float = 0.95) -> None:
        self.generalised_at = generalised_at

    def outlook(self, evidence: Evidence) -> Outlook:
        """See :class:`grokwatch.forecast.base.Forecaster`."""
        if "t2" not in evidence.signals:
            return Outlook(None, None, "Insufficient evidence: the training set is not learnt yet.")
        budget = evidence.settings.budget
        crossings = []
        loss, accuracy, margin = (
            evidence.history[name] for name in ("val_loss", "val_accuracy", "val_margin")
        )
        if max(loss.count, accuracy.count, margin.count) < _MIN_BINS:
            return Outlook(None, None, "Insufficient evidence: fewer than 8 validations so far.")
        steps, losses = loss.points()
        if losses.size and losses.min() > 0.0:
            goal = math.log(_LEARNT_LOSS * losses[0])
            crossings.append((_crossing(steps, -np.log(losses), -goal), "validation loss"))
        crossings.append((_crossing(*accuracy.points(), self.generalised_at), "accuracy"))
        crossings.append((_crossing(*margin.points(), 0.0), "margin"))
        known = [(c, what) for c, what in crossings if c is not None]
        if not known:
            return Outlook(
                None, None, "Insufficient evidence: the validation curve shows no clear trend yet."
            )
        (log_time, error), what = min(known)
        spread = math.hypot(error, _MODEL_SPREAD)
        # The run has not generalised by now: condition the log-normal on that.
        now, end = math.log(evidence.step + 1.0), math.log(budget + 1.0)
        alive = _tail((now - log_time) / spread)
        late = _tail((end - log_time) / spread)
        probability = min(max(1.0 - late / max(alive, 1e-9), 0.02), 0.98)
        low, median, high = (
            math.exp(log_time - spread * _NORMAL.inv_cdf(max(later * alive, 1e-300)))
            for later in (0.9, 0.5, 0.1)
        )
        return Outlook(
            round(probability, 6),
            (low, median, high),
            f"{_change(evidence, what)}; a straight line in log time reaches generalisation "
            f"near step {median:,.0f} ({low:,.0f}-{high:,.0f}, uncalibrated).",
        )


def _crossing(steps: FloatArray, rising: FloatArray, goal: float) -> tuple[float, float] | None:
    """(ln t, its standard error) at which a line through the last points reaches ``goal``."""
    if steps.size < _MIN_BINS:
        return None
    start = look_back(steps, _LOOK_BACK)
    x, y = np.log(steps[start:] + 1.0), rising[start:]
    if x.size < _MIN_BINS or y[-1] >= goal:
        return None
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    residual = y - y.mean() - slope * centred
    error = math.sqrt(float(residual @ residual) / (x.size - 2) / spread)
    if slope <= 3.0 * error or slope <= 0.0:
        return None
    ahead = (goal - float(y[-1])) / slope
    if ahead > _FARTHEST:
        return None
    return float(x[-1]) + ahead, ahead * error / slope


def _tail(z: float) -> float:
    """P(Z > z) of a standard normal."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def _change(evidence: Evidence, what: str) -> str:
    slope = evidence.signals.get("val_loss_slope_4x")
    if what != "validation loss" or slope is None:
        return f"Validation {what.removeprefix('validation ')} is improving"
    return f"Validation loss changes by {100 * math.expm1(slope):+.0f} % per doubling of steps"
