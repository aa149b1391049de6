from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokwatch.signals.power_law import PowerLaw, fit_power_law

ADDITION = PowerLaw(gamma=7.73, a=1.09e15, b=1442.63)
S5 = PowerLaw(gamma=1.18, a=1.85e6, b=0.0)


def test_paper_reference_values() -> None:
    assert ADDITION.predict(30.0) == pytest.approx(5600, rel=0.01)
    assert S5.predict(30.0) == pytest.approx(33_000, rel=0.02)


def test_stop_step_is_a_thousand_steps_after_t4_rounded_up() -> None:
    assert ADDITION.stop_step(30.0) == int(np.ceil(ADDITION.predict(30.0))) + 1000
    assert ADDITION.stop_step(30.0, margin=0) == int(np.ceil(ADDITION.predict(30.0)))


@pytest.mark.parametrize("law", [ADDITION, S5], ids=["addition", "S5"])
def test_the_papers_laws_are_recovered_from_their_own_points(law: PowerLaw) -> None:
    r = np.arange(20.0, 95.0, 5.0)
    fit = fit_power_law(r, [law.predict(x) for x in r])
    assert fit.gamma == pytest.approx(law.gamma, rel=1e-4)
    assert fit.a == pytest.approx(law.a, rel=1e-2)
    assert fit.b == pytest.approx(law.b, rel=1e-4, abs=1e-3)
    assert fit.r2 == pytest.approx(1.0)


@given(gamma=st.floats(0.3, 9.0), fastest=st.floats(50.0, 1e6), share=st.floats(0.0, 0.8))
def test_predictions_are_recovered_over_ranges(gamma: float, fastest: float, share: float) -> None:
    r = np.linspace(20.0, 90.0, 12)
    t4 = fastest * ((1.0 - share) * (r / 90.0) ** -gamma + share)
    fit = fit_power_law(r, t4)
    predicted = [fit.predict(x) for x in r]
    np.testing.assert_allclose(predicted, t4, rtol=2e-3)
    assert fit.b >= 0.0
    assert fit.gamma >= 0.0


def test_multiplicative_scatter() -> None:
    rng = np.random.default_rng(0)
    r = np.arange(25.0, 90.0, 2.5)
    t4 = np.array([ADDITION.predict(x) for x in r]) * rng.lognormal(0.0, 0.1, len(r))
    fit = fit_power_law(r, t4)
    assert fit.predict(30.0) == pytest.approx(ADDITION.predict(30.0), rel=0.2)
    assert fit.b == pytest.approx(ADDITION.b, rel=0.1)
    assert fit.r2 > 0.9


def test_times_that_grow_with_the_data_are_no_power_law() -> None:
    fit = fit_power_law([20.0, 40.0, 60.0, 80.0], [1000.0, 2000.0, 3000.0, 4000.0])
    assert fit.gamma < 0.01
    assert fit.r2 < 0.1


def test_equal_times_have_no_variation_to_explain() -> None:
    fit = fit_power_law([20.0, 40.0, 60.0], [1000.0, 1000.0, 1000.0])
    assert fit.predict(50.0) == pytest.approx(1000.0)
    assert fit.r2 == 0.0


@pytest.mark.parametrize(
    ("r", "t4", "message"),
    [
        ([30.0, 40.0], [1.0, 2.0, 3.0], r"shapes are \(2,\) and \(3,\)"),
        ([30.0, 40.0], [2e3, 1e3], "at least 3 different data fractions but got 2"),
        ([30.0, 30.0, 40.0], [2e3, 2e3, 1e3], "but got 2"),
        ([0.3, 0.4, 0.5], [3e3, 2e3, 1e3], "at most 0.5; multiply by 100"),
        ([30.0, 40.0, 120.0], [3e3, 2e3, 1e3], r"\(0, 100\] but reaches from 30.0 to 120.0"),
        ([30.0, np.nan, 50.0], [3e3, 2e3, 1e3], r"\(0, 100\]"),
        ([30.0, 40.0, 50.0], [3e3, np.nan, 1e3], "leave out the runs that have none"),
        ([30.0, 40.0, 50.0], [3e3, 0.0, 1e3], "positive and finite"),
        ([], [], "got 0"),
    ],
)
def test_bad_input(r: list[float], t4: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_power_law(r, t4)


def test_bad_questions() -> None:
    with pytest.raises(ValueError, match=r"\(0, 100\] but is 0"):
        ADDITION.predict(0.0)
    with pytest.raises(ValueError, match="margin cannot be negative but is -1"):
        ADDITION.stop_step(30.0, margin=-1.0)
