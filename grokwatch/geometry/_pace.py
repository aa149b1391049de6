"""When a share of the training time has paid for the next probe."""

from __future__ import annotations

_AT_ONCE = 0.5  # seconds: a first probe guessed to be this short is not saved up for
_STEPS_PER_PRODUCT = 3.0  # guess before anything is measured: products in training steps


class Pace:
    """Books the time of probes against a share of the time between them.

    Args:
        budget: the share, between 0 and 1.

    Raises:
        ValueError: a budget outside that range.

    >>> pace = Pace(budget=0.1)
    >>> pace.spent(began=0.0, ended=1.0, products=10)  # must be paid by ten seconds of training
    >>> [pace.due(now, products=10) for now in (1.0, 11.0, 20.0, 21.5)]
    [False, False, False, True]
    """

    def __init__(self, budget: float) -> None:
        if not 0 < budget < 1:
            raise ValueError(f"budget must be a share between 0 and 1 but got {budget}.")
        self.budget = budget
        self._credit = 0.0  # seconds
        self._last: float | None = None
        self._steps, self._waited = 0, 0.0  # training steps before the first probe, seconds
        self._per_product: float | None = None  # seconds

    def due(self, now: float, products: int, requested: bool = False) -> bool:
        """Whether a probe of so many products is paid for.

        What is saved up never exceeds one probe, so that a pause is not followed by many; a
        requested probe may be paid for afterwards.

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
        self._credit += self.budget * elapsed
        if self._per_product is not None:
            expected = self._per_product * products
        elif self._steps:
            expected = self._waited / self._steps * _STEPS_PER_PRODUCT * products
            if expected <= _AT_ONCE:
                return True
        else:
            return False
        self._credit = min(self._credit, expected)
        return self._credit >= (-expected if requested else expected)

    def spent(self, began: float, ended: float, products: int) -> None:
        """Book a probe; times in seconds."""
        self._credit -= ended - began
        self._last = ended
        self._per_product = (ended - began) / products
