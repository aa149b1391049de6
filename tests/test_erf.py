from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from scipy.special import erf, erfcx

from grokwatch.signals import erf_solver
from grokwatch.signals.erf import (
    absolute_sharpness,
    fit_erf,
    fit_jumps,
    fit_two_erf,
    relative_gap,
    relative_sharpness,
)
from grokwatch.signals.erf_guess import passed

Array = npt.NDArray[np.float64]


def jump(t: Array, time: float, sharpness: float, low: float = 0.0, high: float = 1.0) -> Array:
    return np.asarray(low + 0.5 * (high - low) * (1.0 + erf(sharpness * (t - time))))


def student_teacher(ratio: float) -> tuple[Array, Array, Array]:
    """Times, training and validation accuracy of the linear setting, ratio = d / N > 1."""
    eta, eps = 0.01, 1e-10
    t = np.linspace(1.0, 5e3 / (ratio - 1.0) ** 2, 50_000)
    c = (math.sqrt(ratio) - 1.0) ** 2 * eta * t
    train = np.exp(-4 * c) / (16 * math.sqrt(math.pi) * ratio**0.75 * (eta * t) ** 1.5)
    # Gamma(1/2, 4c) = sqrt(pi) erfc(2 sqrt(c)), scaled so that nothing underflows.
    gen = np.exp(-4 * c) * (1.0 - 2.0 * np.sqrt(np.pi * c) * erfcx(2.0 * np.sqrt(c)))
    gen /= 2 * ratio**0.75 * np.sqrt(math.pi * eta * t)
    return t, erf(np.sqrt(eps / (2 * train))), erf(np.sqrt(eps / (2 * gen)))


@pytest.mark.parametrize(
    ("ratio", "gap", "rel", "absolute"),
    [(1.003, 7.939, 0.446, 2.13e-8), (1.1, 0.618, 0.934, 2.20e-5)],
)
def test_linear_student_teacher(ratio: float, gap: float, rel: float, absolute: float) -> None:
    t, train_accuracy, val_accuracy = student_teacher(ratio)
    train = fit_erf(t, train_accuracy, low=0.0, high=1.0)
    val = fit_erf(t, val_accuracy, low=0.0, high=1.0)
    assert relative_gap(train, val) == pytest.approx(gap, rel=2e-3)
    assert relative_sharpness(train, val) == pytest.approx(rel, rel=2e-3)
    assert absolute_sharpness(val) == pytest.approx(absolute, rel=4e-3)
    assert train.s_shaped and val.s_shaped
    assert val.residual_autocorrelation > 0.9  # S-shaped, but not exactly an erf


@settings(deadline=None)
@given(
    span=st.floats(0.0, 9.0),
    centre=st.floats(0.15, 0.85),
    width=st.floats(0.02, 0.12),
    low=st.floats(0.0, 0.5),
    rise=st.floats(0.1, 0.5),
    n=st.integers(100, 300),
    known=st.booleans(),
)
def test_exact_recovery_at_every_scale(
    span: float, centre: float, width: float, low: float, rise: float, n: int, known: bool
) -> None:
    end = 10.0**span
    t = np.linspace(0.0, end, n)
    y = jump(t, centre * end, 1.0 / (width * end), low, low + rise)
    fit = fit_erf(t, y, low, low + rise) if known else fit_erf(t, y)
    assert fit.time == pytest.approx(centre * end, rel=1e-6)
    assert fit.sharpness == pytest.approx(1.0 / (width * end), rel=1e-6)
    assert fit.low == pytest.approx(low, abs=1e-6)
    assert fit.amplitude == pytest.approx(rise, abs=1e-6)
    assert fit.r2 == pytest.approx(1.0)
    assert fit.n == n
    assert fit.s_shaped, fit.doubt


def test_the_fit_is_the_least_squares_fit_with_its_standard_errors() -> None:
    rng = np.random.default_rng(3)
    t = np.linspace(0.0, 10.0, 150)
    y = jump(t, 4.0, 0.8, 0.2, 0.8) + rng.normal(0.0, 0.03, len(t))
    best, spread = curve_fit(jump, t, y, p0=[5.0, 1.0, 0.1, 0.9])
    fit = fit_erf(t, y)
    assert [fit.time, fit.sharpness, fit.low, fit.high] == pytest.approx(best, rel=1e-4)
    errors = np.sqrt(np.diag(spread))
    assert [fit.time_error, fit.sharpness_error] == pytest.approx(errors[:2], rel=1e-3)


def test_standard_errors_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(0.0, 10_000.0, 50.0)
    clean = jump(t, 6000.0, 1e-3, 0.1, 0.9)
    fits = [fit_erf(t, clean + rng.normal(0.0, 0.03, len(t))) for _ in range(200)]
    z = np.array([(f.time - 6000.0) / f.time_error for f in fits])
    assert abs(z.mean()) < 0.25
    assert z.std() == pytest.approx(1.0, abs=0.15)
    z = np.array([(f.sharpness - 1e-3) / f.sharpness_error for f in fits])
    assert z.std() == pytest.approx(1.0, abs=0.2)
    assert all(f.s_shaped and abs(f.residual_autocorrelation) < 0.35 for f in fits)


def test_the_same_points_give_the_same_bits() -> None:
    rng = np.random.default_rng(4)
    t = np.linspace(0.0, 1.0, 60)
    for _ in range(40):
        y = np.clip(np.cumsum(rng.normal(0.0, 0.1, len(t))), 0.0, 1.0)
        first = fit_erf(t, y)
        scattered = [np.full(int(size), 0.5) for size in rng.integers(3, 300, 30)]
        assert repr(fit_erf(t.copy(), y.copy())) == repr(first)
        assert len(scattered) == 30  # they have moved the arrays of the second fit elsewhere


def test_weights_are_repeated_measurements() -> None:
    rng = np.random.default_rng(1)
    t = np.linspace(0.0, 10.0, 60)
    y = jump(t, 5.0, 1.0) + rng.normal(0.0, 0.02, len(t))
    counts = rng.integers(1, 5, len(t))
    weighted = fit_erf(t, y, weights=counts)
    repeated = fit_erf(np.repeat(t, counts), np.repeat(y, counts))
    assert weighted.time == pytest.approx(repeated.time, rel=1e-6)
    assert weighted.sharpness == pytest.approx(repeated.sharpness, rel=1e-5)


def test_steps_that_are_even_in_log_time() -> None:
    t = np.geomspace(1.0, 1e6, 256)
    fit = fit_erf(t, jump(t, 300.0, 1e-2))
    assert fit.time == pytest.approx(300.0, rel=1e-6)
    assert fit.s_shaped


def test_one_level_given_and_the_other_fitted() -> None:
    t = np.linspace(0.0, 100.0, 80)
    fit = fit_erf(t, jump(t, 60.0, 0.1, 0.5, 0.9), low=0.5)
    assert fit.low == 0.5
    assert fit.high == pytest.approx(0.9, abs=1e-6)


def test_a_high_base() -> None:
    rng = np.random.default_rng(5)
    t = np.linspace(0.0, 4e4, 200)
    fit = fit_erf(t, np.clip(jump(t, 3e4, 1e-3, 0.5, 1.0) + rng.normal(0, 0.01, 200), 0, 1))
    assert fit.low == pytest.approx(0.5, abs=0.01)
    assert fit.high == pytest.approx(1.0, abs=0.01)
    assert fit.s_shaped


def test_fitted_levels_stay_fractions() -> None:
    t = np.linspace(0.0, 100.0, 60)
    fit = fit_erf(t, 0.2 + 0.004 * t)
    assert 0.0 <= fit.low < fit.high <= 1.0


@pytest.mark.parametrize("centre", [200, 220, 260])
@pytest.mark.parametrize("width", [10, 20, 40])
def test_a_search_gone_astray_is_given_up_for_the_same_answer(
    centre: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a rise that has only begun any end above 1 would do, higher and higher ones better."""
    calls = []
    monkeypatch.setattr(erf_solver, "passed", lambda u: calls.append(1) or passed(u))
    t = np.arange(200.0)
    accuracy = 1.0 / (1.0 + np.exp((centre - t) / width))
    found = fit_jumps(t, accuracy, np.ones(200))
    quick = len(calls)
    monkeypatch.setattr(erf_solver, "_ASTRAY", math.inf)
    assert found == fit_jumps(t, accuracy, np.ones(200))
    assert quick < len(calls) - quick


LINE = np.linspace(0.0, 1.0, 200)
NOISE = np.random.default_rng(7).normal(0.0, 1.0, 200)


@pytest.mark.parametrize(
    ("curve", "doubt"),
    [
        (np.full(200, 0.3), "does not vary"),
        (jump(LINE, 0.5, 10.0)[::-1], "falls"),
        (LINE, "parabola"),
        (0.2 + 0.4 * LINE + 0.02 * NOISE, "before the rise|parabola|not over"),
        (0.5 * LINE**2, "parabola|not over"),
        (np.sqrt(LINE), "before the rise|parabola"),
        (1.0 - np.exp(-5.0 * LINE), "before the rise"),
        (np.log1p(1e4 * LINE) / 10.0, "outside the data|before the rise"),
        (0.5 + 0.02 * NOISE, "fewer than 3|noise|badly"),
        (jump(LINE, 0.95, 8.0), "not over"),
        (np.where(LINE > 0.6, 1.0, 0.0), "fewer than 3 points"),
        (np.exp(-(((LINE - 0.5) / 0.15) ** 2)), "badly|falls|noise"),
    ],
    ids="flat fall line slow accelerating sqrt saturating log noise early step hump".split(),
)
def test_honest_doubt(curve: Array, doubt: str) -> None:
    fit = fit_erf(1e4 * LINE, np.clip(curve, 0.0, 1.0))
    assert not fit.s_shaped
    assert any(word in fit.doubt for word in doubt.split("|")), fit.doubt


def test_falling_curve_with_given_levels() -> None:
    fit = fit_erf(LINE, jump(LINE, 0.5, 10.0)[::-1], low=0.0, high=1.0)
    assert fit.sharpness > 0.0
    assert not fit.s_shaped


def test_flat_curve_has_no_time() -> None:
    fit = fit_erf([0, 1, 2, 3, 4], [0.5] * 5)
    assert math.isnan(fit.time)
    assert fit.sharpness == 0.0 and math.isinf(fit.time_error)


def test_a_step_between_two_points_is_dated_without_a_width() -> None:
    fit = fit_erf(LINE, np.where(LINE > 0.6, 1.0, 0.0))
    assert fit.time == pytest.approx(0.6, abs=0.01)
    assert fit.rise_points == 0


@settings(deadline=None)
@given(
    values=st.lists(st.floats(0.0, 1.0, width=32), min_size=5, max_size=40),
    start=st.integers(0, 10**6),
    stride=st.integers(1, 10**6),
    known=st.booleans(),
)
def test_any_curve_gets_an_answer(
    values: list[float], start: int, stride: int, known: bool
) -> None:
    t = start + stride * np.arange(len(values))
    fit = fit_erf(t, values, 0.0, 1.0) if known else fit_erf(t, values)
    assert fit.sharpness >= 0.0
    assert fit.r2 <= 1.0 + 1e-9
    fit_two_erf(t, values)


T = np.arange(10.0)
Y = jump(T, 5.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t": T[:3], "accuracy": Y[:3]}, "at least 5 points but got 3"),
        ({"t": T, "accuracy": Y[:9]}, r"\(10,\), \(9,\)"),
        ({"t": T, "accuracy": Y, "weights": [1.0]}, r"and \(1,\)"),
        ({"t": T, "accuracy": np.where(T == 4, np.nan, Y)}, r"accuracy\[4\] is nan; leave"),
        ({"t": np.where(T == 9, np.inf, T), "accuracy": Y}, r"t\[9\] is inf"),
        ({"t": T[::-1], "accuracy": Y}, "t must ascend"),
        ({"t": np.ones(10), "accuracy": Y}, "t must ascend"),
        ({"t": T, "accuracy": 97.0 * Y}, "divide percentages by 100"),
        ({"t": T, "accuracy": Y, "low": 1.0, "high": 0.0}, "low must be below high"),
        ({"t": T, "accuracy": Y, "low": math.nan}, "finite or None but are nan and None"),
        ({"t": T, "accuracy": Y, "weights": np.zeros(10)}, "weights must be positive"),
    ],
)
def test_bad_input(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_erf(**arguments)


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_rise_in_two_steps(noise: float, share: float) -> None:
    rng = np.random.default_rng(2)
    t = np.linspace(0.0, 4e4, 256)
    y = share * jump(t, 8e3, 8e-4) + (1.0 - share) * jump(t, 3e4, 2e-3)
    found = fit_two_erf(t, np.clip(y + rng.normal(0.0, noise, len(t)), 0.0, 1.0))
    assert found is not None
    assert found.first.time == pytest.approx(8e3, rel=0.02)
    assert found.second.time == pytest.approx(3e4, rel=0.01)
    assert found.first.high == found.second.low == pytest.approx(share, abs=0.01)
    assert found.main is (found.second if share < 0.5 else found.first)
    assert found.bic_gain > 100.0
    assert found.r2 > 0.99


@pytest.mark.parametrize(
    "curve",
    [
        jump(LINE, 0.5, 10.0),
        1.0 / (1.0 + np.exp(-(LINE - 0.5) / 0.04)),
        np.exp(-np.exp(-(LINE - 0.4) / 0.05)),
        LINE,
        np.clip(3.0 * LINE - 1.0, 0.0, 1.0),
        jump(LINE, 0.5, 10.0)[::-1],
        np.full(200, 0.3),
    ],
    ids="erf logistic gompertz line ramp fall flat".split(),
)
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_one_rise_is_not_two(curve: Array, noise: float) -> None:
    assert fit_two_erf(LINE, np.clip(curve + noise * NOISE, 0.0, 1.0)) is None


def test_too_few_points_for_two_jumps() -> None:
    assert fit_two_erf(T[:8], Y[:8]) is None


def test_ratios_need_a_training_jump() -> None:
    val = fit_erf(LINE, jump(LINE, 0.5, 10.0))
    flat = fit_erf(LINE, np.full(200, 0.3))
    early = fit_erf(LINE - 0.7, jump(LINE, 0.5, 10.0))
    for train in (flat, early):
        with pytest.raises(ValueError, match="jump after time 0"):
            relative_gap(train, val)
    with pytest.raises(ValueError, match="never varies"):
        relative_sharpness(flat, val)


def test_absolute_sharpness_is_the_steepest_slope() -> None:
    t = np.linspace(0.0, 1.0, 100_001)
    y = jump(t, 0.5, 10.0, 0.25, 0.75)
    slope = float(np.diff(y).max() / (t[1] - t[0]))
    assert absolute_sharpness(fit_erf(t[::500], y[::500])) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_both_fits_at_once_are_the_fits_one_by_one(noise: float) -> None:
    t = 10_000 * LINE
    curve = 0.45 + 0.15 * erf(0.004 * (t - 2000)) + 0.25 * erf(0.004 * (t - 7000))
    y, w = np.clip(curve + noise * NOISE, 0.0, 1.0), np.arange(1.0, len(t) + 1)
    one, two = fit_jumps(t, y, w)
    assert two is not None or noise
    assert one == fit_erf(t, y, weights=w) and two == fit_two_erf(t, y, weights=w)
    assert fit_jumps(t, y, w, least=0.99) == (one, None)
    assert fit_jumps(t, np.full_like(y, 0.5), w)[1] is None
