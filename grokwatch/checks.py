"""Does a signal of your own keep the contract? ``check_signal`` tells, in words.

from grokwatch.checks import check_signal
check_signal(MySignal)          # silent, or a ContractError that says what is broken
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

from grokwatch.ingest import MEASUREMENTS, float32
from grokwatch.signals.base import Signal


class ContractError(Exception):
    """A signal breaks the contract of :mod:`grokwatch.signals.base`; the message says how."""


def check_signal(make: Callable[[], Signal], seed: int = 0, steps: int = 200) -> None:
    """Feed a signal a random run and check that it keeps the contract.

    Checked: it has the parts a signal needs; the same measurements give the same values; reading
    changes nothing; the order of measurements within a step does not matter; NaN and inf are
    survived and never reported as known; values are real numbers by name; the saved state is
    JSON-able and going on from it, at any moment, is bit-identical.

    Args:
        make: makes a fresh signal, the same every time.
        seed: of the random run.
        steps: length of the random run.

    Raises:
        ContractError: what is broken, and where.

    >>> from grokwatch.signals.fourier import FourierConcentration
    >>> check_signal(FourierConcentration)
    """
    signal = make()
    if not isinstance(signal, Signal):
        wanted = ("name", "inputs", "update", "values", "state_dict", "load_state_dict")
        lacking = [part for part in wanted if not hasattr(signal, part)]
        raise ContractError(f"{type(signal).__name__} lacks {lacking}.")
    if isinstance(signal.inputs, str) or not all(isinstance(n, str) for n in signal.inputs):
        raise ContractError(f"inputs must be a tuple of names but is {signal.inputs!r}.")
    rows = _random_run(signal.inputs, seed, steps)
    plain = _readings(make(), rows)
    _compare(plain, _readings(make(), rows), "fed the same run twice")
    _compare(plain, _readings(make(), rows, read_twice=True), "read twice in a row")
    turned = [(step, list(reversed(row))) for step, row in rows]
    _compare(plain, _readings(make(), turned), "given the measurements of a step in another order")
    for at in (0, 1, steps // 3, steps - 1):
        _compare(plain, _readings(make(), rows, restart_at=at, make=make), f"resumed at row {at}")


def _random_run(
    inputs: tuple[str, ...], seed: int, steps: int
) -> list[tuple[int, list[tuple[str, float]]]]:
    source = random.Random(seed)
    rows, step = [], 0
    for _ in range(steps):
        step += source.choice((1, 1, 1, 7))
        row = []
        for name in inputs:
            if source.random() < 0.3:
                continue
            value = source.random() if MEASUREMENTS.get(name) == "fraction" else source.gauss(1, 1)
            if MEASUREMENTS.get(name) in ("norm", "loss"):
                value = abs(value)
            if MEASUREMENTS.get(name) != "fraction" and source.random() < 0.05:
                value = source.choice((math.nan, math.inf))
            row.append((name, float32(value)))
        rows.append((step, row))
    return rows


def _readings(
    signal: Signal,
    rows: list[tuple[int, list[tuple[str, float]]]],
    read_twice: bool = False,
    restart_at: int | None = None,
    make: Callable[[], Signal] | None = None,
) -> list[dict[str, Any]]:
    readings = []
    for index, (step, row) in enumerate(rows):
        if index == restart_at and make is not None:
            try:
                text = json.dumps(signal.state_dict())
            except TypeError as error:
                raise ContractError(f"state_dict() is not JSON-able: {error}.") from None
            signal = make()
            signal.load_state_dict(json.loads(text))
        for name, value in row:
            signal.update(step, name, value)
        if read_twice:
            signal.values()
        reading = dict(signal.values())
        for name, value in reading.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ContractError(
                    f"values()[{name!r}] must be a real number but is {value!r} at step {step}."
                )
            if not math.isfinite(value):
                raise ContractError(
                    f"values()[{name!r}] is {value} at step {step}; leave out what is not known."
                )
        readings.append(reading)
    return readings


def _compare(want: list[dict[str, Any]], got: list[dict[str, Any]], how: str) -> None:
    for row, (one, other) in enumerate(zip(want, got, strict=True)):
        if one != other:
            names = sorted(n for n in {*one, *other} if one.get(n) != other.get(n))
            raise ContractError(
                f"{how}, the signal reads differently from row {row} on: {names[0]} is "
                f"{other.get(names[0])} instead of {one.get(names[0])}."
            )
