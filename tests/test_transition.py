from __future__ import annotations

import copy
import json
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from grokwatch.signals.erf import fit_erf
from grokwatch.signals.merged_curve import MergedCurve
from grokwatch.signals.transition import Transition

Array = npt.NDArray[np.float64]
ONE_JUMP = {
    "transition_time",
    "transition_sharpness",
    "transition_time_error",
    "transition_sharpness_error",
    "transition_r2",
    "transition_low",
    "transition_amplitude",
    "transition_jumps",
    "absolute_sharpness",
}
TRAIN = {"train_transition_time", "train_transition_sharpness", "train_transition_r2"}
RATIOS = {"relative_gap", "relative_sharpness"}


def jump(t: Array, time: float, width: float, low: float = 0.0, high: float = 1.0) -> Array:
    return np.asarray(low + 0.5 * (high - low) * (1.0 + erf((t - time) / width)))


def measured(curve: Array, noise: float = 0.0, seed: int = 0) -> Array:
    """What the door lets through: fractions, rounded to float32."""
    rng = np.random.default_rng(seed)
    clipped = np.clip(curve + rng.normal(0.0, 1.0, len(curve)) * noise, 0.0, 1.0)
    return clipped.astype(np.float32).astype(np.float64)


def feed(signal: Transition, steps: Array, accuracies: Array) -> None:
    for step, accuracy in zip(steps.tolist(), accuracies.tolist(), strict=True):
        signal.add_val(int(step), accuracy)


def grokking_run(noise: float = 0.02) -> tuple[Array, Array, Array, Array]:
    steps = np.arange(12_000.0)
    val_steps = steps[::25]
    train = measured(jump(steps, 250.0, 80.0, 0.01), noise, 1)
    return steps, train, val_steps, measured(jump(val_steps, 6000.0, 900.0, 0.01), noise, 2)


def test_a_grokking_run() -> None:
    steps, train, val_steps, val = grokking_run()
    signal = Transition()
    assert signal.values() == {} and not signal.begun
    signal.extend_train(steps, train)
    feed(signal, val_steps, val)
    assert signal.begun
    signal.refit()
    known = signal.values()
    assert set(known) == ONE_JUMP | TRAIN | RATIOS
    assert known["transition_time"] == pytest.approx(6000.0, rel=0.01)
    assert known["transition_sharpness"] == pytest.approx(1 / 900, rel=0.03)
    assert known["transition_jumps"] == 1.0
    assert known["train_transition_time"] == pytest.approx(250.0, rel=0.02)
    assert known["train_transition_sharpness"] == pytest.approx(1 / 80, rel=0.05)
    assert known["relative_gap"] == pytest.approx(23.0, rel=0.03)
    assert known["relative_sharpness"] == pytest.approx(80 / 900, rel=0.06)
    assert all(np.isfinite(value) for value in known.values())


def test_short_runs_are_kept_whole_and_stream_equals_batch_at_every_prefix() -> None:
    steps = np.arange(0.0, 10_000.0, 50.0)
    val = measured(jump(steps, 5000.0, 800.0, 0.02), 0.02)
    signal = Transition()
    fitted = 0
    for i in range(len(steps)):
        signal.add_val(int(steps[i]), float(val[i]))
        if i < 20 or i % 5:
            continue
        signal.refit()
        known = signal.values()
        if "transition_time" in known:
            fitted += 1
            batch = fit_erf(steps[: i + 1], val[: i + 1].astype(np.float32))
            assert batch.s_shaped
            assert known["transition_time"] == pytest.approx(batch.time, rel=1e-9)
            assert known["transition_sharpness"] == pytest.approx(batch.sharpness, rel=1e-9)
            assert known["transition_time_error"] == pytest.approx(batch.time_error, rel=1e-9)
            assert known["transition_r2"] == pytest.approx(batch.r2, rel=1e-9)
    assert fitted > 10


@pytest.mark.parametrize("length", [10_000, 100_000, 1_000_000])
def test_long_runs_keep_an_early_jump(length: int) -> None:
    steps = np.arange(float(length))
    train = measured(jump(steps, 200.0, 60.0, 0.01), 0.03)
    signal = Transition()
    signal.extend_train(steps, train)
    signal.refit()
    known = signal.values()
    assert known["train_transition_time"] == pytest.approx(200.0, rel=0.02)
    assert known["train_transition_sharpness"] == pytest.approx(1 / 60, rel=0.1)


def test_long_stream_is_close_to_the_batch_fit_of_everything() -> None:
    steps = np.arange(0.0, 400_000.0, 10.0)
    val = measured(jump(steps, 90_000.0, 9_000.0, 0.01, 0.97), 0.03)
    signal = Transition()
    feed(signal, steps, val)
    signal.refit()
    batch = fit_erf(steps, val)
    assert signal.values()["transition_time"] == pytest.approx(batch.time, rel=1e-3)
    assert signal.values()["transition_sharpness"] == pytest.approx(batch.sharpness, rel=0.03)
    assert signal.values()["transition_amplitude"] == pytest.approx(batch.amplitude, rel=1e-3)


def test_a_rise_in_two_steps() -> None:
    steps = np.arange(0.0, 40_000.0, 100.0)
    curve = 0.3 * jump(steps, 8e3, 1200.0) + 0.7 * jump(steps, 3e4, 500.0)
    signal = Transition()
    feed(signal, steps, measured(curve, 0.01))
    signal.refit()
    known = signal.values()
    assert set(known) == ONE_JUMP | {"transition_first_time", "transition_second_time"}
    assert known["transition_jumps"] == 2.0
    assert known["transition_first_time"] == pytest.approx(8e3, rel=0.02)
    assert known["transition_second_time"] == pytest.approx(3e4, rel=0.01)
    assert known["transition_time"] == known["transition_second_time"]
    assert known["transition_amplitude"] == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(
    "curve",
    [
        np.full(300, 0.01),
        np.linspace(0.2, 0.6, 300),
        jump(np.arange(300.0), 280.0, 40.0),
        jump(np.arange(300.0), 150.0, 40.0)[::-1],
        jump(np.arange(300.0), 150.0, 30.0, 0.5, 0.55),
    ],
    ids=["never", "slow", "unfinished", "falling", "small"],
)
def test_no_figures_without_an_s_shape(curve: Array) -> None:
    signal = Transition()
    feed(signal, np.arange(0.0, 3000.0, 10.0), measured(curve, 0.01))
    signal.refit()
    assert signal.values() == {}


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.08])
def test_begun(noise: float) -> None:
    steps = np.arange(0.0, 9000.0, 20.0)
    val = measured(jump(steps, 6000.0, 600.0, 0.05), noise)
    signal = Transition()
    begun = []
    for step, value in zip(steps.tolist(), val.tolist(), strict=True):
        signal.add_val(int(step), value)
        begun.append(signal.begun)
    first = steps[begun.index(True)]
    assert 5000.0 < first < 6000.0 + 4000.0 * noise
    assert all(begun[int(6600 / 20) :])


def test_begun_is_false_again_after_a_fall() -> None:
    steps = np.arange(0.0, 8000.0, 20.0)
    signal = Transition()
    feed(signal, steps, measured(jump(steps, 3000.0, 300.0) - jump(steps, 6000.0, 300.0)))
    assert not signal.begun


def test_train_and_val_do_not_depend_on_how_they_interleave() -> None:
    steps, train, val_steps, val = grokking_run()
    apart, woven = Transition(), Transition()
    feed(apart, val_steps, val)
    apart.extend_train(steps, train)
    known = dict(zip(val_steps.tolist(), val.tolist(), strict=True))
    for step, accuracy in zip(steps.tolist(), train.tolist(), strict=True):
        woven.update(int(step), "train_accuracy", accuracy)
        if step in known:
            woven.update(int(step), "val_accuracy", known[step])
            woven.update(int(step), "val_loss", 1.0)
    assert woven.state_dict() == apart.state_dict()


@settings(deadline=None, max_examples=40)
@given(
    cuts=st.lists(st.integers(0, 6000), max_size=8),
    capacity=st.sampled_from([16, 30, 64]),
    seed=st.integers(0, 100),
)
def test_extend_equals_repeated_add(cuts: list[int], capacity: int, seed: int) -> None:
    steps = np.arange(6000)
    train = measured(jump(steps.astype(float), 300.0, 90.0), 0.05, seed)
    train[seed::97] = np.nan  # left out by both
    one, many = Transition(capacity), Transition(capacity)
    for step, accuracy in zip(steps.tolist(), train.tolist(), strict=True):
        one.add_train(step, accuracy)
    edges = [0, *sorted(cuts), 6000]
    for a, b in pairwise(edges):
        many.extend_train(steps[a:b], train[a:b].tolist())
    assert one.state_dict() == many.state_dict()


@settings(deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(0, 479), min_size=1, max_size=3), capacity=st.integers(64, 256))
def test_save_and_restore_anywhere_changes_nothing(cuts: list[int], capacity: int) -> None:
    steps, train, val_steps, val = grokking_run()
    straight, resumed = Transition(capacity), Transition(capacity)
    for i in range(len(val)):
        part = slice(25 * i, 25 * i + 25)
        for signal in (straight, resumed):
            signal.extend_train(steps[part], train[part])
            signal.add_val(int(val_steps[i]), float(val[i]))
            if i % 60 == 59:
                signal.refit()
        if i in cuts:
            state = json.loads(json.dumps(resumed.state_dict()))
            resumed = Transition(capacity)
            resumed.load_state_dict(state)
            assert resumed.values() == straight.values()
        assert resumed.begun == straight.begun
    assert resumed.values() == straight.values() != {}
    assert resumed.state_dict() == straight.state_dict()


def test_the_saved_state_is_small() -> None:
    signal = Transition()
    rng = np.random.default_rng(0)
    largest = 0
    for step in range(3000):
        for add in (signal.add_train, signal.add_val):
            add(step, float(np.float32(rng.random())))
        if len(signal._train) == 255:
            largest = max(largest, len(json.dumps(signal.state_dict())))
    assert 10_000 < largest < 12_000


def state() -> dict[str, Any]:
    signal = Transition()
    for step in range(300):
        signal.add_train(step, 0.5)
    return signal.state_dict()


@pytest.mark.parametrize("key", ["train", "val", "known"])
def test_a_missing_key_is_named(key: str) -> None:
    saved = state()
    del saved[key]
    with pytest.raises(ValueError, match=f"lacks '{key}'"):
        Transition().load_state_dict(saved)


@pytest.mark.parametrize("key", sorted(state()["train"]))
def test_a_missing_key_of_a_curve_is_named_and_nothing_is_half_loaded(key: str) -> None:
    saved = state()
    broken = copy.deepcopy(saved)
    del broken["train"][key]
    signal = Transition()
    signal.load_state_dict(saved)
    with pytest.raises(ValueError, match=f"lacks '{key}'"):
        signal.load_state_dict(broken)
    assert signal.state_dict() == saved


def test_a_state_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity of 256 points but this one has 64"):
        Transition(64).load_state_dict(state())
    saved = state()
    saved["train"]["values"] = saved["val"]["values"]
    with pytest.raises(ValueError, match="differ in length"):
        Transition().load_state_dict(saved)


def test_bad_capacity() -> None:
    with pytest.raises(ValueError, match="at least 16 points but is 4"):
        Transition(capacity=4)


def test_bulk_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\)"):
        Transition().extend_train(np.arange(3), np.zeros(2))


def test_a_resumed_run_may_go_back_once() -> None:
    steps = np.arange(0.0, 10_000.0, 50.0)
    val = measured(jump(steps, 5000.0, 800.0), 0.02)
    signal = Transition()
    feed(signal, steps[:120], val[:120])
    feed(signal, steps[110:], val[110:])
    signal.refit()
    assert signal.values()["transition_time"] == pytest.approx(5000.0, rel=0.01)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(0, 5000), capacity=st.integers(16, 80), seed=st.integers(0, 50))
def test_a_merged_curve_keeps_totals_and_order(n: int, capacity: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.integers(1, 10, n))
    values = rng.random(n).astype(np.float32).astype(np.float64)
    curve = MergedCurve(capacity)
    curve.extend(steps, values)
    t, y, w = curve.points()
    assert len(curve) < capacity and curve.count == n == w.sum()
    assert (np.diff(t) > 0).all()
    assert float(w @ t) == pytest.approx(float(steps.sum()))
    assert float(w @ y) == pytest.approx(float(values.sum()), rel=1e-5)
