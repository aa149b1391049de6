from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from grokwatch import Monitor
from grokwatch.forecast.base import Evidence, Settings
from grokwatch.forecast.extrapolation import LogTimeExtrapolation
from grokwatch.history import History


def evidence(now, budget=100_000, t2=100.0, signals=None, **columns):
    """What a monitor knows at step ``now``; columns are functions of the step."""
    history = History()
    steps = np.unique(np.geomspace(1, now, 300).astype(int))
    for name, curve in columns.items():
        history.extend(name, steps.tolist(), [float(curve(step)) for step in steps])
    known = {} if t2 is None else {"t2": t2}
    return Evidence(step=now, phase="memorisation", signals={**known, **(signals or {})},
                    history=history, settings=Settings(budget), by_loss=False)  # fmt: skip


def rising(at):
    """An accuracy that is a straight line in log time and reaches .95 at a step."""
    return lambda step: 0.95 + 0.2 * math.log((step + 1) / (at + 1))


def outlook(*args, **kwargs):
    return LogTimeExtrapolation().outlook(evidence(*args, **kwargs))


def test_insufficient_evidence_says_why():
    for case, why in (
        (evidence(1000, t2=None, val_accuracy=rising(5000)), "not learnt yet"),
        (evidence(1000), "fewer than 8 validations"),
        (evidence(5, val_accuracy=rising(5000)), "fewer than 8 validations"),
        (evidence(1000, val_accuracy=lambda s: 0.1), "no clear trend"),
        (evidence(1000, val_accuracy=lambda s: 0.9 - 0.1 * math.log(s)), "no clear trend"),
        (evidence(1000, val_loss=lambda s: 2 + 0.1 * math.log(s)), "no clear trend"),
        (evidence(1000, val_loss=lambda s: -1.0), "no clear trend"),
        (evidence(1000, val_accuracy=rising(10**7)), "no clear trend"),  # four decades ahead
    ):
        found = LogTimeExtrapolation().outlook(case)
        assert (found.probability, found.eta, found.unpromising) == (None, None, False)
        assert found.reason.startswith("Insufficient evidence")
        assert why in found.reason


@pytest.mark.parametrize("at", [3000, 10_000, 30_000])
def test_a_straight_line_is_followed_to_its_crossing(at):
    low, median, high = outlook(1000, val_accuracy=rising(at)).eta
    assert low < median < high
    # Far ahead nothing is conditioned away: the median is the crossing.
    assert median == pytest.approx(at, rel=0.25 if at < 5000 else 0.02)


def test_a_power_law_of_the_loss_is_followed_too():
    found = outlook(1000, val_loss=lambda s: 5 * (s + 1) ** -0.4)
    assert found.eta[1] == pytest.approx(2 * 20 ** (1 / 0.4), rel=0.05)
    told = outlook(1000, signals={"val_loss_slope_4x": -0.4 * math.log(2)},
                   val_loss=lambda s: 5 * (s + 1) ** -0.4)  # fmt: skip
    assert told.reason.startswith("Validation loss changes by -24 % per doubling of steps; a str")
    assert f"near step {told.eta[1]:,.0f}" in told.reason


def test_the_margin_is_followed_to_zero():
    found = outlook(1000, val_margin=lambda s: math.log((s + 1) / 5001))
    assert found.eta[1] == pytest.approx(5000, rel=0.02)
    assert found.reason.startswith("Validation margin is improving")


def test_the_earlier_crossing_counts():
    accuracy = outlook(1000, val_accuracy=rising(5000))
    both = outlook(1000, val_accuracy=rising(5000), val_loss=lambda s: 5 * (s + 1) ** -0.2)
    assert both.eta == accuracy.eta
    assert "accuracy is improving" in both.reason


def test_the_interval_is_that_of_a_log_normal_given_that_it_is_still_ahead():
    now, at, spread = 1000, 3000, 0.35
    found = outlook(now, val_accuracy=rising(at))
    centre = math.log(at + 1)
    gone = norm.cdf((math.log(now + 1) - centre) / spread)
    want = [math.exp(centre + spread * norm.ppf(gone + p * (1 - gone))) for p in (0.1, 0.5, 0.9)]
    assert found.eta == pytest.approx(want, rel=0.02)
    end = norm.cdf((math.log(100_001) - centre) / spread)
    assert found.probability == pytest.approx(min((end - gone) / (1 - gone), 0.98), abs=0.01)


@settings(deadline=None, max_examples=40)
@given(st.integers(100, 20_000), st.floats(1.0001, 30.0), st.floats(0.2, 100.0), st.booleans())
def test_eta_is_ordered_and_ahead_and_probability_bounded(now, ahead, budget, noisy):
    rng = np.random.default_rng(now)
    line = rising(now * ahead)
    found = outlook(now, budget=max(1, int(now * budget)), t2=10.0,
                    val_accuracy=lambda s: line(s) + noisy * 0.02 * rng.normal())  # fmt: skip
    if found.eta is not None:
        low, median, high = found.eta
        assert now <= low + 1 and low < median < high
        assert 0.02 <= found.probability <= 0.98
        assert not found.unpromising


def test_more_budget_is_more_probable():
    chances = [outlook(1000, budget=b, val_accuracy=rising(20_000)).probability
               for b in (2000, 10_000, 20_000, 40_000, 10**6)]  # fmt: skip
    assert chances == sorted(chances)
    assert chances[0] == 0.02
    assert chances[2] == pytest.approx(0.5, abs=0.03)
    assert chances[-1] == 0.98


def test_same_evidence_same_outlook():
    case = evidence(1000, val_accuracy=rising(5000))
    assert LogTimeExtrapolation().outlook(case) == LogTimeExtrapolation().outlook(case)


def test_the_monitor_asks_only_where_there_is_something_to_forecast():
    class Loud:
        def outlook(self, evidence):
            asked.append((evidence.step, evidence.phase))
            return LogTimeExtrapolation().outlook(evidence)

    asked = []
    monitor = Monitor(budget=1000, chance=0.1, forecast=Loud())
    for step in range(0, 2000, 10):
        accuracy = min(1.0, 0.1 + step / 1000)
        verdict = monitor.update(step, train_accuracy=1.0, val_accuracy=accuracy)
        if verdict.phase == "generalised":
            assert verdict.probability == 1.0
            assert verdict.eta == (850.0, 850.0, 850.0)
    assert {phase for _, phase in asked} == {"memorisation", "transition"}
    assert max(step for step, _ in asked) < 1000
    late = Monitor(budget=100, forecast=Loud())
    assert late.update(101, train_accuracy=1.0).reason == "The budget of 100 steps is used up."
