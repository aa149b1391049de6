"""Batches of device scalars in, rows of numbers out."""

from __future__ import annotations

import math
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokwatch.integrations._drain import _ROWS, Drain


class Rows(list):
    def __call__(self, step, measured):
        self.append((step, measured))


def test_rows_wait_for_the_next_drain():
    rows = Rows()
    drain = Drain(rows)
    for step in range(1, _ROWS + 1):
        drain.train(step, {"train_loss": torch.tensor(float(step))})
    assert rows == []
    drain.train(_ROWS + 1, {"train_loss": 1.0})
    drain.train(_ROWS + 2, {"train_loss": 1.0})
    assert [step for step, _ in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= _ROWS
    drain.flush(everything=True)
    assert len(rows) == _ROWS + 2


def test_slow_steps_are_drained_by_the_clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    rows = Rows()
    drain = Drain(rows)
    for step in range(1, 7):
        drain.train(step, {"train_loss": 1.0})
        now[0] += 0.4
    assert [step for step, _ in rows] == [1, 2, 3]


def test_missing_measurements_are_averaged_over_what_there_is():
    rows = Rows()
    drain = Drain(rows)
    drain.train(1, {"train_loss": torch.tensor(1.0), "train_accuracy": None})
    drain.train(1, {"train_loss": 2.0, "train_accuracy": torch.tensor([0.5])})
    drain.train(1, {"train_loss": torch.tensor(6.0, dtype=torch.float64), "train_accuracy": 1.0})
    drain.flush(everything=True)
    assert rows == [(1, {"train_loss": 3.0, "train_accuracy": 0.75})]


def test_validation_makes_one_row_with_the_batches_of_its_step():
    rows = Rows()
    drain = Drain(rows)
    drain.train(1, {"train_loss": 1.0})
    drain.train(1, {"train_loss": 3.0})
    drain.now(1, {"val_loss": torch.tensor(4.0), "val_accuracy": None})
    assert rows == [(1, {"train_loss": 2.0, "val_loss": 4.0})]
    drain.train(1, {"train_loss": 9.0})  # too late
    drain.train(2, {"train_loss": 3.0})
    drain.now(3, {"val_loss": 5.0})
    drain.now(3, {"val_loss": 6.0})  # whether that makes sense is the monitor's business
    assert rows[1:] == [(2, {"train_loss": 3.0}), (3, {"val_loss": 5.0}), (3, {"val_loss": 6.0})]


def test_validation_of_an_earlier_step_leaves_the_step_under_way_open():
    rows = Rows()
    drain = Drain(rows)
    drain.train(1, {"train_loss": 1.0})
    drain.train(2, {"train_loss": 2.0})
    drain.now(1, {"val_loss": 5.0})
    drain.train(2, {"train_loss": 4.0})
    drain.flush(everything=True)
    assert rows == [(1, {"train_loss": 1.0, "val_loss": 5.0}), (2, {"train_loss": 3.0})]


def test_batches_after_a_flush_of_their_step_are_left_out():
    rows = Rows()
    drain = Drain(rows)
    drain.train(1, {"train_loss": 1.0})
    drain.flush(everything=True)
    drain.train(1, {"train_loss": 9.0})
    drain.train(2, {"train_loss": 2.0})
    drain.flush(everything=True)
    assert rows == [(1, {"train_loss": 1.0}), (2, {"train_loss": 2.0})]


def test_a_submission_that_flushes_keeps_the_order():
    seen = []

    def submit(step, measured):
        seen.append(step)
        if step in (2, 4):
            drain.flush(everything=True)

    drain = Drain(submit)
    for step in range(1, 7):
        drain.train(step, {"train_loss": 1.0})
    drain.flush()
    assert seen == [1, 2, 3, 4, 5, 6]


def test_memory_does_not_grow_while_the_clock_stands_still():
    drain = Drain(Rows())
    for _ in range(1000):
        drain.train(0, {"train_loss": torch.tensor(1.0)})
    assert len(drain._open) == 1 and not drain._rows
    drain.flush(everything=True)
    assert drain._submit == [(0, {"train_loss": 1.0})]


@pytest.mark.parametrize("line", range(1, 10))
def test_a_ctrl_c_at_any_line_costs_the_row_under_way_alone(line):
    rows, seen = Rows(), 0
    drain = Drain(rows)
    for step in (1, 2, 3):
        drain.train(step, {"train_loss": 1.0})

    def trace(frame, event, arg):
        nonlocal seen
        if frame.f_code.co_name == "_close_step" and event == "line":
            seen += 1
            if seen == line:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        drain.quick(4, 1.0)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    for step in (5, 6):
        drain.train(step, {"train_loss": 1.0})
    drain.flush(everything=True)
    lost = {4} if seen >= line else set()
    assert [step for step, _ in rows] == [n for n in range(1, 7) if n not in lost]


def test_restart_forgets():
    rows = Rows()
    drain = Drain(rows)
    drain.train(3, {"train_loss": 1.0})
    drain.restart(closed=7)
    drain.train(7, {"train_loss": 1.0})
    drain.train(8, {"train_loss": 1.0})
    drain.flush(everything=True)
    assert [step for step, _ in rows] == [8]


@pytest.mark.parametrize(
    "value", [torch.ones(2), torch.ones(0), torch.tensor(1j), np.ones(2), [1.0, 2.0], object()]
)
def test_what_is_not_one_number_is_an_error_with_the_name(value):
    with pytest.raises(TypeError, match="train_loss must be one real number"):
        Drain(Rows()).train(1, {"train_loss": value})


number = st.floats(width=32, allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize("at_once", [False, True])
@given(st.lists(st.tuples(st.lists(number, min_size=1, max_size=4), st.booleans()), max_size=130))
def test_every_row_comes_out_once_in_order_and_exact(at_once, steps):
    with mock.patch("grokwatch.integrations._drain._AT_ONCE", at_once):
        check_rows(steps)


def check_rows(steps):
    rows = Rows()
    drain = Drain(rows)
    want = []
    for step, (values, validate) in enumerate(steps):
        for value in values:
            drain.train(step, {"train_loss": torch.tensor(value)})
        total = torch.tensor(values[0])
        for value in values[1:]:
            total = total + torch.tensor(value)
        want.append((total / len(values)).item())
        if validate:
            drain.now(step, {"val_loss": values[0]})
    drain.flush(everything=True)
    trained = [(step, row["train_loss"]) for step, row in rows if "train_loss" in row]
    assert [step for step, _ in trained] == list(range(len(steps)))
    for (_, got), expected in zip(trained, want, strict=True):
        assert got == expected or (math.isnan(got) and math.isnan(expected))
    assert [step for step, _ in rows] == sorted(step for step, _ in rows)
