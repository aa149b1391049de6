"""Both ends of a spectrum as an iteration found them, and what may be claimed of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

MAX_TOLERANCE = 0.01  # relative error below which λ_max counts as resolved
MIN_TOLERANCE = 0.1  # of λ_min: a smaller one is rarely to be had once a network has memorised
NOISE_MARGIN = 3.0  # a claim stands this many times above the rounding noise


@dataclass(frozen=True)
class End:
    """One extreme Ritz pair: value, ‖Hv − θv‖, whether it is resolved, and its unit vector."""

    value: float
    residual: float
    resolved: bool
    vector: Tensor | None


UNKNOWN = End(math.nan, math.nan, False, None)


def judge(
    value: float,
    residual: float,
    noise: float,
    *,
    top: bool,
    gap: float = 0.0,
    complete: bool = False,
) -> bool:
    """Whether an extreme Ritz value has the sign and about the size of the true extreme.

    A Ritz value lies inside the spectrum, so that λ_max ≥ θ_max and λ_min ≤ θ_min: a positive
    θ_max and a negative θ_min have the right sign for certain, the other signs only if the
    whole space was searched. Some eigenvalue is within the residual r of θ, and within about
    r²/gap where the next one is far (Kato-Temple; Parlett, The Symmetric Eigenvalue Problem,
    11.7). The gap is only known between Ritz values, and at the crowded lower end it misleads.

    Args:
        value: the Ritz value θ.
        residual: ‖Hv − θv‖.
        noise: rounding error of H, as a norm.
        top: the upper end of the spectrum.
        gap: distance to the next Ritz value, if known; used for the upper end.
        complete: the basis spans the whole space.

    >>> judge(10.0, 0.5, 1e-6, top=True, gap=8.0)  # error about 0.03
    True
    >>> judge(0.1, 0.001, 1e-6, top=False)  # a lower one may be hidden
    False
    """
    size = abs(value)
    certain = complete or (value > 0 if top else value < 0)
    error = min(residual, residual**2 / gap) if top and gap > 0 else residual
    tolerance = MAX_TOLERANCE if top else MIN_TOLERANCE
    return certain and size > NOISE_MARGIN * noise and error <= tolerance * size
