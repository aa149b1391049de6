"""Measurements in, verdicts out: one door."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from grokwatch import Monitor
from tests.curves import recorded
from tests.streams import (
    Slow,
    agree,
    make,
    random_rows,
    whole,
)

# -- one door --------------------------------------------------------------------------------------


#: A run made from a seed does not become simpler with a smaller seed.
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)


@settings(deadline=None, max_examples=10, phases=NO_SHRINKING)
@given(st.integers(0, 10**9))
def test_however_a_run_arrives_its_verdicts_are_the_same(seed):
    rows = random_rows(seed)
    want = whole(seed, rows)
    agree(want, whole(seed, rows, Slow))
    agree(want, whole(seed, rows, split=True))
    agree(want, whole(seed, rows, dress=True))
    agree(want, whole(seed, rows, look=True))
    agree(want, whole(seed, rows, restart=True))
    agree(want, whole(seed, rows, split=True, dress=True, look=True, restart=True))


@settings(deadline=None, max_examples=6, phases=NO_SHRINKING)
@given(st.integers(0, 10**9))
def test_rows_that_waited_long_change_nothing(seed):
    rows = random_rows(seed, 4000)
    agree(whole(seed, rows, Slow), whole(seed, rows))


def test_a_row_of_nothing_is_no_row():
    monitor = Monitor(budget=100)
    for step in (1, 2, 3):
        monitor.update(step, train_loss=1.0)
    before = monitor.state_dict()
    monitor.update(4)
    monitor.update(4, learning_rate=None)
    assert monitor.last_step == 3 and monitor.state_dict() == before


def test_a_row_cut_in_two_by_ctrl_c_costs_itself_alone():
    monitor = Monitor(budget=10_000)
    for step in range(1, 5000):
        if step % 777 == 0 and monitor._waiting.rows:
            monitor._waiting._columns["train_loss"][0].append(step)  # and no value to it
            continue
        monitor.update(step, train_loss=1.0 + 1 / step)
    assert 4985 < monitor._analyzer.history["train_loss"].count + monitor._waiting.rows < 5000


@pytest.mark.parametrize("seed", range(6))
def test_calls_that_say_nothing_new_change_nothing(seed):
    # They end the waiting, and what may wait from then on is another question.
    r = np.random.default_rng(seed)
    quick, slow = Monitor(budget=10**5, chance=0.1), Slow(budget=10**5, chance=0.1)
    loss, level = 1.0, 1.0
    for step in range(1, 1500):
        level *= r.choice([1.0, 1.0, 1.0, 30.0, 1 / 30]) if step % 97 == 0 else 1.0
        loss = float(np.float32(1e-3 * level * np.exp(r.normal(0, 0.6))))
        row = {"train_loss": loss, "train_accuracy": 1.0}
        for monitor in (quick, slow):
            monitor.update(step, **row)
            if r.random() < 0.1 and monitor is quick:
                monitor.update(step, **row)
                monitor.update(step, val_loss=None)
        assert quick.verdict.as_dict() == slow.verdict.as_dict()


@pytest.mark.parametrize("name", ["slingshot", "grokker"])
def test_a_real_run_arrives_in_two_ways(name):
    rows = [row for row in recorded(name).rows() if row[0] <= 3000]
    seed = next(seed for seed in range(99) if not make(seed).extra_inputs)
    want = whole(seed, rows)
    agree(want, whole(seed, rows, Slow))
    assert {verdict["phase"] for _, verdict in want} >= {"confusion", "memorisation"}
    assert want[-1][1]["signals"]["spikes"] >= 2


def test_the_fit_of_a_sparse_jump_does_not_depend_on_parts():
    # t4 is confirmed so late that the jump is no longer fitted; what was fitted a moment before,
    # when only a part of that row was there, must not stay.
    noise = np.random.default_rng(0)
    whole, parts, fits = Monitor(budget=10**6, chance=0.1), Monitor(budget=10**6, chance=0.1), set()
    for step in np.unique(np.round(1.25 ** np.arange(60)).astype(int)).tolist():
        row = {
            "train_accuracy": min(1.0, 0.1 + step / 400 + 0.01 * noise.random()),
            "val_accuracy": 0.1 if step < 800 else 0.97 + 0.02 * noise.random(),
        }
        whole.update(step, **row)
        for name, value in row.items():
            parts.update(step, **{name: value})
        assert whole.verdict == parts.verdict
        fits.add(whole.verdict.signals.get("train_transition_time"))
    assert whole.verdict.phase == "generalised"
    assert len(fits) > 2


def test_the_hot_path_is_used():
    monitor = Monitor(budget=10_000, chance=0.1)
    slow = 0
    for step in range(5000):
        before = monitor._waiting.rows
        monitor.update(step, train_loss=1e-3 + 1 / (step + 1), train_accuracy=min(1.0, step / 300))
        slow += monitor._waiting.rows != before + 1
    assert slow < 250


@settings(deadline=None, max_examples=8, phases=NO_SHRINKING)
@given(st.integers(0, 10**9))
def test_loss_alone_works(seed):
    rows = [(step, {"train_loss": row["train_loss"]})
            for step, row in random_rows(seed) if "train_loss" in row]  # fmt: skip
    agree(whole(seed, rows), whole(seed, rows, Slow))


def test_the_verdict_clock():
    monitor = Monitor(budget=10**6)
    steps = []
    for step in range(3000):
        verdict = monitor.update(step, train_loss=2.0)
        if not steps or steps[-1] != verdict.step:
            steps.append(verdict.step)
    assert steps[:8] == list(range(8))
    late = [step for step in steps if step >= 100]
    ratios = np.log10(np.divide(late[1:], late[:-1]))
    np.testing.assert_allclose(ratios, 1 / 25, atol=0.003)


def test_a_spike_is_told_at_its_step():
    monitor = Monitor(budget=10**6, chance=0.1)
    for step in range(1, 5000):
        loss = 1.0 if step == 4321 else 1e-4
        verdict = monitor.update(step, train_loss=loss, train_accuracy=1.0 if step > 9 else 0.1)
        if step == 4321:
            assert (verdict.step, verdict.signals["spikes"]) == (4321, 1)
            assert verdict.signals["spike_amplitude"] == pytest.approx(4, abs=1e-5)


def test_nothing_measured_is_nothing_observed():
    one, other = Monitor(budget=1000), Monitor(budget=1000)
    for step in range(0, 300, 3):
        one.update(step, train_loss=1.0)
        other.update(step, train_loss=1.0)
        other.update(step + 1)
        other.update(step + 2, train_loss=None, val_accuracy=math.nan)
        assert one.verdict == other.verdict
    assert one.state_dict() == other.state_dict()
    assert other.last_step == 297


def test_percent_is_a_fraction_times_a_hundred():
    fraction, percent = Monitor(budget=999), Monitor(budget=999, accuracy_unit="percent")
    for step in range(0, 900, 50):
        accuracy = min(8, step // 50) / 8  # exact in either unit
        row = {"train_loss": 1 / (step + 1), "chance": 0.125}
        one = fraction.update(step, **row, train_accuracy=accuracy, val_accuracy=accuracy)
        other = percent.update(
            step, **row, train_accuracy=100 * accuracy, val_accuracy=100 * accuracy
        )
        assert one == other
    assert one.phase == "generalised"


# -- what it says ----------------------------------------------------------------------------------


def test_training_accuracy_and_validation_loss_never_recommend_to_stop():
    monitor = Monitor(budget=10_000, chance=0.1)
    for step in range(1000):
        verdict = monitor.update(
            step, train_accuracy=min(1.0, step / 50), val_loss=2.0 if step < 500 else 0.01
        )
    assert (verdict.phase, verdict.recommendation) == ("generalised", "continue")
    assert "only an accuracy could tell" in verdict.reason


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_a_verdict_not_an_exception(bad):
    monitor = Monitor(budget=1000)
    for step in range(100):
        verdict = monitor.update(step, train_loss=1.0 if step < 90 else bad)
        assert (verdict.phase == "diverged") == (step >= 92)
    assert verdict.recommendation == "stop_diverged"
    assert verdict.probability == 0.0
    assert "step 92" in verdict.reason
    assert all(math.isfinite(value) for value in verdict.signals.values())


def test_a_negative_loss_only_switches_the_logarithms_off():
    monitor = Monitor(budget=1000, chance=0.1)
    for step in range(600):
        verdict = monitor.update(step, train_loss=1.0 - step / 300 + 0.01 * (step % 3),
                                 train_accuracy=min(1.0, step / 50))  # fmt: skip
    assert verdict.phase == "memorisation"
    assert "spectral_activity" in verdict.signals
    assert not {name for name in verdict.signals if "log" in name or "spike" in name}
    json.dumps(verdict.as_dict(), allow_nan=False)


def test_a_policy_of_ones_own_and_its_memory():
    class Every:
        def decide(self, facts, memory):
            count = (memory or 0) + 1
            return ("stop_unpromising" if count >= 5 else "continue"), count

    def run(parts):
        monitor, said = Monitor(budget=100, policy=Every()), []
        for step in range(8):
            for part in parts:
                verdict = monitor.update(step, **part)
            said.append(verdict.recommendation)
        return said

    want = ["continue"] * 4 + ["stop_unpromising"] * 4
    assert run([{"train_loss": 1.0, "val_loss": 1.0}]) == want
    assert run([{"train_loss": 1.0}, {"val_loss": 1.0}, {"val_margin": 1.0}]) == want
