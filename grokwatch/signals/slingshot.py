"""Slingshot spikes of the training loss (Thilak et al. 2022, arXiv:2206.04817; Arn 2023).

Works on log10 loss. A spike starts when the loss passes its rolling median by a decade (and by
eight robust deviations, if those are wider), and ends when it has come half-way back down. A
median below the resolution of a float32 cross-entropy (1.2e-7) counts as that resolution there. The
papers give no thresholds; these are ours. Spikes are looked for only once the training set is
(nearly) memorised, because an untrained network's loss is noisy.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from typing import Any

import numpy as np

from grokwatch.history import FloatArray, Steps, Values, Window
from grokwatch.ingest import FLOAT32_MAX, float32
from grokwatch.state import take

_FLOOR = 1e-12
# A float32 cross-entropy comes in quanta of 1.2e-7 an example; a mean below that is rounding noise.
_QUANTUM = 2.0**-23
_BLOCK = 32  # losses between two refreshes of the baseline
_WAITING = 1024  # most losses taken before they are looked at; memory stays bounded
_GROUP = 8  # many losses are looked at together, then by eighths where a spike may be
_MARGIN = 1e-6  # decades; more than rounding a threshold to float32 can matter
_MAD_TO_SIGMA = 1.4826
_WITNESSES = 16  # companions measured before a spike that those during it are held against


class Slingshot:
    """Finds spikes, one alarm each; amplitude in decades, width and period in steps.

    Args:
        min_decades: least rise above the rolling median of log10 loss.
        deviations: least rise in robust standard deviations (1.4826 · MAD).
        window: losses the median is taken over; spikes themselves are left out.
        refractory: steps after a spike in which a second rise belongs to the same spike.

    A rise that has not come back after ``window`` losses is a change of level: it ends the spike
    (its alarm stands) and becomes the new baseline. NaN and inf are ignored here (the phase signal
    reports divergence); a negative loss switches the signal off for good, since it has no log.

    >>> slingshot = Slingshot()
    >>> slingshot.arm(0)
    >>> for step in range(1, 200): slingshot.update(step, "train_loss", 1e-3 if step != 150 else 1.)
    >>> {key: round(value, 6) for key, value in slingshot.values().items()}
    {'spikes': 1.0, 'spike_step': 150.0, 'spike_amplitude': 3.0, 'spike_width': 1.0}
    """

    name = "slingshot"
    inputs = ("train_loss", "grad_norm", "update_cosine_distance")

    def __init__(
        self,
        min_decades: float = 1.0,
        deviations: float = 8.0,
        window: int = 128,
        refractory: int = 20,
    ) -> None:
        if min_decades <= 0:
            raise ValueError(f"min_decades must be positive but got {min_decades}.")
        self.min_decades, self.deviations, self.refractory = min_decades, deviations, refractory
        self._calm = Window(window)
        self._reset()

    def _reset(self) -> None:
        self._calm.clear()
        self._seen = 0  # calm losses so far; the baseline is refreshed at multiples of _BLOCK
        self.off = False
        self._armed_after: int | None = None
        self._baseline = 0.0  # log10 loss
        self._onset_level = math.inf  # log10 loss above which a spike starts
        self.threshold = FLOAT32_MAX  # the same as a float32 loss: at or below it nothing happens
        self._open: dict[str, Any] | None = None  # the spike under way or still mergeable
        self._last: dict[str, Any] | None = None  # the latest that is over
        self._onsets: deque[int] = deque(maxlen=17)
        self.count = 0
        self._others: dict[str, deque[tuple[int, float]]] = {
            name: deque(maxlen=24) for name in self.inputs[1:]
        }

    @property
    def busy(self) -> bool:
        """Whether every loss must be looked at (a spike is under way or just over)."""
        return self._open is not None

    @property
    def armed_after(self) -> int | None:
        """What :meth:`arm` was last told."""
        return self._armed_after

    @property
    def until_refresh(self) -> int:
        """How many more calm losses until the baseline is recomputed."""
        return _BLOCK if self.off else _BLOCK - self._seen % _BLOCK

    @property
    def quiet(self) -> tuple[float, float, int]:
        """Losses in this closed range start no spike, so many of them; while none is under way.

        Whatever the baselines to come, none lies below the lowest loss they are taken from. Where
        recent losses keep so close together that this tells enough, many may wait together.
        """
        if self.off:
            return (-FLOAT32_MAX, FLOAT32_MAX, _WAITING)
        if self._armed_after is None:
            return (0.0, FLOAT32_MAX, _WAITING)
        if len(self._calm):
            levels = self._calm.values
            low = float(levels.min()) / 2.0  # room for a loss that falls
            lowest = math.log10(max(low, _QUANTUM))
            high = self._threshold(lowest + self.min_decades - _MARGIN)
            if float(levels.max()) <= high:
                return (float32(low), min(high, self.threshold), _WAITING)
        return (0.0, self.threshold, self.until_refresh)

    @property
    def onset(self) -> int | None:
        """Step of the latest alarm."""
        return self._onsets[-1] if self._onsets else None

    def arm(self, step: int | None) -> None:
        """Look for spikes from the step after ``step`` on; None: not yet, after all."""
        if step != self._armed_after:
            self._armed_after = step
            self._set_threshold()

    def update(self, step: int, name: str, value: float) -> None:
        """Take one measurement: the training loss, or a companion for corroboration."""
        if name != "train_loss":
            if value - value == 0.0:
                self._others[name].append((step, value))
                spike = self._open or self._last
                if spike is not None and step <= spike.get("end", step):
                    _witness(spike, name, value)
        elif value < 0.0:
            self.off, self.threshold, self._open = True, FLOAT32_MAX, None
        elif value - value == 0.0 and not self.off:
            self._add(step, value)

    def extend_calm(self, steps: Steps, losses: Values) -> None:
        """Take losses known to be finite, >= 0 and at most ``threshold``, none under a spike."""
        if self.off:
            return
        n = len(losses)
        whole = n - (self._seen + n) % _BLOCK  # of several refreshes only the last one stays
        if whole > 0:
            self._calm.extend(steps[:whole], losses[:whole])
            self._seen += whole
            self._refresh()
        start = max(whole, 0)
        self._calm.extend(steps[start:], losses[start:])
        self._seen += n - start

    def extend_companion(self, name: str, steps: Steps, values: Values) -> None:
        """Take several values of one companion, finite, while no spike is under way."""
        recent = self._others[name]
        keep = recent.maxlen or 0
        for step, value in zip(steps[-keep:], values[-keep:], strict=True):
            recent.append((int(step), float(value)))

    def calm_for(self, losses: FloatArray) -> int:
        """How many of the losses to come, from the first on, start no spike; changes nothing.

        Args:
            losses: float32 values >= 0, shape (n,), while no spike is under way.
        """
        head, n = self.until_refresh, len(losses)
        over = np.flatnonzero(losses[:head] > self.threshold)
        if over.size:
            return int(over[0])
        if n <= head or self.off or self._armed_after is None:
            return n
        before = self._calm.values
        levels = np.maximum(np.concatenate([before, losses]), _FLOOR)
        return self._calm_until(levels, len(before), head, n)

    def _calm_until(self, losses: FloatArray, before: int, start: int, stop: int) -> int:
        """The first loss in start..stop that starts a spike, counted after those ``before``."""
        near = losses[max(0, before + start - self._calm.size) : before + stop]
        # No median lies below the lowest level, so the threshold cannot either.
        lowest = max(math.log10(near.min()), math.log10(_QUANTUM))
        if math.log10(near.max()) <= lowest + self.min_decades - _MARGIN:
            return stop
        if stop - start > _BLOCK:
            size = _BLOCK
            while size * _GROUP < stop - start:
                size *= _GROUP
            for at in range(start, stop, size):
                end = min(at + size, stop)
                calm = self._calm_until(losses, before, at, end)
                if calm < end:
                    return calm
            return stop
        past = losses[max(0, before + start - self._calm.size) : before + start]
        threshold = self._threshold(self._levels(np.log10(past))[1])
        over = np.flatnonzero(losses[before + start : before + stop] > threshold)
        return start + int(over[0]) if over.size else stop

    def _add(self, step: int, loss: float) -> None:
        spike = self._open
        armed = self._armed_after is not None and step > self._armed_after
        level = math.log10(max(loss, _FLOOR))
        above = armed and loss > self.threshold
        if spike is None:
            if above:
                self._start(step, level)
            else:
                self.extend_calm((step,), (loss,))
            return
        if "end" in spike:  # just over: either a second rise of the same spike, or done with it
            if step - spike["end"] > self.refractory:
                self._last, self._open = spike, None
                self._add(step, loss)
            elif level > spike["onset_level"]:
                self._recall(spike, since=spike.pop("end") + 1)
                spike["peak"] = max(spike["peak"], level)
            else:
                self.extend_calm((step,), (loss,))
            return
        spike["rows"] += 1
        spike["peak"] = max(spike["peak"], level)
        if level <= (spike["baseline"] + spike["onset_level"]) / 2:
            spike["end"] = step
            self.extend_calm((step,), (loss,))
        elif spike["rows"] > self._calm.size:  # it stays up: the loss has a new level
            spike["end"] = step
            self._last, self._open = spike, None
            self._calm.clear()
            self._seen = 0
            self._onset_level = math.inf
            self._set_threshold()

    def _start(self, step: int, level: float) -> None:
        self._open = {
            "onset": step,
            "baseline": self._baseline,
            "onset_level": self._onset_level,
            "peak": level,
            "rows": 1,
            "witnesses": {},  # companion -> its median before and its largest value during
        }
        for name, recent in self._others.items():
            before = [value for at, value in recent if at < step - 1][-_WITNESSES:]
            if before:
                self._open["witnesses"][name] = [float(np.median(before)), None]
        self._recall(self._open, since=step - 1)
        self._last = None
        self._onsets.append(step)
        self.count += 1

    def _recall(self, spike: dict[str, Any], since: int) -> None:
        """Let the companions measured from ``since`` on witness the spike."""
        for name, recent in self._others.items():
            for step, value in recent:
                if step >= since:
                    _witness(spike, name, value)

    def _refresh(self) -> None:
        levels = np.log10(np.maximum(self._calm.values, _FLOOR))
        self._baseline, self._onset_level = self._levels(levels)
        self._set_threshold()

    def _levels(self, levels: FloatArray) -> tuple[float, float]:
        """Baseline and onset level for calm levels (log10 loss)."""
        middle = len(levels) // 2
        levels = np.sort(levels)
        baseline = float(levels[middle])
        spread = float(np.sort(np.abs(levels - baseline))[middle])
        rise = max(self.min_decades, self.deviations * _MAD_TO_SIGMA * spread)
        return baseline, max(baseline, math.log10(_QUANTUM)) + rise

    def _set_threshold(self) -> None:
        self.threshold = FLOAT32_MAX
        if self._armed_after is not None and not self.off:
            self.threshold = self._threshold(self._onset_level)

    @staticmethod
    def _threshold(onset_level: float) -> float:
        return float32(10.0**onset_level) if onset_level < 38.0 else FLOAT32_MAX

    def values(self) -> dict[str, float]:
        """``spikes`` and, after the first, ``spike_step``, ``spike_amplitude`` (decades), width.

        ``spike_period`` (median steps between onsets) needs two; ``spike_corroborated`` (1 or 0)
        needs a gradient norm or update cosine distance measured during the spike.
        """
        if self.off or self._armed_after is None:
            return {}
        found = {"spikes": float(self.count)}
        spike = self._open or self._last
        if spike is None:
            return found
        found["spike_step"] = float(spike["onset"])
        found["spike_amplitude"] = spike["peak"] - spike["baseline"]
        if "end" in spike:
            found["spike_width"] = float(spike["end"] - spike["onset"])
        if len(self._onsets) > 1:
            gaps = np.diff(np.array(self._onsets))
            found["spike_period"] = float(np.median(gaps))
        heard = [pair for pair in spike["witnesses"].values() if pair[1] is not None]
        if heard:  # gradient norm or update angle was at least tripled during the spike
            tripled = any(during >= 3.0 * before for before, during in heard)
            found["spike_corroborated"] = float(tripled)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state."""
        return {
            "calm": self._calm.state_dict(),
            "seen": self._seen,
            "off": self.off,
            "armed_after": self._armed_after,
            "baseline": self._baseline,
            "onset_level": self._onset_level if self._onset_level < math.inf else None,
            "open": copy.deepcopy(self._open),
            "last": copy.deepcopy(self._last),
            "onsets": list(self._onsets),
            "count": self.count,
            "others": {name: [list(item) for item in seen] for name, seen in self._others.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._reset()
        self._calm.load_state_dict(take(state, "calm"))
        self._seen = take(state, "seen")
        self.off = take(state, "off")
        self._armed_after = take(state, "armed_after")
        self._baseline = take(state, "baseline")
        level = take(state, "onset_level")
        self._onset_level = math.inf if level is None else level
        self._open = copy.deepcopy(take(state, "open"))
        self._last = copy.deepcopy(take(state, "last"))
        self._onsets.extend(take(state, "onsets"))
        self.count = take(state, "count")
        others = take(state, "others")
        for name, seen in self._others.items():
            seen.extend((step, value) for step, value in take(others, name))
        self._set_threshold()


def _witness(spike: dict[str, Any], name: str, value: float) -> None:
    pair = spike["witnesses"].get(name)
    if pair is not None and (pair[1] is None or value > pair[1]):
        pair[1] = value
