"""When a share of the training time has paid for the next probe."""

from __future__ import annotations

_AT_ONCE = 0.3  # seconds: a first probe guessed to be this short is not saved up for
_STEPS_PER_PRODUCT = 2.0  # guess before anything is measured; see docs/curvature.md
_FOR_PROBES = 0.9  # of the budget; the rest is for what follows: records, cold caches
_LOAN = 0.05  # of all that training has paid so far: what a requested probe may overdraw


class Pace:
    """Books the time of probes against a share of the time between them.

    Probes together never take more than the budget of the time trained so far, but for what can
    be told in advance: the first one, if it is short; a twentieth more, for requested ones; and
    what the latest took longer than the one before. All of it is paid back before the next.

    Args:
        budget: the share, between 0 and 1.

    Raises:
        ValueError: a budget outside that range.

    >>> pace = Pace(budget=0.1)
    >>> pace.spent(began=0.0, ended=1.0, products=10)  # paid by ten seconds of training, and a bit
    >>> [pace.due(now, products=10) for now in (1.0, 11.0, 20.0, 23.5)]
    [False, False, False, True]
    """

    def __init__(self, budget: float) -> None:
        if not 0 < budget < 1:
            raise ValueError(f"budget must be a share between 0 and 1 but got {budget}.")
        self.budget = budget
        self._credit, self._earned = 0.0, 0.0  # seconds: now, and in all
        self._last: float | None = None
        self._steps, self._waited = 0, 0.0  # training steps before the first probe, seconds
        self._per_product: float | None = None  # seconds

    def due(self, now: float, products: int, requested: bool = False) -> bool:
        """Whether a probe of so many products is paid for.

        What is saved up never exceeds one probe, so that a pause is not followed by many; a
        requested probe may be paid for afterwards, in part or, late in a run, as a whole.

        Args:
            now: seconds.
            products: Hessian-vector products it would take.
            requested: it is wanted urgently.
        """
        elapsed = 0.0 if self._last is None else max(0.0, now - self._last)
        if self._per_product is None and self._last is not None:
            self._steps += 1
            self._waited += elapsed
        self._last = now
        earned = self.budget * _FOR_PROBES * elapsed
        self._credit += earned
        self._earned += earned
        if self._per_product is not None:
            expected = self._per_product * products
        elif self._steps:
            expected = self._waited / self._steps * _STEPS_PER_PRODUCT * products
            if expected <= _AT_ONCE:
                return True
        else:
            return False
        self._credit = min(self._credit, expected)
        loan = min(expected, _LOAN * self._earned) if requested else 0.0
        return self._credit + loan >= expected

    def spent(self, began: float, ended: float, products: int) -> None:
        """Book a probe; times in seconds."""
        self._credit -= ended - began
        self._last = ended
        self._per_product = (ended - began) / products
