from __future__ import annotations

import math

import numpy as np
import pytest

from grokwatch.history import GRID, History
from grokwatch.signals.trend import SPANS, TRENDS, look_back, slope, trends
from tests.curves import ACCURACIES, LOSSES, measured


def first(curve, count=500):
    """The first rows, moved to start at step 20 if they start later."""
    steps, values = curve
    late = max(steps[0] - 20, 0)
    return [step - late for step in steps[:count]], values[:count]


REAL = {
    column: measured("grokker", column)
    for column in ("val_loss", "val_margin", "val_accuracy", "weight_norm", "grad_norm")
}


def binned(steps, values):
    """Mean step and value of the rows between two steps of the grid."""
    steps, values = np.array(steps, dtype=float), np.array(values)
    place = np.searchsorted(GRID, steps, side="right")
    bins = [place == which for which in np.unique(place)]
    return np.array([steps[b].mean() for b in bins]), np.array([values[b].mean() for b in bins])


def oracle(name, x, y):
    """Slopes by np.polyfit on log2(step + 1), over each span that has enough bins."""
    found = {}
    for span in SPANS:
        inside = x + 1 >= (x[-1] + 1) / span
        u, v = np.log2(x[inside] + 1), y[inside]
        if len(u) < 4 or u[-1] - u[0] < math.log2(span) / 2:
            continue
        if TRENDS[name]:
            if v.min() <= 0:
                continue
            v = np.log(v)
        found[f"{name}_slope_{span}x"] = float(np.polyfit(u, v, 1)[0])
    return found


def compare_at_every_prefix(name, steps, values):
    history = History()
    seen = False
    for n, (step, value) in enumerate(zip(steps, values, strict=True), start=1):
        history.extend(name, (step,), (value,))
        found = trends(history)
        x, y = binned(steps[:n], values[:n])
        want = oracle(name, x, y) if n >= 4 else {}
        assert found.keys() == want.keys()
        for key, value in want.items():  # a slope near 0 is exact to the rounding of the values
            assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-12 * np.abs(y).max() + 1e-13)
        seen = seen or bool(found)
    assert seen


@pytest.mark.parametrize("curve", LOSSES.values(), ids=LOSSES)
def test_slopes_are_polyfit_on_the_binned_series_at_every_prefix(curve):
    compare_at_every_prefix("val_loss", *first(curve))


@pytest.mark.parametrize("curve", ACCURACIES.values(), ids=ACCURACIES)
def test_slopes_of_what_may_be_zero(curve):
    compare_at_every_prefix("val_accuracy", *first(curve))


@pytest.mark.parametrize("name", REAL)
def test_slopes_of_a_real_run(name):
    compare_at_every_prefix(name, *REAL[name])


def test_a_power_law_has_its_exponent():
    history = History()
    for step in range(2000):
        history.extend("val_loss", (step,), (5 * (step + 1) ** -0.5,))
    found = trends(history)
    for span in SPANS:
        assert found[f"val_loss_slope_{span}x"] == pytest.approx(-0.5 * math.log(2), rel=1e-3)


def test_too_little_is_not_a_trend():
    history = History()
    history.extend("val_loss", (1, 2, 3), (3.0, 2.0, 1.0))
    assert trends(history) == {}
    history.extend("val_loss", (10**6,), (1.0,))  # four bins, but nothing inside any span
    assert trends(history) == {}


def test_the_logarithm_of_what_is_not_positive_is_left_out():
    history = History()
    for step in range(1, 200):
        history.extend("val_loss", (step,), (100.0 - step,))
        history.extend("val_margin", (step,), (100.0 - step,))
    assert set(trends(history)) == {f"val_margin_slope_{span}x" for span in SPANS}


def test_an_unknown_measurement_has_no_trend():
    history = History()
    history.extend("learning_rate", range(50), [1.0] * 50)
    assert trends(history) == {}


def test_look_back_and_slope():
    steps = np.array([0.0, 1, 3, 7, 15])
    assert look_back(steps, 4) == 2
    assert look_back(steps, 1e9) == 0
    assert slope(steps, 3 * np.log2(steps + 1) + 7) == pytest.approx(3, rel=1e-12)
