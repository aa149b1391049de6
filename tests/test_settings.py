from __future__ import annotations

import math

import pytest

from grokwatch import Monitor


@pytest.mark.parametrize("settings", [
    {"chance": 0.0},
    {"chance": 0.9499},
    {"learning_rate": 0.0, "weight_decay": 0, "train_fraction": 1},
    {"max_kill_rate": 0.0, "memorised_at": 1.0, "generalised_at": 1.0},
    {"accuracy_unit": "percent"},
])  # fmt: skip
def test_good_settings(settings):
    assert Monitor(budget=1, **settings).settings.budget == 1


@pytest.mark.parametrize("settings, message", [
    ({"budget": 0}, r"budget must be at least 1 optimiser step but got 0\."),
    ({"budget": -5}, r"budget must be at least 1 optimiser step but got -5\."),
    ({"chance": 10.0}, r"chance must lie in 0\.\.1 but got 10\.0\."),
    ({"chance": math.nan}, r"chance must lie in 0\.\.1 but got nan\."),
    ({"chance": 0.95}, r"chance must be below generalised_at, but got 0\.95 and 0\.95\."),
    ({"train_fraction": 1.5}, r"train_fraction must lie in 0\.\.1 but got 1\.5\."),
    ({"max_kill_rate": -0.1}, r"max_kill_rate must lie in 0\.\.1 but got -0\.1\."),
    ({"memorised_at": 99}, r"memorised_at must lie in 0\.\.1 but got 99\."),
    ({"generalised_at": 95.0}, r"generalised_at must lie in 0\.\.1 but got 95\.0\."),
    ({"learning_rate": -1e-3}, r"learning_rate cannot be negative but got -0\.001\."),
    ({"weight_decay": math.nan}, r"weight_decay cannot be negative but got nan\."),
    ({"accuracy_unit": "%"}, r"accuracy_unit must be 'fraction' or 'percent' but got '%'\."),
])  # fmt: skip
def test_a_setting_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Monitor(**{"budget": 100, **settings})


@pytest.mark.parametrize("budget", [1e4, "1000", None, True])
def test_a_budget_is_a_whole_number(budget):
    with pytest.raises(TypeError) as error:
        Monitor(budget=budget)
    for part in ("budget", "whole number of optimiser steps", repr(budget), type(budget).__name__):
        assert part in str(error.value)
