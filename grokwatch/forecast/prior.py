"""What finished runs of one's own add to a forecast: log-odds by hyper-parameters, and a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grokwatch.forecast.base import Settings
from grokwatch.state import take

FloatArray = npt.NDArray[np.float64]

#: Decay wears off what is not needed at the rate learning rate x weight decay.
TERMS = ("log_decay_rate", "log_learning_rate", "train_fraction")
_LEAST_DECAY, _LEAST_RATE = 1e-8, 1e-8  # as good as none
_FARTHEST = 3.0  # standard deviations; a straight line is not believed beyond


def hyper_parameters(settings: Settings) -> FloatArray:
    """The values of :data:`TERMS`, shape (3,); NaN = not told.

    >>> hyper_parameters(Settings(budget=100, learning_rate=0.01, weight_decay=1.0))
    array([-2., -2., nan])
    """
    found = np.full(len(TERMS), math.nan)
    if settings.learning_rate is not None:
        found[1] = math.log10(max(settings.learning_rate, _LEAST_RATE))
        if settings.weight_decay is not None:
            found[0] = math.log10(max(settings.learning_rate * settings.weight_decay, _LEAST_DECAY))
    if settings.train_fraction is not None:
        found[2] = settings.train_fraction
    return found


@dataclass(frozen=True)
class OwnPrior:
    """A correction learnt from a user's finished runs, added to a forecast of the curves.

    Attributes:
        runs: how many it was learnt from.
        mean, scale: of each of :data:`TERMS` over these runs; a scale of 0 = did not vary.
        weight: log-odds for one standard deviation more of each.
        slope, intercept: own log-odds = slope x the shipped forecast's + intercept + what the
            hyper-parameters add.
        shift: what is added to log10(t4 / now).
        memorised_by: a run that has not learnt its training set by this step may be stopped;
            None = never.
        waits: a stop waits until the training set has been learnt, and as long again; False = not
            even that, because no run of a sweep that generalised would have been lost.
        estimated: the threshold of a stop was raised, by what became of a sweep's own runs.

    >>> prior = OwnPrior(30, (-2.0, -2.0, 0.5), (1.0, 0.0, 0.1), (0.5, 9.0, 1.0))
    >>> prior.log_odds(Settings(budget=100, learning_rate=0.1, weight_decay=1.0))
    0.5
    """

    runs: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    slope: float = 1.0
    intercept: float = 0.0
    shift: float = 0.0
    memorised_by: int | None = None
    waits: bool = True
    estimated: bool = False

    def log_odds(self, settings: Settings) -> float:
        """What the hyper-parameters add; those not told count as the mean."""
        terms = standardised(hyper_parameters(settings)[None, :], self.mean, self.scale)
        return float(terms[0] @ np.array(self.weight))

    def shipped(self, probability: float, prior: float) -> float:
        """What the forecast said before it was adapted.

        >>> round(OwnPrior(30, (), (), (), slope=0.5, intercept=1.0).shipped(0.5, 0.0), 3)
        0.119
        """
        odds = math.log(max(probability, 1e-15)) - math.log(max(1.0 - probability, 1e-15))
        before = (odds - self.intercept - prior) / self.slope
        return 1.0 / (1.0 + math.exp(min(-before, 700.0)))

    def as_dict(self) -> dict[str, Any]:
        """Plain, JSON-able form."""
        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        return {"terms": list(TERMS), **plain}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> OwnPrior:
        """The prior that :meth:`as_dict` wrote.

        Raises:
            ValueError: it is for other terms.
        """
        if tuple(take(plain, "terms")) != TERMS:
            raise ValueError(f"own runs were fitted by {plain['terms']}, not by {list(TERMS)}.")
        mean, scale, weight = (
            tuple(float(v) for v in take(plain, key)) for key in ("mean", "scale", "weight")
        )
        memorised_by = take(plain, "memorised_by")
        return cls(
            int(take(plain, "runs")),
            mean,
            scale,
            weight,
            float(take(plain, "slope")),
            float(take(plain, "intercept")),
            float(take(plain, "shift")),
            None if memorised_by is None else int(memorised_by),
            bool(plain.get("waits", True)),
            bool(plain.get("estimated", False)),
        )


def standardised(
    values: FloatArray, mean: tuple[float, ...], scale: tuple[float, ...]
) -> FloatArray:
    """Values (n, terms) in standard deviations from the mean; 0 where not told or not varied."""
    spread = np.array(scale)
    with np.errstate(invalid="ignore"):
        found = (values - np.array(mean)) / np.where(spread > 0.0, spread, np.inf)
    clipped: FloatArray = np.clip(np.nan_to_num(found, nan=0.0), -_FARTHEST, _FARTHEST)
    return clipped
