"""Milestones t1..t4 and the phase a run is in, on-line.

``t1``/``t3``: training/validation accuracy first leaves chance (by a tenth of the way to 1).
``t2``/``t4``: training accuracy reaches ``memorised_at``, validation accuracy ``generalised_at``.
t2 is taken at first touch; t4 is declared once confirmed and dated to its first touch. Runs that
report no accuracy are judged by how far the loss has fallen from its first value: such milestones
are a guess, and ``by_loss`` says so.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from grokwatch.ingest import FLOAT32_MAX, float32
from grokwatch.signals.crossing import Crossing
from grokwatch.state import take
from grokwatch.verdict import Phase as PhaseName

_LEAVES_CHANCE = 0.1
_BY_LOSS_DONE = 0.9  # a loss 90 % below its first value counts as learnt when accuracy is unknown
_NONFINITE_ROWS = 3  # so many NaN or inf losses in a row are a divergence
_EXPLODED_ROWS = 32  # and so many losses in a row beyond _EXPLODED times the first one
_EXPLODED = 100.0
_TINY = 1e-30  # below this float32 losses are too coarse for a margin
_EVERYTHING = (1.0, 0.0)  # an empty quiet range


class _Side:
    """Milestones of one side (training or validation), by accuracy if any comes, else by loss."""

    def __init__(self, chance: float | None, done_at: float) -> None:
        self.chance, self.done_at = chance, done_at
        self.chance_is_guess = chance is None
        self.left: int | None = None
        self.done = Crossing(done_at)
        self.by_loss = True
        self.first_loss: float | None = None
        self.progress = 0.0  # latest accuracy, or fall of the loss relative to its first value

    def add_accuracy(self, step: int, accuracy: float, told: tuple[int, float] | None) -> None:
        if self.chance_is_guess and told is not None and step > told[0]:
            self.chance, self.chance_is_guess = told[1], False
        if self.by_loss:  # accuracy beats loss: forget what the loss suggested
            self.by_loss, self.left, self.done = False, None, Crossing(self.done_at)
            if self.chance is None:
                self.chance = accuracy
        self._progress(step, accuracy, self.chance or 0.0)

    def add_loss(self, step: int, loss: float) -> None:
        if self.first_loss is None:
            self.first_loss = loss
            if self.by_loss:
                self.done = Crossing(_BY_LOSS_DONE)
        if self.by_loss and self.first_loss > 0.0:
            self._progress(step, 1.0 - loss / self.first_loss, 0.0)

    def leaves_at(self, chance: float) -> float:
        """The progress at which a side has left chance."""
        return float32(chance + _LEAVES_CHANCE * (1.0 - chance))

    def _progress(self, step: int, progress: float, chance: float) -> None:
        self.progress = progress
        if self.left is None and progress >= self.leaves_at(chance):
            self.left = step
        self.done.add(step, progress)

    @property
    def measured(self) -> bool:
        """Whether there is an accuracy, or a loss whose fall can be told."""
        return not self.by_loss or (self.first_loss or 0.0) > 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "chance": self.chance,
            "chance_is_guess": self.chance_is_guess,
            "left": self.left,
            "done": self.done.state_dict(),
            "by_loss": self.by_loss,
            "first_loss": self.first_loss,
            "progress": self.progress,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.chance, self.left = take(state, "chance"), take(state, "left")
        self.chance_is_guess = take(state, "chance_is_guess")
        self.by_loss, self.first_loss = take(state, "by_loss"), take(state, "first_loss")
        self.progress = take(state, "progress")
        self.done = Crossing.from_state(take(state, "done"))


class Phases:
    """Streams accuracies and losses into milestones and a phase.

    Args:
        chance: accuracy of guessing, 0..1; None takes the first accuracy seen, until a measurement
            ``chance`` says better.
        memorised_at: training accuracy that counts as memorised (t2).
        generalised_at: validation accuracy that counts as generalised (t4).

    >>> phases = Phases(chance=0.1)
    >>> for step in range(0, 400, 10):
    ...     phases.update(step, "train_accuracy", min(1.0, step / 100))
    ...     phases.update(step, "val_accuracy", 0.1 if step < 200 else 1.0)
    >>> phases.phase, phases.values()
    ('generalised', {'t1': 20.0, 't2': 100.0, 't3': 200.0, 't4': 200.0})
    """

    name = "phase"
    inputs = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "chance")

    def __init__(
        self,
        chance: float | None = None,
        memorised_at: float = 0.99,
        generalised_at: float = 0.95,
    ) -> None:
        self.chance = None if chance is None else float32(chance)
        self.memorised_at, self.generalised_at = float32(memorised_at), float32(generalised_at)
        self._reset()

    def _reset(self) -> None:
        self.train = _Side(self.chance, self.memorised_at)
        self.val = _Side(self.chance, self.generalised_at)
        self._told_chance: tuple[int, float] | None = None  # counts from the next step on
        self.t4: int | None = None
        self._swing: Crossing | None = None  # after t4: towards un-grokking, or back again
        self._ungrokked: int | None = None
        self._bad_rows = 0
        self.diverged: int | None = None
        self.nonfinite = False  # whether the divergence is NaN or inf rather than sheer size

    @property
    def t2(self) -> int | None:
        """First touch of ``memorised_at``."""
        return self.train.done.touched

    @property
    def by_loss(self) -> bool:
        """Whether t3 and t4 rest on the validation loss alone."""
        return self.val.by_loss

    @property
    def basis(self) -> tuple[bool, bool]:
        """What each side is judged by: True = loss, False = accuracy."""
        return (self.train.by_loss, self.val.by_loss)

    @property
    def measured(self) -> tuple[bool, bool]:
        """Whether there is anything to judge each side by."""
        return (self.train.measured, self.val.measured)

    @property
    def quiet(self) -> tuple[float, float]:
        """Training losses in this closed range change nothing here (empty: all are wanted)."""
        side = self.train
        if side.first_loss is None or self._bad_rows or self.diverged is not None:
            return _EVERYTHING
        low = -FLOAT32_MAX
        if side.by_loss and side.first_loss > 0.0:
            if side.done.pending or side.first_loss < _TINY:
                return _EVERYTHING
            if side.done.confirmed is None:  # a margin keeps rounding from mattering
                wanted = _LEAVES_CHANCE if side.left is None else _BY_LOSS_DONE
                low = float32(side.first_loss * (1.0 - wanted) * 1.001)
        return (low, self._exploded_at)

    @property
    def quiet_accuracy(self) -> tuple[float, float]:
        """Training accuracies in this closed range change nothing here."""
        side = self.train
        about_to_be_told = side.chance_is_guess and self._told_chance is not None
        if side.by_loss or side.done.pending or about_to_be_told:
            return _EVERYTHING
        if side.done.confirmed is not None and side.left is not None:
            return (0.0, 1.0)
        wanted = self.memorised_at
        if side.left is None:
            wanted = min(wanted, side.leaves_at(side.chance or 0.0))
        return (0.0, _below(wanted))

    @property
    def quiet_val_loss(self) -> tuple[float, float]:
        """Validation losses in this closed range change nothing here."""
        side = self.val
        if side.first_loss is None or (side.by_loss and self.t4 is not None):
            return _EVERYTHING
        low = -FLOAT32_MAX
        if side.by_loss and side.first_loss > 0.0:
            if side.done.pending or side.first_loss < _TINY:
                return _EVERYTHING
            wanted = _LEAVES_CHANCE if side.left is None else _BY_LOSS_DONE
            low = float32(side.first_loss * (1.0 - wanted) * 1.001)
        return (low, FLOAT32_MAX)

    @property
    def quiet_val_accuracy(self) -> tuple[float, float]:
        """Validation accuracies in this closed range change nothing here."""
        side, swing = self.val, self._swing
        about_to_be_told = side.chance_is_guess and self._told_chance is not None
        if side.by_loss or side.done.pending or about_to_be_told:
            return _EVERYTHING
        low, high = 0.0, 1.0
        if side.left is None:
            high = _below(side.leaves_at(side.chance or 0.0))
        if self.t4 is None:
            return (low, min(high, _below(side.done.level)))
        if swing is None or swing.pending:
            return _EVERYTHING
        if swing.above:
            return (low, min(high, _below(swing.level)))
        return (swing.level, high)

    @property
    def told_chance(self) -> bool:
        """Whether the accuracy of guessing has been measured; later measurements do not count."""
        return self._told_chance is not None

    @property
    def _exploded_at(self) -> float:
        """Training losses above this have exploded."""
        first = self.train.first_loss
        if first is None or first <= 0.0:
            return FLOAT32_MAX
        return min(float32(first * _EXPLODED), FLOAT32_MAX)

    def update(self, step: int, name: str, value: float) -> None:
        """Take one measurement."""
        if name == "chance":
            if self._told_chance is None:
                self._told_chance = (step, value)
        elif name == "train_accuracy":
            self.train.add_accuracy(step, value, self._told_chance)
        elif name == "val_accuracy":
            if self.val.by_loss:
                self.t4, self._swing, self._ungrokked = None, None, None
            self.val.add_accuracy(step, value, self._told_chance)
            self._after_val(step)
        elif name == "train_loss":
            self._check_divergence(step, value)
            if math.isfinite(value):
                self.train.add_loss(step, value)
        elif math.isfinite(value):
            self.val.add_loss(step, value)
            if self.val.by_loss:
                self._after_val(step)

    def _after_val(self, step: int) -> None:
        if self.t4 is None:
            self.t4 = self.val.done.confirmed
            return
        chance = 0.0 if self.val.by_loss else self.val.chance or 0.0
        if self._swing is None:  # half-way back to chance is un-grokking
            middle = (chance + self.val.done.level) / 2
            self._swing = Crossing(float32(middle), above=False)
        self._swing.add(step, self.val.progress)
        if self._swing.confirmed is None:
            return
        if self._ungrokked is None:
            self._ungrokked = self._swing.confirmed
            self._swing = Crossing(self.val.done.level)
        else:
            self._ungrokked, self._swing = None, None

    def _check_divergence(self, step: int, loss: float) -> None:
        finite = math.isfinite(loss)
        if finite and loss <= self._exploded_at:
            self._bad_rows, self.diverged = 0, None
            return
        self._bad_rows += 1
        self.nonfinite = not finite
        limit = _EXPLODED_ROWS if finite else _NONFINITE_ROWS
        if self.diverged is None and self._bad_rows >= limit:
            self.diverged = step

    @property
    def phase(self) -> PhaseName:
        """The phase now; see :data:`grokwatch.verdict.Phase`."""
        if self.diverged is not None:
            return "diverged"
        if self._ungrokked is not None:
            return "ungrokked"
        if self.t4 is not None:
            return "generalised"
        if not self.train.measured and not self.val.measured:
            return "unknown"
        if self.train.measured and self.t2 is None:
            return "confusion"
        if self.val.left is not None:
            return "transition"
        return "memorisation" if self.train.measured else "confusion"

    def values(self) -> dict[str, float]:
        """The milestones reached: ``t1`` .. ``t4``, ``ungrokked_step``, ``diverged_step``."""
        known = {
            "t1": self.train.left,
            "t2": self.t2,
            "t3": self.val.left,
            "t4": self.t4,
            "ungrokked_step": self._ungrokked,
            "diverged_step": self.diverged,
        }
        return {name: float(step) for name, step in known.items() if step is not None}

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state."""
        return {
            "train": self.train.state_dict(),
            "val": self.val.state_dict(),
            "told_chance": self._told_chance,
            "t4": self.t4,
            "swing": self._swing and self._swing.state_dict(),
            "ungrokked": self._ungrokked,
            "bad_rows": self._bad_rows,
            "diverged": self.diverged,
            "nonfinite": self.nonfinite,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._reset()
        self.train.load_state_dict(take(state, "train"))
        self.val.load_state_dict(take(state, "val"))
        told = take(state, "told_chance")
        self._told_chance = None if told is None else (told[0], told[1])
        self.t4 = take(state, "t4")
        swing = take(state, "swing")
        self._swing = None if swing is None else Crossing.from_state(swing)
        self._ungrokked = take(state, "ungrokked")
        self._bad_rows = take(state, "bad_rows")
        self.diverged = take(state, "diverged")
        self.nonfinite = take(state, "nonfinite")


def _below(level: float) -> float:
    """The float32 just below."""
    return float(np.nextafter(np.float32(level), np.float32(-1.0)))
