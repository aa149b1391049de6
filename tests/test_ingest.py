from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokwatch.ingest import FLOAT32_MAX, MEASUREMENTS, check_measurement, check_step, float32


@given(st.floats(allow_nan=False))
def test_float32_rounds_as_numpy_does(value):
    with np.errstate(over="ignore"):
        assert float32(value) == float(np.float32(value))


def test_float32_of_nan_and_of_its_largest_value():
    assert math.isnan(float32(math.nan))
    assert float(np.finfo(np.float32).max) == FLOAT32_MAX == float32(FLOAT32_MAX)


@pytest.mark.parametrize("step", [7, np.int32(7), np.int64(7), torch.tensor(7), np.array(7)])
def test_a_step_may_be_any_integer(step):
    assert check_step(step) == 7
    assert type(check_step(step)) is int


@pytest.mark.parametrize("step", [7.0, "7", None, True, np.float64(7), math.nan])
def test_a_step_that_is_not_an_integer(step):
    with pytest.raises(TypeError, match=r"step must be an integer.*but got"):
        check_step(step)


def test_a_step_out_of_range():
    with pytest.raises(ValueError, match=r"step cannot be negative but got -3\."):
        check_step(-3)
    with pytest.raises(ValueError, match="got 1700000000000000000; pass the optimiser step"):
        check_step(1_700_000_000_000_000_000)
    assert check_step(10**15) == 10**15


@pytest.mark.parametrize("make", [
    float, np.float32, np.float64, np.array, torch.tensor, lambda x: torch.tensor([x]),
    lambda x: torch.tensor(x, dtype=torch.float64), Decimal, Fraction,
    lambda x: torch.tensor(x, requires_grad=True),
])  # fmt: skip
@pytest.mark.parametrize("name", sorted(MEASUREMENTS))
def test_a_number_in_any_dress_is_the_same_number(name, make):
    assert check_measurement(name, make(0.1)) == float32(0.1)


def test_integers_are_numbers():
    assert check_measurement("train_loss", 3) == 3.0
    assert check_measurement("train_accuracy", np.int64(1)) == 1.0
    assert check_measurement("train_loss", 10**400) == math.inf
    assert check_measurement("train_loss", -(10**400)) == -math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["train_loss", "val_loss", "val_margin", "grad_norm", "my_own"])
def test_nan_and_inf_are_news(name, value):
    assert str(check_measurement(name, value)) == str(value)


def test_the_mean_accuracy_of_nothing_is_not_measured():
    assert check_measurement("val_accuracy", math.nan) is None


@pytest.mark.parametrize("value", [True, "0.5", b"1", 1j, None, [0.5], object()])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"train_loss must be (a|one) real number, but got"):
        check_measurement("train_loss", value)


@pytest.mark.parametrize("value", [np.ones(3), torch.ones(2, 2), np.empty(0)])
def test_an_array_is_not_one_number(value):
    with pytest.raises(TypeError) as error:
        check_measurement("val_loss", value)
    assert f"of shape {tuple(value.shape)}; pass its mean or one element" in str(error.value)


@pytest.mark.parametrize("name", ["train_accuracy", "val_accuracy", "chance"])
def test_a_percentage_is_told_apart(name):
    with pytest.raises(ValueError) as error:
        check_measurement(name, 97.0)
    for part in (name, "0..1", "got 97.0", "divide it by 100", "accuracy_unit='percent'"):
        assert part in str(error.value)


def test_percentages_on_request():
    assert check_measurement("val_accuracy", 97.0, percent=True) == float32(0.97)
    assert check_measurement("chance", 0.1, percent=True) == float32(0.1)  # always a fraction


@pytest.mark.parametrize("value", [-0.01, 1.01, 250.0, math.inf, -math.inf])
def test_an_impossible_accuracy(value):
    with pytest.raises(ValueError, match=r"train_accuracy is a fraction and must lie in 0\.\.1"):
        check_measurement("train_accuracy", value)
    with pytest.raises(ValueError, match=r"train_accuracy must lie in 0\.\.100 with"):
        check_measurement("train_accuracy", 200 * value, percent=True)


def test_an_accuracy_a_rounding_error_above_one_is_one():
    assert check_measurement("train_accuracy", 1.0 + 1e-12) == 1.0


def test_a_negative_size():
    with pytest.raises(ValueError, match=r"grad_norm is a size and cannot be negative but got -1"):
        check_measurement("grad_norm", -1)
    assert check_measurement("train_loss", -1) == -1.0
    assert check_measurement("val_margin", -1) == -1.0
