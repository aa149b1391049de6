from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokwatch.signals.spectral import Spectral, remove_trend, signature, unit_steps
from tests.curves import LOSSES

FIELDS = ("energy", "activity", "mobility", "complexity", "hjorth_complexity", "frequency")


def parseval(x):
    """The sum of squares, from the spectrum."""
    return float((np.abs(np.fft.fft(x)) ** 2).sum()) / len(x)


def oracle(x):
    """The signature by Parseval: each moment from the spectrum of a (differenced) signal."""
    m0, m2, m4 = parseval(x), parseval(np.diff(x)), parseval(np.diff(x, 2))
    power = np.abs(np.fft.fft(x)[1 : len(x) // 2 + 1]) ** 2
    frequency = 2 * np.pi * (1 + int(np.argmax(power))) / len(x)
    mobility, complexity = math.sqrt(m2 / m0), math.sqrt(m4 / m2)
    return (m0, m0 / len(x), mobility, complexity, complexity / mobility, frequency)


def values_of(found):
    return tuple(getattr(found, field) for field in FIELDS)


def detrended(x, detrend):
    """The three ways to remove the slow part, from their definitions."""
    t = np.arange(len(x))
    if detrend == "mean":
        return x - np.mean(x)
    if detrend in ("linear", "highpass"):
        x = x - np.polyval(np.polyfit(t, x, 1), t)
    if detrend == "highpass":
        spectrum = np.fft.fft(x)
        slow = np.abs(np.fft.fftfreq(len(x))) < 1 / 50
        x = np.fft.ifft(np.where(slow, 0, spectrum)).real
    return x


def by_unit_steps(steps, values):
    """Last value carried forward to every step; None if over a tenth is missing."""
    lookup = dict(zip(steps, values, strict=True))
    if len(steps) < 0.9 * (steps[-1] - steps[0] + 1):
        return None
    filled = []
    for step in range(steps[0], steps[-1] + 1):
        filled.append(lookup.get(step, filled[-1] if filled else None))
    return np.array(filled)


@pytest.mark.parametrize("curve", LOSSES.values(), ids=LOSSES)
def test_rolling_signature_is_the_oracle_at_every_prefix(curve):
    steps, losses = curve
    spectral = Spectral()
    early = None
    for n, (step, loss) in enumerate(zip(steps, losses, strict=True), start=1):
        spectral.update(step, "train_loss", loss)
        found = spectral.values()
        recent = [i for i in range(max(0, n - 400), n) if steps[i] > step - 400]
        x = by_unit_steps([steps[i] for i in recent], [losses[i] for i in recent])
        if n == 400:
            first = by_unit_steps(steps[:400], losses[:400])
            early = parseval(first - first.mean()) / len(first)
        if early is not None:
            assert found.pop("spectral_early_activity") == pytest.approx(early, rel=1e-9)
        if n < 8 or x is None:
            assert found == {}
            continue
        for prefix, y in (("spectral_", x), ("spectral_log_", np.log10(np.maximum(x, 1e-12)))):
            got = tuple(found[prefix + field] for field in FIELDS)
            assert got == pytest.approx(oracle(y - y.mean()), rel=1e-9)


@pytest.mark.parametrize("detrend", [None, "mean", "linear", "highpass"])
@pytest.mark.parametrize("n", [60, 61, 400])
def test_every_detrending_against_its_definition(detrend, n):
    noise = np.random.default_rng(n)
    x = 3 + 0.01 * np.arange(n) + np.sin(0.8 * np.arange(n)) + 0.3 * noise.normal(size=n)
    np.testing.assert_allclose(remove_trend(x, detrend), detrended(x, detrend), atol=1e-10)
    assert values_of(signature(x, detrend)) == pytest.approx(
        oracle(detrended(x, detrend)), rel=1e-9
    )


def test_moments_are_the_spectral_integrals_of_the_paper():
    # Away from the ends a difference is the factor |1 - exp(-iw)|^2 = 4 sin^2(w/2) under the sum.
    rng = np.random.default_rng(1)
    x = np.concatenate([np.zeros(3), rng.normal(size=120), np.zeros(3)])
    power = np.abs(np.fft.fft(x)) ** 2 / len(x)
    w2 = 4 * np.sin(np.pi * np.fft.fftfreq(len(x))) ** 2
    m0, m2, m4 = (float((power * w2**k).sum()) for k in range(3))
    found = signature(x, None)
    assert found.energy == pytest.approx(m0, rel=1e-9)
    assert found.mobility == pytest.approx(math.sqrt(m2 / m0), rel=1e-9)
    assert found.complexity == pytest.approx(math.sqrt(m4 / m2), rel=1e-9)


@given(st.floats(0.05, 3.0), st.floats(0.1, 10))
def test_a_pure_tone_has_its_own_frequency_everywhere(w, size):
    x = size * np.cos(w * np.arange(4000))
    found = signature(x)
    chord = 2 * math.sin(w / 2)
    assert found.activity == pytest.approx(size**2 / 2, rel=0.02)
    assert found.mobility == pytest.approx(chord, rel=0.02)
    assert found.complexity == pytest.approx(chord, rel=0.02)
    assert found.hjorth_complexity == pytest.approx(1, rel=0.02)
    assert found.frequency == pytest.approx(w, abs=2 * math.pi / 4000)


@given(st.floats(-1e6, 1e6))
def test_a_constant_has_no_spectrum(level):
    for detrend in (None, "mean"):
        found = signature(np.full(50, level), detrend)
        assert values_of(found)[2:] == (0, 0, 0, 0)
    assert found.energy == pytest.approx(0, abs=1e-18 * max(1, level**2))


@pytest.mark.parametrize("x, message", [
    ([1.0, 2.0], r"n >= 3 but has shape \(2,\)"),
    (np.ones((4, 4)), r"n >= 3 but has shape \(4, 4\)"),
    ([1.0, math.nan, 2.0], "x holds NaN or inf; remove them first"),
])  # fmt: skip
def test_bad_signals(x, message):
    with pytest.raises(ValueError, match=message):
        signature(x)


def test_bad_settings():
    with pytest.raises(ValueError, match=r"knows 'mean'.* but got 'mediam'"):
        signature([1, 2, 3], "mediam")
    with pytest.raises(ValueError, match=r"window must be at least 8 steps but got 7\."):
        Spectral(window=7)


def test_gaps_are_filled_or_refused():
    assert unit_steps(np.array([3, 4, 5]), np.array([1.0, 2, 3])).tolist() == [1, 2, 3]
    steps = np.array([*range(10), 11])
    assert unit_steps(steps, steps * 1.0).tolist() == [*range(10), 9, 11]
    assert unit_steps(steps * 10, steps * 1.0) is None


def test_what_cannot_be_told_is_left_out():
    spectral = Spectral(window=10)
    for step in range(7):
        spectral.update(step, "train_loss", 1.0 + step)
    assert spectral.values() == {}
    spectral.update(7, "train_loss", -1.0)  # a legitimate loss, but it has no logarithm
    assert {name for name in spectral.values() if "log" in name} == set()
    assert spectral.values()["spectral_activity"] > 0
    for step in range(8, 300, 20):
        spectral.update(step, "train_loss", 1.0)
    assert set(spectral.values()) == {"spectral_early_activity"} & set(spectral.values())


def test_nan_and_inf_are_gaps():
    with_gaps, without = Spectral(window=40), Spectral(window=40)
    for step in range(100):
        loss = 1.0 + step % 3
        if step % 20 == 5:
            with_gaps.update(step, "train_loss", (math.nan, math.inf)[step % 2])
        else:
            with_gaps.update(step, "train_loss", loss)
            without.update(step, "train_loss", loss)
    assert with_gaps.values() == without.values()
    assert "spectral_activity" in with_gaps.values()


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), max_size=6), st.integers(0, 3))
def test_grouping_and_saving_change_nothing(chunks, seed):
    rng = np.random.default_rng(seed)
    grouped, single, at = Spectral(window=50), Spectral(window=50), 0
    for chunk in chunks:
        steps = list(range(at, at + chunk))
        losses = rng.normal(1, 1, chunk).astype(np.float32).tolist()
        at += chunk
        grouped.extend(steps, losses)
        for step, loss in zip(steps, losses, strict=True):
            single.update(step, "train_loss", loss)
        saved = json.loads(json.dumps(grouped.state_dict(), allow_nan=False))
        grouped = Spectral(window=50)
        grouped.load_state_dict(saved)
        assert grouped.values() == single.values()
