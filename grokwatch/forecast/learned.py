"""The forecast learnt from recorded runs: will it generalise, and when, from the curves alone.

A cure model in two parts, both boosted trees. ``ever``: P(generalises within the reach u), where
now x 10^u is the budget; it never reaches 1 for a run that may never generalise. ``when``: the
quantiles of log10(t4 / now) of the runs that do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from grokwatch.forecast.base import Evidence, Outlook
from grokwatch.forecast.features import NAMES, features
from grokwatch.forecast.prior import OwnPrior
from grokwatch.forecast.trees import BoostedTrees, Together
from grokwatch.state import take
from grokwatch.verdict import Phase

if TYPE_CHECKING:
    from grokwatch.records import Run

FORMAT = 3
LEAST_VALIDATIONS = 5
_LEAST_PROBABILITY = 0.1  # below it no time is told
#: A stop is recommended only after this many times t2, if it saves this share of the budget, and if
#: validation was this close to chance when the training set had been learnt: otherwise the run is
#: ordinary training, which need not reach the goal to be worth its while.
PATIENCE, WORTH, BY_HEART = 2.0, 0.1, 0.3
#: A threshold was set on the shipped probability; one's own runs may stretch it by this at most.
STRETCH = 1.5
STOPPABLE: tuple[Phase, ...] = ("memorisation", "transition")

FloatArray = npt.NDArray[np.float64]


def inputs(x: FloatArray, u: FloatArray) -> FloatArray:
    """What the trees look at, for features of shape (n, len(NAMES)) and reaches of shape (n,).

    That is the features; u; the decay up to then; and for two look-back spans log10(arrival / now)
    of the straight line, through accuracy, loss or margin, that arrives first.
    """
    first = [np.fmin.reduce(x[:, lines], axis=1) * math.log10(2.0) for lines in _LINES]
    return np.column_stack([x, u, x[:, _CLOCK] + u, *first])


#: Which column of :func:`inputs` is the reach.
REACH = len(NAMES)


def may_stop(x: FloatArray, u: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether a stop is worth while and not rash, for rows of features; False without a t2."""
    with np.errstate(invalid="ignore"):
        waited = x[:, _SINCE_T2] >= math.log10(PATIENCE)
        by_heart = x[:, _AT_T2] < BY_HEART
    found: npt.NDArray[np.bool_] = waited & by_heart & worth_it(u)
    return found


def worth_it(u: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether enough of the budget is left to be saved."""
    found: npt.NDArray[np.bool_] = u >= -math.log10(1.0 - WORTH)
    return found


def low_enough(probability: float, certified: float, threshold: float) -> bool:
    """Whether a probability, and the shipped one it was adapted from, allow a stop.

    >>> low_enough(0.5, 0.01, 0.02), low_enough(0.01, 0.025, 0.02), low_enough(0.01, 0.035, 0.02)
    (True, True, False)
    """
    return certified < (STRETCH * threshold if probability < threshold else threshold)


def may_give_up(x: FloatArray, u: FloatArray, memorised_by: int) -> npt.NDArray[np.bool_]:
    """Whether runs are late to learn even the training set, for rows of features."""
    with np.errstate(invalid="ignore"):
        late = np.isnan(x[:, _SINCE_T2]) & (10.0 ** x[:, _LOG_STEP] > memorised_by)
        at_chance = x[:, _BEST] < BY_HEART
    found: npt.NDArray[np.bool_] = late & at_chance & worth_it(u)
    return found


_LINES = [
    [NAMES.index(f"{line}_doublings_{span}x") for line in ("accuracy", "loss", "margin")]
    for span in (2, 4)
]
_CLOCK, _SINCE_T2, _AT_T2 = map(NAMES.index, ("decay_clock", "since_t2", "val_progress_at_t2"))
_LOG_STEP, _BEST = map(NAMES.index, ("log_step", "val_progress_best"))


class Forecast:
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
        parts = [take(parameters, "ever"), *take(parameters, "when")]
        self._trees = Together([BoostedTrees.from_dict(part) for part in parts])
        self._widen: list[float] = take(parameters, "widen")
        self._slope, self._intercept = take(parameters, "calibration")
        self._kill_below: dict[str, float] = take(parameters, "kill_below")
        self._low = np.array(take(parameters, "support_low"), dtype=np.float64)
        self._high = np.array(take(parameters, "support_high"), dtype=np.float64)
        self._horizon = int(take(parameters, "horizon"))
        self._classes: list[int] = take(parameters, "classes")
        self._comparable: list[list[float]] = take(parameters, "comparable")
        own = parameters.get("own")
        self._own = None if own is None else OwnPrior.from_dict(own)

    @classmethod
    def fit(
        cls,
        runs: Iterable[Run | str | Path],
        *,
        base: Forecast | None = None,
        weights: Sequence[float] | None = None,
        **settings: Any,
    ) -> Forecast:
        """A forecast adapted to finished runs of one's own; 30 are enough to help.

        Recalibrates the probability and the time, and learns what learning rate, weight decay and
        train fraction tell. The kill thresholds are inherited. A run that was cut short, or that
        grokwatch stopped, tells only that it had not generalised by then. See docs/own_runs.md.

        Args:
            runs: finished runs of one kind, with validation accuracy; paths are read.
            base: what to adapt; None = the forecast that comes with grokwatch. What it had learnt
                from own runs before is forgotten.
            weights: what each run counts for, as 1 / (share of the runs like it that was left to
                finish) in a sweep with a control arm; None = 1 each.
            **settings: of :class:`Monitor`, as budget and chance; they override the runs' own.

        Raises:
            ValueError: too few finished runs, one outcome only, or a run that cannot be read.
        """
        from grokwatch.forecast.own import fit_own

        return cls(fit_own(runs, base or shipped(), weights, settings))

    @classmethod
    def load(cls, path: str | Path) -> Forecast:
        """Read a forecast from its JSON file.

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

    def judge(
        self, x: FloatArray, u: FloatArray, prior: float = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """For rows of features (n, len(NAMES)) and reaches (n,): will it, and when.

        ``prior`` is added to the log-odds: what is known of the runs beforehand.

        Returns:
            P(generalises by now x 10^u), shape (n,), and the 10, 50 and 90 % quantiles of
            log10(t4 / now) if it does, ascending, shape (n, 3).
        """
        odds, low, median, high = self._trees.log_odds(inputs(x, u)).T
        odds = self._slope * odds + self._intercept + prior
        probability: FloatArray = 1.0 / (1.0 + np.exp(-odds))
        shift = 0.0 if self._own is None else self._own.shift
        low = median + shift - self._widen[0] * np.maximum(median - low, 0.0)
        high = median + shift + self._widen[1] * np.maximum(high - median, 0.0)
        median = median + shift
        return probability, np.clip(np.column_stack([low, median, high]), 0.0, u[:, None])

    def outlook(self, evidence: Evidence) -> Outlook:
        """See :class:`grokwatch.forecast.base.Forecaster`."""
        history = evidence.history
        seen = max(history["val_loss"].count, history["val_accuracy"].count)
        if seen < LEAST_VALIDATIONS:
            return Outlook(
                None,
                None,
                f"Insufficient evidence: {seen} validations so far, {LEAST_VALIDATIONS} needed.",
            )
        x = features(evidence)
        now, budget = evidence.step + 1.0, evidence.settings.budget + 1.0
        reach = math.log10(budget / now)
        if reach <= 0.0:
            return Outlook(0.0, None, "The budget is used up.")
        row, u = x[None, :], np.array([reach])
        prior = 0.0 if self._own is None else self._own.log_odds(evidence.settings)
        chances, quantiles = self.judge(row, u, prior)
        probability = certified = float(chances[0])
        if self._own is not None:
            certified = self._own.shipped(probability, prior)
        eta = None
        if probability >= _LEAST_PROBABILITY:
            low, median, high = (now * 10.0 ** quantiles[0] - 1.0).tolist()
            eta = (low, median, high)
        strange = self.outside(x, evidence)
        threshold = self.kill_below(evidence.settings.max_kill_rate)
        unpromising = (
            strange is None
            and threshold is not None
            and self._low_enough(probability, certified, threshold)
            and self._ripe(row, u, evidence)
        )
        return Outlook(
            round(probability, 6),
            eta,
            self._reason(evidence, probability, eta, strange, unpromising),
            unpromising,
        )

    def _low_enough(self, probability: float, certified: float, threshold: float) -> bool:
        """An estimated threshold is for the shipped probability, and is not stretched further."""
        if self._own is not None and self._own.estimated:
            return certified < threshold
        return low_enough(probability, certified, threshold)

    def _ripe(self, row: FloatArray, u: FloatArray, evidence: Evidence) -> bool:
        """Whether it is late enough to stop, and worth it."""
        if self._own is not None and not self._own.waits:
            return evidence.phase in (*STOPPABLE, "confusion") and bool(worth_it(u)[0])
        if evidence.phase in STOPPABLE:
            return bool(may_stop(row, u)[0])
        late = None if self._own is None else self._own.memorised_by
        return (
            evidence.phase == "confusion"
            and late is not None
            and bool(may_give_up(row, u, late)[0])
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
        fewest, most = self._classes
        if evidence.chance is None or evidence.chance_is_guess:
            return "the number of classes is not known, tell chance=1/classes"
        if not 1.0 / (most + 0.5) < evidence.chance < 1.0 / (fewest - 0.5):
            guessed = f"guessing gives {evidence.chance:.3g} here"
            return f"they have {fewest} to {most} classes, {guessed}"
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
            estimated = self._own is not None and self._own.estimated
            risk = (
                f"an estimated risk of {rate:.0%}" if estimated else f"a risk of at most {rate:.0%}"
            )
            parts.append(
                f"stopping saves up to {left:,} steps at {risk} for a run that would have "
                f"generalised"
            )
            if self._own is not None:
                which = "threshold estimated in the sweep" if estimated else "inherited threshold"
                parts.append(f"adapted to {self._own.runs} own runs, {which}")
        elif eta is not None:
            parts.append(f"expect step {eta[1]:,.0f} ({eta[0]:,.0f}-{eta[2]:,.0f})")
        if strange is not None:
            parts.append(f"unlike the runs this forecast knows ({strange}), so never a stop")
        sentence = "; ".join(parts)
        return sentence[0].upper() + sentence[1:] + "."


@cache
def shipped() -> Forecast:
    """The forecast that comes with grokwatch; read once, when first wanted."""
    return Forecast.load(Path(__file__).with_name("shipped.json"))


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
