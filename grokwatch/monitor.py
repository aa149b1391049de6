"""The monitor: one door for observations, one clock for verdicts, no framework."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy.typing as npt

from grokwatch._bulk import Rows, before_step, extend, order
from grokwatch._waiting import Waiting
from grokwatch.analyzer import Analyzer
from grokwatch.forecast.base import Forecaster, Settings
from grokwatch.forecast.learned import shipped
from grokwatch.history import next_on_grid
from grokwatch.ingest import MEASUREMENTS, StepError, check_measurement, check_step
from grokwatch.judge import Judge
from grokwatch.policy import Confirmed, Policy, StandardPolicy
from grokwatch.settings import check_settings
from grokwatch.signals.base import Signal
from grokwatch.signals.phase import Phases
from grokwatch.state import take
from grokwatch.verdict import Verdict

STATE_VERSION = 1
_CLOCK = ("last_step", "row", "evaluated", "next_evaluation", "judge")


class Monitor:
    """Streams measurements in, verdicts out. Memory is fixed, however long the run.

    Args:
        budget: optimiser steps the run may take.
        chance: accuracy of guessing, 0..1; None takes the first accuracy seen.
        learning_rate: as set at the start, if known; used only as a prior.
        weight_decay: likewise.
        train_fraction: share of all data that is trained on, 0..1, if known; likewise.
        forecast: what judges a run that has not generalised; None = the one that comes along.
        max_kill_rate: share of the runs that would have generalised which ``stop_unpromising``
            may cost.
        memorised_at: training accuracy that counts as memorised.
        generalised_at: validation accuracy that counts as generalised.
        accuracy_unit: "fraction" (0..1) or "percent" (0..100) for what :meth:`update` gets.
        signals: further signals, see :mod:`grokwatch.signals.base`.
        policy: what turns a forecast into a recommendation; None = the standard one.

    Raises:
        ValueError: a setting outside its range.

    >>> monitor = Monitor(budget=1000, chance=0.1)
    >>> for step in range(0, 1000, 10):
    ...     verdict = monitor.update(
    ...         step,
    ...         train_accuracy=min(1.0, step / 100),
    ...         val_accuracy=0.1 if step < 500 else 1.0,
    ...     )
    >>> verdict.phase, verdict.recommendation, verdict.signals["t2"], verdict.signals["t4"]
    ('generalised', 'stop_generalised', 100.0, 500.0)
    """

    def __init__(
        self,
        *,
        budget: int,
        chance: float | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        train_fraction: float | None = None,
        forecast: Forecaster | None = None,
        max_kill_rate: float = 0.02,
        memorised_at: float = 0.99,
        generalised_at: float = 0.95,
        accuracy_unit: Literal["fraction", "percent"] = "fraction",
        signals: Sequence[Signal] = (),
        policy: Policy | None = None,
    ) -> None:
        self.settings = Settings(
            budget, chance, learning_rate, weight_decay, train_fraction, max_kill_rate
        )
        check_settings(self.settings, memorised_at, generalised_at, accuracy_unit)
        self._judge = Judge(
            self.settings,
            shipped() if forecast is None else forecast,
            policy or Confirmed(StandardPolicy()),
        )
        self._percent = accuracy_unit == "percent"
        self._analyzer = Analyzer(Phases(chance, memorised_at, generalised_at), signals)
        self._reset_clock()

    def _reset_clock(self) -> None:
        self._last_step = -1
        self._row: dict[str, float] = {}  # what has arrived for the last step
        self._evaluated = -1
        self._next_evaluation = 0
        self._resumed = False  # the next step may go back
        self._ignored_until: int | None = None  # re-observed after a resume: seen already
        self._verdict = Verdict(0, "unknown", None, None, "continue", "Nothing observed yet.")
        self._waiting = Waiting()  # what the signals have not seen yet
        self._plans = True
        self._plan()

    @property
    def verdict(self) -> Verdict:
        """The latest verdict."""
        return self._verdict

    @property
    def last_step(self) -> int | None:
        """The last step observed."""
        return self._last_step if self._last_step >= 0 else None

    @property
    def extra_inputs(self) -> frozenset[str]:
        """Measurements beyond the known ones that this monitor's signals ask for."""
        return frozenset(self._analyzer.extra_inputs - MEASUREMENTS.keys())

    @property
    def own_inputs(self) -> frozenset[str]:
        """Everything that this monitor's own signals ask for."""
        return frozenset(self._analyzer.extra_inputs)

    @property
    def catching_up(self) -> bool:
        """Whether steps seen before a resume are being repeated, and so ignored."""
        return self._ignored_until is not None

    def update(
        self,
        step: int,
        *,
        train_loss: float | None = None,
        train_accuracy: float | None = None,
        val_loss: float | None = None,
        val_accuracy: float | None = None,
        val_margin: float | None = None,
        grad_norm: float | None = None,
        weight_norm: float | None = None,
        **others: float | None,
    ) -> Verdict:
        """Take what was measured at ``step`` (any subset; None = not measured).

        Steps may be irregular and start anywhere, but never fall, except once right after a
        resume: what was seen before is then ignored until the run has caught up. Measurements of
        one step may come in several calls. Verdicts are formed on a fixed log-spaced grid of
        steps and at events; in between the latest one is returned.

        Args:
            step: optimiser step, >= 0.
            train_loss: training loss; NaN and inf are allowed, they mean something.
            train_accuracy: training accuracy as a fraction (see ``accuracy_unit``).
            val_loss: validation loss.
            val_accuracy: validation accuracy.
            val_margin: mean over validation examples of correct logit minus largest other.
            grad_norm: norm of the gradient.
            weight_norm: norm of all weights.
            **others: ``last_layer_norm``, ``update_cosine_distance``, ``learning_rate`` and the
                inputs of your own signals.

        Raises:
            TypeError: a measurement that is not one real number, or an unknown name.
            ValueError: an accuracy outside its range, a step going backwards, a measurement that
                came twice for one step with different values. Nothing is changed then.
        """
        # The hot path: a row that cannot change any verdict only waits.
        waiting = self._waiting
        if waiting.rows and waiting.rows >= waiting.room:
            self._absorb()
            self._plan()
        quiet = (
            waiting.rows < waiting.room
            and type(step) is int
            and self._last_step < step < self._next_evaluation
        )
        if (
            val_loss is None
            and val_accuracy is None
            and val_margin is None
            and grad_norm is None
            and weight_norm is None
            and not others
        ):
            if quiet and waiting.take_loss(step, train_loss, train_accuracy):
                self._last_step = step
                return self._verdict
            return self._update(step, {"train_loss": train_loss, "train_accuracy": train_accuracy})
        arrived = {
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "val_margin": val_margin,
            "grad_norm": grad_norm,
            "weight_norm": weight_norm,
            **others,
        }
        row = {name: value for name, value in arrived.items() if value is not None}
        if quiet and row and waiting.take(step, row):
            self._last_step = step
            return self._verdict
        return self._update(step, row)

    def extend(self, columns: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]) -> list[Verdict]:
        """Take many measurements at once: what :meth:`update` row by row would do, but faster.

        Args:
            columns: measurement -> (steps, values), each of shape (n,), steps ascending.

        Returns:
            The verdicts formed, in step order, the last one of each step.

        Raises:
            TypeError, ValueError: as :meth:`update`; what came before the step named is taken.

        >>> monitor = Monitor(budget=100)
        >>> [v.step for v in monitor.extend({"train_loss": ([1, 2, 3, 99], [4, 3, 2, 1])})]
        [1, 2, 3, 99]
        """
        self._absorb()
        self._waiting.room, self._plans = 0, False  # whole columns need not wait row by row
        try:
            return extend(self, columns)
        finally:
            self._plans = True
            self._plan()

    def _update(self, step: int, arrived: Mapping[str, float | None]) -> Verdict:
        step = check_step(step)
        measured: dict[str, float] = {}
        for name in sorted(arrived, key=order):
            value = arrived[name]
            if value is None:
                continue
            if name not in MEASUREMENTS and name not in self._analyzer.extra_inputs:
                raise TypeError(
                    f"update got an unknown measurement {name!r}; it knows {sorted(MEASUREMENTS)} "
                    f"and the inputs of the signals given to Monitor(signals=...)."
                )
            number = check_measurement(name, value, self._percent)
            if number is not None:
                measured[name] = number
        self._absorb()
        if self._seen_before(step, measured) or not self._new_in_row(step, measured):
            return self._verdict
        before = self._analyzer.mark()
        for name, value in measured.items():
            self._analyzer.take(step, name, value)
        self._last_step = step
        self._row.update(measured)
        event = self._analyzer.mark() != before
        if event or step >= self._next_evaluation or step == self._evaluated:
            again = step == self._evaluated
            self._verdict = self._judge.verdict(step, self._analyzer, again)
            self._evaluated, self._next_evaluation = step, next_on_grid(step)
        self._plan()
        return self._verdict

    def _seen_before(self, step: int, measured: dict[str, float]) -> bool:
        """Whether the step was seen before a resume; raises if it goes back otherwise."""
        resumed, self._resumed = self._resumed, False
        repeated = step == self._last_step and not self._row.keys().isdisjoint(measured)
        if resumed and (step < self._last_step or repeated):
            self._ignored_until = self._last_step
        if self._ignored_until is not None:
            if step <= self._ignored_until:
                return True
            self._ignored_until = None
        if step < self._last_step:
            raise StepError(
                f"step went backwards from {self._last_step} to {step}; steps may only grow "
                f"(after a resume call load_state_dict first, then one step back is fine)."
            )
        return False

    def _new_in_row(self, step: int, measured: dict[str, float]) -> bool:
        """Drop repeated values of this step; raise if a value contradicts what came before."""
        if not measured:
            return False
        if step > self._last_step:
            self._row = {}
            self._analyzer.begin_row()
        for name in [name for name in measured if name in self._row]:
            first, again = self._row[name], measured.pop(name)
            if again != first and not (math.isnan(first) and math.isnan(again)):
                raise ValueError(
                    f"{name} of step {step} came twice: first {first:.9g}, now {again:.9g}. "
                    f"Pass a larger step, or average what belongs to one step."
                )
        return bool(measured)

    def _absorb(self) -> None:
        """Hand what waits to the signals."""
        if self._waiting.rows:
            self._row = self._waiting.hand_over(self._analyzer, self._last_step)

    def _take_quiet(self, rows: Rows, start: int, most: int) -> int:
        """Take rows from ``start`` on as long as none can change any verdict; how many."""
        self._absorb()
        ranges = self._analyzer.quiet_columns()
        resumed = self._resumed or self.catching_up
        if resumed or not ranges or rows.step(start) <= self._last_step:
            return 0
        piece = rows.quiet(start, start + most, self._next_evaluation, ranges, self._percent)
        if "train_loss" in piece:
            steps, losses = piece["train_loss"]
            calm = self._analyzer.slingshot.calm_for(losses)
            if calm < len(losses):
                piece = before_step(piece, int(steps[calm]))
        if not piece:
            return 0
        for name, (steps, values) in piece.items():
            self._analyzer.extend_quiet(name, steps, values)
        self._last_step = max(int(steps[-1]) for steps, _ in piece.values())
        self._row = {
            name: float(values[-1])
            for name, (steps, values) in piece.items()
            if steps[-1] == self._last_step
        }
        self._plan()
        return rows.at(self._last_step + 1) - start

    def _plan(self) -> None:
        """Settle what may wait from now on."""
        if not self._plans:
            return
        at_once = self._resumed or self.catching_up
        self._waiting.plan(self._analyzer, self._percent, at_once)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, as plain JSON-able Python (at most 64 kB)."""
        self._absorb()
        self._plan()
        return {
            "version": STATE_VERSION,
            "thresholds": self._thresholds(),
            "last_step": self._last_step,
            "row": {name: repr(value) for name, value in self._row.items()},
            "evaluated": self._evaluated,
            "next_evaluation": self._next_evaluation,
            "judge": self._judge.state_dict(),
            "verdict": self._verdict.as_dict(),
            "analyzer": self._analyzer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state, bit for bit; the next step may go back once.

        Raises:
            ValueError: another version, other thresholds, or a missing key, which is named.
        """
        if take(state, "version") != STATE_VERSION:
            raise ValueError(
                f"the saved state is of version {state['version']}; this grokwatch reads "
                f"{STATE_VERSION}."
            )
        saved, mine = take(state, "thresholds"), self._thresholds()
        if saved != mine:
            raise ValueError(
                f"the state was saved with {saved} but this monitor has {mine}; its milestones "
                f"would not mean the same. Create the monitor with the saved thresholds."
            )
        clock = {key: take(state, key) for key in _CLOCK}
        row = {name: float(value) for name, value in clock["row"].items()}
        verdict = Verdict.from_dict(take(state, "verdict"))
        self._absorb()
        before = self._analyzer.state_dict()
        try:
            self._analyzer.load_state_dict(take(state, "analyzer"))
            self._judge.load_state_dict(clock["judge"])
        except Exception:  # all or nothing
            self._analyzer.load_state_dict(before)
            self._plan()
            raise
        self._reset_clock()
        self._last_step = clock["last_step"]
        self._row = row
        self._evaluated = clock["evaluated"]
        self._next_evaluation = clock["next_evaluation"]
        self._verdict = verdict
        self._resumed = True
        self._plan()

    def _thresholds(self) -> dict[str, float | None]:
        phases = self._analyzer.phases
        return {
            "chance": phases.chance,
            "memorised_at": phases.memorised_at,
            "generalised_at": phases.generalised_at,
        }
