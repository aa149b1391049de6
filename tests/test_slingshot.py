from __future__ import annotations

import json
import math
import statistics
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import find_peaks

from grokwatch.signals.slingshot import Slingshot
from tests.curves import LOSSES, measured

#: First step at which the recorded run has memorised.
T2 = {"grokker": 82, "never": 65, "slingshot": 63, "immediate": 105}
QUANTUM = math.log10(2.0**-23)


def batch(steps, losses, armed_after, min_decades=1.0, window=128, refractory=20, block=32):
    """The spikes of a whole series by the rules of the docstring; yields (onset, peak, ...) rows.

    After every row: (alarms so far, rise of the latest in decades, its width or None).
    """
    calm, since_level = [], 0
    base = onset = None  # of the last refresh
    alarms, spike, last = [], None, None

    def settle(level):
        nonlocal base, onset, since_level
        calm.append(level)
        since_level += 1
        if since_level % block == 0:
            tail = sorted(calm[-window:])
            base = tail[len(tail) // 2]
            spread = sorted(abs(level - base) for level in tail)[len(tail) // 2]
            onset = max(base, QUANTUM) + max(min_decades, 8 * 1.4826 * spread)

    for step, loss in zip(steps, losses, strict=True):
        if math.isfinite(loss):
            level = math.log10(max(loss, 1e-12))
            if spike and spike["end"] is not None and step > spike["end"] + refractory:
                last, spike = spike, None
            if spike is None:
                if onset is not None and step > armed_after and level > onset + 1e-9:
                    spike = {"onset": step, "base": base, "limit": onset, "peak": level,
                             "end": None, "rows": 1}  # fmt: skip
                    alarms.append(step)
                else:
                    settle(level)
            elif spike["end"] is None:
                spike["rows"] += 1
                spike["peak"] = max(spike["peak"], level)
                if level <= (spike["base"] + spike["limit"]) / 2:
                    spike["end"] = step
                    settle(level)
                elif spike["rows"] > window:
                    spike["end"] = step
                    last, spike = spike, None
                    calm, since_level, onset = [], 0, None
            elif level > spike["limit"]:
                spike["peak"], spike["end"] = max(spike["peak"], level), None
            else:
                settle(level)
        shown = spike or last
        if shown is None:
            yield [], None, None
        else:
            end = shown["end"]
            yield alarms, shown["peak"] - shown["base"], end and end - shown["onset"]


def fed(steps, losses, armed_after=0, **settings):
    slingshot = Slingshot(**settings)
    slingshot.arm(armed_after)
    onsets = []
    for step, loss in zip(steps, losses, strict=True):
        slingshot.update(step, "train_loss", loss)
        if slingshot.count > len(onsets):
            onsets.append(slingshot.onset)
    return slingshot, onsets


def quiet_curve(n=2000, level=1e-3, seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.1, n)
    return list(range(1, n + 1)), (level * np.exp(noise)).tolist()


@pytest.mark.parametrize("curve", LOSSES.values(), ids=LOSSES)
def test_equals_the_batch_rules_at_every_prefix(curve):
    steps, losses = curve
    slingshot = Slingshot()
    slingshot.arm(steps[50])
    rows = zip(steps, losses, batch(steps, losses, steps[50]), strict=True)
    for step, loss, (alarms, rise, width) in rows:
        slingshot.update(step, "train_loss", loss)
        found = slingshot.values()
        assert found["spikes"] == len(alarms)
        assert found.get("spike_step") == (alarms[-1] if alarms else None)
        assert found.get("spike_width") == width
        if rise is not None:
            assert found["spike_amplitude"] == pytest.approx(rise, rel=1e-9)
        if len(alarms) > 1:
            gaps = [b - a for a, b in pairwise(alarms)][-16:]
            assert found["spike_period"] == statistics.median(gaps)


@pytest.mark.parametrize("name, spikes", [("slingshot", 8), ("grokker", 4), ("never", 3),
                                          ("immediate", 0)])  # fmt: skip
def test_real_spikes_are_each_found_once(name, spikes):
    steps, losses = measured(name, "train_loss")
    # Offline: peaks that stand out by two decades, noise below a float32's resolution cut off;
    # those within 200 steps are one event.
    levels = np.log10(np.maximum(losses, 1e-9))
    peaks = [steps[i] for i in find_peaks(levels, prominence=2.0)[0] if steps[i] > T2[name]]
    events = [
        at for at, before in zip(peaks, [-(10**9), *peaks], strict=False) if at > before + 200
    ]
    assert len(events) == spikes
    slingshot, onsets = fed(steps, losses, T2[name])
    assert slingshot.count == spikes
    for event, onset in zip(events, onsets, strict=True):
        assert onset <= event <= onset + 100
    if spikes:
        found = slingshot.values()
        assert found["spike_amplitude"] > 2
        assert found["spike_period"] == np.median(np.diff(onsets))
        assert 1 <= found["spike_width"] <= 200


@pytest.mark.parametrize("seed", range(5))
def test_a_quiet_run_has_none(seed):
    assert fed(*quiet_curve(seed=seed))[1] == []
    steps = list(range(1, 3001))
    slow = [4.0 * math.exp(-step / 300) + 1e-4 for step in steps]
    assert fed(steps, slow)[1] == []


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 1000),
    st.lists(st.tuples(st.integers(60, 200), st.floats(1.3, 8), st.integers(1, 12)), max_size=6),
)
def test_every_spike_above_a_decade_is_found_once(seed, spikes):
    steps, losses = quiet_curve(1500, seed=seed)
    at, planted = 200, []
    for gap, decades, width in spikes:
        at += gap
        planted.append(at)
        for offset in range(width):
            losses[at - 1 + offset] *= 10**decades
        at += width
    slingshot, onsets = fed(steps, losses)
    assert onsets == planted
    if planted:
        assert slingshot.values()["spike_amplitude"] == pytest.approx(spikes[-1][1], abs=0.4)
        assert slingshot.values()["spike_width"] == spikes[-1][2]


def test_a_decade_is_the_line():
    for decades, count in ((0.9, 0), (1.1, 1)):
        steps, losses = list(range(400)), [1e-3] * 400
        losses[300] *= 10**decades
        assert fed(steps, losses)[0].count == count


def test_nan_and_inf_are_ignored():
    steps, losses = quiet_curve()
    for at in (300, 301, 302, 900):
        losses[at] = (math.nan, math.inf)[at % 2]
    assert fed(steps, losses)[1] == []
    losses[1200] = 10.0
    losses[1201] = math.nan  # in the midst of a spike
    assert fed(steps, losses)[1] == [1201]


def test_early_noise_does_not_count():
    steps, losses = quiet_curve()
    for at in range(0, 600, 37):
        losses[at] = 5.0
    assert fed(steps, losses, armed_after=600)[1] == []
    slingshot, onsets = fed(steps, losses, armed_after=None)
    assert onsets == []
    assert slingshot.values() == {}


def test_a_floor_is_no_spike():
    noise = np.random.default_rng(5)
    steps = list(range(1, 4001))
    hops = np.where(noise.random(4000) < 0.05, noise.integers(1, 5, 4000), 0) * 8.5e-10
    losses = hops.tolist()  # a float32 loss of zero, now and then one rounding error
    assert fed(steps, losses)[1] == []
    losses[3000] = 0.3
    slingshot, onsets = fed(steps, losses)
    assert onsets == [3001]
    assert 5 < slingshot.values()["spike_amplitude"] < 13


def test_a_new_level_is_one_alarm_and_then_the_baseline():
    steps = list(range(1, 1001))
    losses = [1e-4 if step < 400 else 1e-1 for step in steps]
    losses[900] = 10.0
    slingshot, onsets = fed(steps, losses)
    assert onsets == [400, 901]
    assert slingshot.values()["spike_amplitude"] == pytest.approx(2, abs=1e-6)


def test_a_second_rise_soon_after_is_the_same_spike():
    for gap, count in ((15, 1), (20, 1), (22, 2), (40, 2)):
        steps, losses = list(range(1, 601)), [1e-3] * 600
        losses[300], losses[301 + gap] = 1.0, 100.0
        slingshot, _ = fed(steps, losses)
        assert slingshot.count == count
        assert slingshot.values()["spike_amplitude"] == pytest.approx(5, abs=1e-6)


def test_a_negative_loss_switches_it_off_for_good():
    steps, losses = quiet_curve()
    losses[500] = -1e-6
    losses[900] = 10.0
    slingshot, onsets = fed(steps, losses)
    assert onsets == []
    assert slingshot.off
    assert slingshot.values() == {}
    assert not slingshot.busy


def test_the_period_is_the_median_gap():
    steps, losses = list(range(1, 2001)), [1e-3] * 2000
    for at in (300, 500, 710, 1500):
        losses[at - 1] = 1.0
    assert fed(steps, losses)[0].values()["spike_period"] == 210


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", ["grad_norm", "update_cosine_distance"])
def test_corroboration(name, late):
    for during, want in ((10.0, 1.0), (1.5, 0.0), (None, None)):
        slingshot = Slingshot()
        slingshot.arm(0)
        for step in range(1, 600):
            spike = 300 <= step < 305
            parts = [("train_loss", 10.0 if spike else 1e-3)]
            if step % 5 == 0 and not 300 <= step <= 305:
                parts.append((name, 1.0))
            if step == 302 and during is not None:
                parts.append((name, during))
            for part in reversed(parts) if late else parts:
                slingshot.update(step, *part)
            if step == 302:
                assert slingshot.values().get("spike_corroborated") == want
        assert slingshot.values().get("spike_corroborated") == want  # long after, too


def test_no_corroboration_without_a_before():
    slingshot = Slingshot()
    slingshot.arm(0)
    for step in range(1, 400):
        slingshot.update(step, "train_loss", 10.0 if step == 300 else 1e-3)
    slingshot.update(300, "grad_norm", 1.0)
    assert "spike_corroborated" not in slingshot.values()


def test_bad_settings():
    with pytest.raises(ValueError, match=r"min_decades must be positive but got 0\."):
        Slingshot(min_decades=0)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 300), max_size=6))
def test_saving_changes_nothing(seed, cuts):
    rng = np.random.default_rng(seed)
    steps, losses = quiet_curve(600, seed=seed)
    for at in rng.integers(100, 560, 5).tolist():
        width = int(rng.integers(1, 30))
        losses[at : at + width] = [0.5] * width
    one, other = Slingshot(), Slingshot()
    cuts = set(np.cumsum(cuts).tolist())
    for step, loss in zip(steps, np.float32(losses).tolist(), strict=True):
        if step in cuts:
            saved = json.loads(json.dumps(other.state_dict(), allow_nan=False))
            other = Slingshot()
            other.load_state_dict(saved)
        for slingshot in (one, other):
            slingshot.arm(50 if step > 50 else None)
            if step % 7 == 0:
                slingshot.update(step, "grad_norm", float(step % 11))
            slingshot.update(step, "train_loss", loss)
        assert one.values() == other.values()
        assert one.threshold == other.threshold
    assert one.state_dict() == other.state_dict()


def test_a_saved_state_stands_alone():
    slingshot, _ = fed(list(range(1, 302)), [*[1e-3] * 300, 1.0])
    saved = slingshot.state_dict()
    text = json.dumps(saved)
    slingshot.update(302, "train_loss", 100.0)
    assert json.dumps(saved) == text


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**9))
def test_losses_in_the_quiet_range_start_no_spike(seed):
    random = np.random.default_rng(seed)
    slingshot = Slingshot()
    slingshot.arm(0)
    level, step = 10.0 ** random.uniform(-9, 1), 0
    for _ in range(30):
        for loss in level * np.exp(random.normal(0, random.choice([0.01, 0.3, 0.5]), 70)):
            step += 1
            slingshot.update(step, "train_loss", float(np.float32(loss)))
        if slingshot.busy:
            continue
        low, high, rows = slingshot.quiet
        count = slingshot.count
        worst = np.array([low, low, low, high, np.sqrt(max(low, 1e-30) * high)])
        for loss in random.choice(worst[: random.integers(2, 6)], rows):
            step += 1
            slingshot.update(step, "train_loss", float(np.float32(loss)))
            assert slingshot.count == count and not slingshot.busy
        level = 10.0 ** random.uniform(-9, 1)


def test_how_many_losses_may_wait():
    slingshot = Slingshot()
    assert slingshot.quiet[2] == 1024  # it does not look yet
    slingshot.arm(0)
    assert slingshot.quiet[2] == 32
    for step, loss in zip(*quiet_curve(300), strict=True):
        slingshot.update(step, "train_loss", loss)
    low, high, rows = slingshot.quiet
    assert low < 1e-3 < high < slingshot.threshold and rows == 1024
    slingshot.update(301, "train_loss", 6e-3)  # far from the lowest, and yet no spike
    assert slingshot.quiet[1:] == (slingshot.threshold, slingshot.until_refresh)
