"""Lets good measurements through; a wrong one is told once and left out from then on."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from grokwatch.ingest import check_measurement
from grokwatch.integrations._warn import warn


class Sieve:
    """Checks each measurement by itself, so that one that is wrong costs only itself.

    A unit that is wrong once (97 instead of .97) is wrong every time, so the measurement stays
    off; the others go on.

    Args:
        known: the measurements that the monitor takes.
        refuse: told the name of a wrong measurement and what is wrong.
        percent: accuracies arrive as 0..100.
    """

    def __init__(
        self,
        known: Collection[str],
        refuse: Callable[[str, Exception], None],
        percent: bool,
    ) -> None:
        self._known, self._refuse, self._percent = known, refuse, percent
        self.refused: set[str] = set()
        self._step, self._first = -1, dict[str, float]()
        self._repeats_told = False

    def good(self, measured: Mapping[str, Any]) -> dict[str, float]:
        """What of a row are measurements."""
        good: dict[str, float] = {}
        for name, value in measured.items():
            if value is None or name in self.refused:
                continue
            try:
                if name not in self._known:
                    raise TypeError(
                        f"{name!r} is not a measurement that the monitor knows; it knows "
                        f"{sorted(self._known)}. Give it a signal that asks for {name!r}."
                    )
                number = check_measurement(name, value, self._percent)
            except Exception as error:
                self._refuse(name, error)
                continue
            if number is not None:
                good[name] = number
        return good

    def first_of(self, step: int, row: dict[str, float]) -> dict[str, float]:
        """The row without what contradicts an earlier row of the same step."""
        if step != self._step:
            self._step, self._first = step, row
            return row
        for name in [name for name in row if name in self._first]:
            first, again = self._first[name], row[name]
            if again != first and not (math.isnan(first) and math.isnan(again)):
                del row[name]
                if not self._repeats_told:
                    self._repeats_told = True
                    warn(
                        f"{name} of step {step} came twice: first {first:.9g}, now {again:.9g}. "
                        f"The first counts, here and from now on. Validate once a step, or "
                        f"average what belongs to one step."
                    )
        self._first = {**self._first, **row}
        return row
