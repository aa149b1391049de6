"""What a monitor refuses, and signals of one's own."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from grokwatch import Monitor
from tests.streams import Drop, Failing, begun

# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step, row, error, parts", [
    (98, {"train_loss": 1.0}, ValueError, ["went backwards from 100 to 98", "only grow", "resume"]),
    (100, {"train_loss": 2.0}, ValueError, ["train_loss of step 100 came twice", "first 1", "now 2",
                                            "larger step", "average"]),
    (101, {"train_accuracy": 97.0}, ValueError, ["train_accuracy", "0..1", "got 97.0", "divide",
                                                 "accuracy_unit='percent'"]),
    (101, {"val_accuracy": -0.5}, ValueError, ["val_accuracy", "0..1", "got -0.5"]),
    (101, {"grad_norm": -1.0}, ValueError, ["grad_norm", "negative", "-1.0"]),
    (101, {"train_los": 1.0}, TypeError, ["unknown measurement 'train_los'", "train_loss",
                                          "Monitor(signals=...)"]),
    (101, {"train_loss": "1.0"}, TypeError, ["train_loss", "real number", "'1.0'"]),
    (101, {"train_loss": np.ones(3)}, TypeError, ["train_loss", "shape (3,)", "mean"]),
    (101, {"height": [1.0]}, TypeError, ["height", "list [1.0]"]),
    (101.0, {"train_loss": 1.0}, TypeError, ["step must be an integer", "101.0", "float"]),
    (-1, {"train_loss": 1.0}, ValueError, ["step cannot be negative", "-1"]),
    (10**18, {"train_loss": 1.0}, ValueError, ["step must be at most", str(10**18), "not a time"]),
    # The good part of a bad row is not taken either.
    (101, {"train_loss": 0.5, "val_loss": 1.0, "val_accuracy": 50.0}, ValueError, ["val_accuracy"]),
])  # fmt: skip
def test_one_clear_error_that_changes_nothing(step, row, error, parts):
    monitor = begun()
    before, verdict = monitor.state_dict(), monitor.verdict
    with pytest.raises(error) as caught:
        monitor.update(step, **row)
    for part in parts:
        assert part in str(caught.value)
    assert monitor.state_dict() == before
    assert monitor.verdict is verdict
    monitor.update(101, train_loss=1.0, train_accuracy=1.0)
    assert monitor.last_step == 101


def test_the_same_value_twice_is_fine():
    monitor = begun()
    before = monitor.state_dict()
    monitor.update(100, train_loss=1.0, train_accuracy=1.0)
    assert monitor.state_dict() == before
    for _ in range(2):
        monitor.update(102, train_loss=math.nan)


@pytest.mark.parametrize("signal, error, message", [
    (object(), TypeError, "signals must have name, inputs, update"),
    (Drop, TypeError, None),
])  # fmt: skip
def test_what_is_no_signal(signal, error, message):
    if message is None:  # a class has all the parts; it fails at its first measurement
        with pytest.warns(RuntimeWarning, match="'drop' failed and is switched off"):
            Monitor(budget=10, signals=[signal]).update(0, train_loss=1.0)
        return
    with pytest.raises(error, match=message):
        Monitor(budget=10, signals=[signal])


def test_two_signals_of_one_name():
    with pytest.raises(ValueError, match="two signals are called 'drop'; rename one"):
        Monitor(budget=10, signals=[Drop(), Drop()])
    phase = Drop()
    phase.name = "phase"
    with pytest.raises(ValueError, match="two signals are called 'phase'"):
        Monitor(budget=10, signals=[phase])


# -- a signal of one's own -------------------------------------------------------------------------


def test_a_signal_of_ones_own():
    monitor = Monitor(budget=1000, signals=[Drop()])
    assert monitor.extra_inputs == {"height"}
    for step in range(300):
        verdict = monitor.update(step, train_loss=1.0, height=10.0 - step)
    assert verdict.signals["drop"] == verdict.step
    assert verdict.signals["losses"] == verdict.step + 1
    assert verdict.signals["height"] == 10 - verdict.step


@pytest.mark.parametrize("where", ["update", "values"])
def test_a_signal_that_fails_is_told_once_and_left_out(where):
    plain = Monitor(budget=1000, signals=[])
    monitor = Monitor(budget=1000, signals=[Failing(where, after=20)])
    with pytest.warns(RuntimeWarning) as told:
        for step in range(300):
            want = plain.update(step, train_loss=1.0)
            verdict = monitor.update(step, train_loss=1.0)
    assert [str(warning.message) for warning in told] == [
        "the signal 'drop' failed and is switched off: KeyError: 'my mistake'"
    ]
    assert verdict == want
    # It stays off in what is resumed, and is not asked to restore anything.
    other = Monitor(budget=1000, signals=[Failing("load_state_dict")])
    other.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    assert other.update(300, train_loss=1.0) == plain.update(300, train_loss=1.0)


def test_a_signal_that_cannot_be_saved_or_restored():
    monitor = Monitor(budget=1000, signals=[Failing("state_dict")])
    monitor.update(0, train_loss=1.0)
    with pytest.warns(RuntimeWarning, match="my mistake"):
        saved = monitor.state_dict()
    assert monitor.state_dict() == saved
    monitor = Monitor(budget=1000, signals=[Drop()])
    monitor.update(0, train_loss=1.0)
    other = Monitor(budget=1000, signals=[Failing("load_state_dict")])
    with pytest.warns(RuntimeWarning, match="my mistake"):
        other.load_state_dict(monitor.state_dict())
    assert "losses" not in other.update(1, train_loss=1.0).signals


def test_values_that_are_not_finite_are_left_out():
    class Odd(Drop):
        def values(self):
            return {"odd": math.nan, "even": np.float32(2.0)}

    verdict = Monitor(budget=10, signals=[Odd()]).update(0, train_loss=1.0)
    assert "odd" not in verdict.signals
    assert type(verdict.signals["even"]) is float
