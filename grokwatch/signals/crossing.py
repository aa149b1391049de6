"""A threshold passed for good: the label rule for t2 and t4, on-line.

The label is the first step that passes and at which at least 90 % of the measurements in the
following 100 steps (at least the next 5 measurements) pass too.
"""

from __future__ import annotations

from typing import Any

from grokwatch.state import take

HORIZON = 100
LEAST = 5
SHARE = 0.9


class Crossing:
    """Dates the first sustained crossing of ``level``; ``touched`` is the first crossing at all.

    Args:
        level: passed at or above it.
        above: False turns the sense round: passed strictly below the level.

    >>> crossing = Crossing(0.95)
    >>> for step, value in enumerate([.9, .96, .5, .97, .98, .99, 1., 1., 1.]):
    ...     crossing.add(100 * step, value)
    >>> crossing.touched, crossing.confirmed
    (100, 300)
    """

    def __init__(self, level: float, above: bool = True) -> None:
        self.level, self.above = level, above
        self.touched: int | None = None
        self.confirmed: int | None = None
        self._recent: list[tuple[int, bool]] = []  # from the oldest open candidate on

    @property
    def pending(self) -> bool:
        """Whether a candidate waits for its confirmation."""
        return bool(self._recent)

    def add(self, step: int, value: float) -> None:
        """Take one measurement; steps never fall."""
        if self.confirmed is not None:
            return
        passed = value >= self.level if self.above else value < self.level
        if passed and self.touched is None:
            self.touched = step
        if passed or self._recent:
            self._recent.append((step, passed))
        while self._recent and self._settled():
            if self._sustained():
                self.confirmed = self._recent[0][0]
                self._recent = []
                return
            self._drop_first()

    def _settled(self) -> bool:
        """Whether all measurements that decide the oldest candidate are in."""
        enough = len(self._recent) > LEAST
        return enough and self._recent[-1][0] - self._recent[0][0] >= HORIZON

    def _sustained(self) -> bool:
        start = self._recent[0][0]
        following = [passed for step, passed in self._recent[1:] if step <= start + HORIZON]
        if len(following) < LEAST:
            following = [passed for _, passed in self._recent[1 : LEAST + 1]]
        return sum(following) >= SHARE * len(following)

    def _drop_first(self) -> None:
        """Go to the next candidate: the next measurement that passed."""
        for index in range(1, len(self._recent)):
            if self._recent[index][1]:
                self._recent = self._recent[index:]
                return
        self._recent = []

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state."""
        return {
            "level": self.level,
            "above": self.above,
            "touched": self.touched,
            "confirmed": self.confirmed,
            "recent": [list(item) for item in self._recent],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Crossing:
        """The crossing that :meth:`state_dict` described."""
        crossing = cls(take(state, "level"), take(state, "above"))
        crossing.touched = take(state, "touched")
        crossing.confirmed = take(state, "confirmed")
        crossing._recent = [(step, passed) for step, passed in take(state, "recent")]
        return crossing
