"""Wires the signals together: what goes to whom, what comes out, and when nothing can happen."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from grokwatch.history import History, Steps, Values
from grokwatch.ingest import FLOAT32_MAX, MEASUREMENTS, PROBED
from grokwatch.signals.base import Signal
from grokwatch.signals.phase import Phases
from grokwatch.signals.slingshot import Slingshot
from grokwatch.signals.spectral import Spectral
from grokwatch.signals.transition import Transition
from grokwatch.signals.trend import trends
from grokwatch.state import take
from grokwatch.verdict import Phase

_REFIT_AFTER = 1.5  # a fit costs milliseconds: while a jump goes on it is renewed this rarely
_NORMS = [name for name, kind in MEASUREMENTS.items() if kind == "norm" and name not in PROBED]
_NO_FIT: dict[str, Any] = {"step": 0, "phase": None, "known": {}}


class Analyzer:
    """History and signals of one run.

    Args:
        phases: the milestones to look for.
        signals: a user's own signals, see :mod:`grokwatch.signals.base`.

    Raises:
        TypeError: something that is not a signal.
        ValueError: two signals of one name.
    """

    def __init__(self, phases: Phases, signals: Sequence[Signal] = ()) -> None:
        self.history = History()
        self.probed: dict[str, float] = {}  # only the latest is kept: these are many, and rare
        self.phases = phases
        self.slingshot, self.spectral, self.transition = Slingshot(), Spectral(), Transition()
        self.own: dict[str, Signal] = {}
        for signal in signals:
            if not isinstance(signal, Signal):
                raise TypeError(
                    f"signals must have name, inputs, update, values, state_dict and "
                    f"load_state_dict, but got {signal!r}; see grokwatch.signals.base."
                )
            if signal.name in self.own or signal.name in self._built_in():
                raise ValueError(f"two signals are called {signal.name!r}; rename one.")
            self.own[signal.name] = signal
        self.fits_jumps = True  # most of the time of judging a short run, and no stop looks at it
        # The latest fit of the jump, before and after the last verdict.
        self._fits: list[dict[str, Any]] = [dict(_NO_FIT), dict(_NO_FIT)]
        self.switched_off: set[str] = set()
        self.extra_inputs = {name for signal in signals for name in signal.inputs}

    def begin_row(self) -> None:
        """A new step: what the last one showed takes effect, whatever the order of its parts."""
        self.slingshot.arm(self.phases.t2)

    def take(self, step: int, name: str, value: float) -> None:
        """Hand one measurement to everything that wants it."""
        if name not in PROBED:
            self.history.extend(name, (step,), (value,))
        elif math.isfinite(value):
            self.probed[name] = value
        for signal in (self.phases, self.slingshot, self.spectral, self.transition):
            if name in signal.inputs:
                signal.update(step, name, value)
        for own in self.own.values():
            if name in own.inputs and own.name not in self.switched_off:
                try:
                    own.update(step, name, value)
                except Exception as error:  # somebody else's code: told once, then left out
                    self._switch_off(own.name, error)

    def extend_loss(self, steps: Steps, losses: Values) -> None:
        """Take training losses that lay in the quiet range."""
        self.history.extend("train_loss", steps, losses)
        self.spectral.extend(steps, losses)
        self.slingshot.extend_calm(steps, losses)

    def mark(self) -> tuple[Phase, tuple[bool, bool], tuple[bool, bool], int]:
        """Changes exactly when there is an event: phase, what it rests on, number of spikes."""
        phases = self.phases
        return (phases.phase, phases.basis, phases.measured, self.slingshot.count)

    def quiet_rows(self) -> tuple[int, dict[str, tuple[float, float]]]:
        """So many rows, and the ranges of their measurements, that cannot change any verdict."""
        ranges = self.quiet_columns()
        if not ranges:
            return 0, ranges
        low, high, rows = self.slingshot.quiet
        ranges["train_loss"] = (
            max(ranges["train_loss"][0], low),
            min(ranges["train_loss"][1], high),
        )
        for name in self.extra_inputs:  # somebody else's signal sees them one by one
            ranges.pop(name, None)
        return rows, ranges

    def quiet_columns(self) -> dict[str, tuple[float, float]]:
        """Measurement -> closed range that cannot change any verdict; {} = every row is wanted.

        The loss must also start no spike: see :meth:`Slingshot.calm_for`.
        """
        phases = self.phases
        if self.slingshot.busy or self.slingshot.armed_after != phases.t2:
            return {}
        low, high = phases.quiet
        anything, size = (-FLOAT32_MAX, FLOAT32_MAX), (0.0, FLOAT32_MAX)
        ranges = dict.fromkeys(_NORMS, size)
        ranges["train_loss"] = (low if self.slingshot.off else max(low, 0.0), high)
        ranges["train_accuracy"] = phases.quiet_accuracy
        ranges["val_loss"] = phases.quiet_val_loss
        ranges["val_accuracy"] = phases.quiet_val_accuracy
        ranges["val_margin"] = anything
        if phases.told_chance:
            ranges["chance"] = (0.0, 1.0)
        return ranges

    def extend_quiet(self, name: str, steps: Steps, values: Values) -> None:
        """Take measurements that lay in the quiet range, as if one by one."""
        if name == "train_loss":
            self.extend_loss(steps, values)
            return
        self.history.extend(name, steps, values)
        if name == "train_accuracy":
            self.transition.extend_train(steps, values)
        elif name == "val_accuracy":
            self.transition.extend_val(steps, values)
        elif name in self.slingshot.inputs:
            self.slingshot.extend_companion(name, steps, values)

    def signals(self, step: int, again: bool = False) -> dict[str, float]:
        """Everything known and finite at ``step``; fits the S-shape once a jump has begun.

        Args:
            step: the step of the verdict.
            again: the last verdict was of the same step, of which only a part had arrived.
        """
        if not again:
            self._fits[0] = self._fits[1]
        self._fits[1] = self._refitted(step, self._fits[0])
        bins = self.history.bins
        known = {name: bins[name] for name in MEASUREMENTS if name in bins} | bins  # in one order
        found = {name: kept.last[1] for name, kept in known.items() if kept.last is not None}
        found.update(self.probed)
        found.update(self.phases.values())
        found.update(self.slingshot.values())
        found.update(self.spectral.values())
        found.update(trends(self.history))
        found.update(self._fits[1]["known"])
        for own in self.own.values():
            if own.name in self.switched_off:
                continue
            try:
                found.update({name: float(value) for name, value in own.values().items()})
            except Exception as error:
                self._switch_off(own.name, error)
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _refitted(self, step: int, last: dict[str, Any]) -> dict[str, Any]:
        """The fit of the jump, made anew if the phase is new or the run half as long again."""
        t4, phase = self.phases.t4, self.phases.phase
        over = t4 is not None and step > 2 * t4 + 100
        stale = phase != last["phase"] or step >= _REFIT_AFTER * last["step"]
        if not self.fits_jumps or over or not stale or not self.transition.begun:
            return last
        self.transition.refit()
        return {"step": step, "phase": phase, "known": self.transition.values()}

    def _switch_off(self, name: str, error: Exception) -> None:
        self.switched_off.add(name)
        warnings.warn(
            f"the signal {name!r} failed and is switched off: {type(error).__name__}: {error}",
            RuntimeWarning,
            stacklevel=2,
        )

    def _built_in(self) -> dict[str, Any]:
        return {
            "history": self.history,
            "phase": self.phases,
            "slingshot": self.slingshot,
            "spectral": self.spectral,
            "transition": self.transition,
        }

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state."""
        own: dict[str, Any] = {}
        for name, signal in self.own.items():
            if name not in self.switched_off:
                try:
                    own[name] = signal.state_dict()
                except Exception as error:
                    self._switch_off(name, error)
        return {
            **{name: part.state_dict() for name, part in self._built_in().items()},
            "probed": [self.probed.get(name) for name in sorted(PROBED)],
            "fits": [dict(fit) for fit in self._fits],
            "own": own,
            "switched_off": sorted(self.switched_off),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        for name, part in self._built_in().items():
            part.load_state_dict(take(state, name))
        probed = zip(sorted(PROBED), take(state, "probed"), strict=True)
        self.probed = {name: value for name, value in probed if value is not None}
        self._fits = [dict(fit) for fit in take(state, "fits")]
        self.switched_off = set(take(state, "switched_off"))
        own = take(state, "own")
        for name, signal in self.own.items():
            if name not in self.switched_off:
                saved = take(own, name)
                try:
                    signal.load_state_dict(saved)
                except Exception as error:
                    self._switch_off(name, error)
