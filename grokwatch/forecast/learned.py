"""The forecast learnt from recorded runs: P(generalised by step t), for any t, from the curves.

One ensemble gives the distribution of the time still to go, ``F(u) = P(t4 <= step · 10^u)``, with
u among its inputs. It never reaches 1 for a run that may never generalise, so it is a cure model:
``F(u of the budget)`` is the probability, and its quantiles given success are the expected step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grokwatch.forecast.base import Evidence, Outlook
from grokwatch.forecast.features import NAMES, features
from grokwatch.forecast.trees import BoostedTrees
from grokwatch.state import take

FORMAT = 1
_POINTS = 12  # of the distribution, evenly spaced in log time up to the budget
_LEAST_VALIDATIONS = 5
_QUANTILES = (0.1, 0.5, 0.9)

FloatArray = npt.NDArray[np.float64]


class LearnedForecast:
    """A forecast with parameters fitted on recorded runs.

    Args:
        parameters: what :meth:`load` reads; see the model card inside it.

    Raises:
        ValueError: parameters of another format or for other features.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        if take(parameters, "format") != FORMAT:
            raise ValueError(
                f"the forecast's format is {parameters['format']!r}; this grokwatch reads {FORMAT}."
            )
        if tuple(take(parameters, "features")) != NAMES:
            raise ValueError("the forecast was fitted on other features than this grokwatch has.")
        self.parameters = parameters
        self._trees = BoostedTrees.from_dict(take(parameters, "trees"))
        self._slope, self._intercept = take(parameters, "calibration")
        self._kill_below: dict[str, float] = take(parameters, "kill_below")
        self._low = np.array(take(parameters, "support_low"), dtype=np.float64)
        self._high = np.array(take(parameters, "support_high"), dtype=np.float64)
        self._horizon = int(take(parameters, "horizon"))
        self._comparable: list[list[float]] = take(parameters, "comparable")

    @classmethod
    def load(cls, path: str | Path) -> LearnedForecast:
        """Read a forecast that ``benchmarks/forecast/fit.py`` wrote; none comes with grokwatch yet.

        Raises:
            ValueError: the file is not a forecast; the message names it.
        """
        try:
            return cls(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the parameters as JSON."""
        Path(path).write_text(json.dumps(self.parameters) + "\n", encoding="utf-8")

    def distribution(self, x: FloatArray, reach: float, points: int = _POINTS) -> FloatArray:
        """P(generalised by step · 10^u) for u = 0 .. ``reach``, shape (points + 1,), ascending."""
        u = np.linspace(0.0, reach, points + 1)[1:]
        rows = np.column_stack([np.broadcast_to(x, (points, x.size)), u])
        odds = self._slope * self._trees.log_odds(rows) + self._intercept
        cdf = np.maximum.accumulate(1.0 / (1.0 + np.exp(-odds)))
        # The first point is far from u = 0, by which nothing has happened yet.
        return np.concatenate([[0.0], cdf])

    def outlook(self, evidence: Evidence) -> Outlook:
        """See :class:`grokwatch.forecast.base.Forecast`."""
        history = evidence.history
        seen = max(history["val_loss"].count, history["val_accuracy"].count)
        if seen < _LEAST_VALIDATIONS:
            return Outlook(
                None,
                None,
                f"Insufficient evidence: {seen} validations so far, {_LEAST_VALIDATIONS} needed.",
            )
        x = features(evidence)
        now, budget = evidence.step + 1.0, evidence.settings.budget + 1.0
        reach = math.log10(budget / now)
        if reach <= 0.0:
            return Outlook(0.0, None, "The budget is used up.")
        cdf = self.distribution(x, reach)
        probability = float(cdf[-1])
        eta = None
        if probability >= 0.1:
            u = np.linspace(0.0, reach, cdf.size)
            low, median, high = (
                now * 10 ** float(np.interp(q * probability, cdf, u)) - 1.0 for q in _QUANTILES
            )
            eta = (low, median, high)
        strange = self.outside(x, evidence)
        threshold = self.kill_below(evidence.settings.max_kill_rate)
        unpromising = (
            strange is None
            and threshold is not None
            and probability < threshold
            and evidence.phase == "memorisation"
        )
        return Outlook(
            round(probability, 6),
            eta,
            self._reason(evidence, probability, eta, strange, unpromising),
            unpromising,
        )

    def kill_below(self, max_kill_rate: float) -> float | None:
        """The probability below which a stop keeps to the rate; None = no stop is that safe."""
        allowed = [rate for rate in self._kill_below if float(rate) <= max_kill_rate]
        return self._kill_below[max(allowed, key=float)] if allowed else None

    def outside(self, x: FloatArray, evidence: Evidence) -> str | None:
        """What lies beyond the runs this was fitted on, or None."""
        if evidence.by_loss:
            return "no accuracy is reported"
        if evidence.settings.budget > self._horizon:
            return f"the budget exceeds the {self._horizon:,} steps it was fitted on"
        with np.errstate(invalid="ignore"):
            beyond = np.flatnonzero((x < self._low) | (x > self._high))
        return NAMES[int(beyond[0])].replace("_", " ") if beyond.size else None

    def _reason(
        self,
        evidence: Evidence,
        probability: float,
        eta: tuple[float, float, float] | None,
        strange: str | None,
        unpromising: bool,
    ) -> str:
        parts = [_trend(evidence)]
        for low, high, generalised, total in self._comparable:
            if low <= probability < high and total:
                parts.append(f"{generalised:.0f} of {total:.0f} comparable runs generalised")
                break
        if unpromising:
            left = evidence.settings.budget - evidence.step
            rate = evidence.settings.max_kill_rate
            parts.append(
                f"stopping saves up to {left:,} steps at an inherited risk of {rate:.0%} "
                f"for a run that would have generalised"
            )
        elif eta is not None:
            parts.append(f"expect step {eta[1]:,.0f} ({eta[0]:,.0f}-{eta[2]:,.0f})")
        if strange is not None:
            parts.append(f"unlike the runs this forecast knows ({strange}), so never a stop")
        sentence = "; ".join(parts)
        return sentence[0].upper() + sentence[1:] + "."


def _trend(evidence: Evidence) -> str:
    """What the validation curve does, in words."""
    slope = evidence.signals.get("val_loss_slope_4x")
    if slope is not None:
        share = 100.0 * math.expm1(slope)
        since = evidence.step / 4
        if abs(share) < 1.0:
            return f"validation loss has been flat since step {since:,.0f}"
        verb = "fallen" if share < 0 else "risen"
        return (
            f"validation loss has {verb} {abs(share):.0f} % per doubling of steps since step "
            f"{since:,.0f}"
        )
    slope = evidence.signals.get("val_accuracy_slope_4x")
    if slope is not None:
        return f"validation accuracy changes by {slope:+.3f} per doubling of steps"
    return "validation has no trend yet"
