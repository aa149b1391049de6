from __future__ import annotations

import json
from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokwatch.signals.crossing import Crossing
from tests.curves import ACCURACIES


def passes(value, level, above=True):
    return value >= level if above else value < level


def label(steps, values, level, above=True):
    """The label rule on a whole series: (first touch, first sustained crossing).

    A candidate is judged only if its following 100 steps, and at least five measurements, are in.
    """
    passed = [passes(value, level, above) for value in values]
    touched = next((s for s, p in zip(steps, passed, strict=True) if p), None)
    for i, step in enumerate(steps):
        if not passed[i]:
            continue
        if steps[-1] < step + 100 or len(steps) < i + 6:
            return touched, None
        inside = passed[i + 1 : bisect_right(steps, step + 100)]
        following = inside if len(inside) >= 5 else passed[i + 1 : i + 6]
        if 10 * sum(following) >= 9 * len(following):
            return touched, step
    return touched, None


def compare_at_every_prefix(steps, values, level, above=True, every=1):
    crossing = Crossing(level, above)
    for n, (step, value) in enumerate(zip(steps, values, strict=True), start=1):
        crossing.add(step, value)
        if n % every == 0:
            want = label(steps[:n], values[:n], level, above)
            assert (crossing.touched, crossing.confirmed) == want
            assert not (crossing.pending and crossing.confirmed is not None)
    return crossing


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("curve", ACCURACIES.values(), ids=ACCURACIES)
def test_equals_the_label_rule_at_every_prefix(curve, level):
    compare_at_every_prefix(*curve, level)
    compare_at_every_prefix(*curve, level, above=False)


series = st.lists(st.tuples(st.integers(1, 60), st.sampled_from([0.2, 0.9, 1.0, 1.0, 1.0, 1.0])),
                  max_size=120)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(series, st.booleans(), st.booleans())
def test_equals_the_label_rule_on_random_series(rows, dense, above):
    step, steps = 0, []
    for gap, _ in rows:
        step += 1 if dense else gap
        steps.append(step)
    values = [value for _, value in rows]
    compare_at_every_prefix(steps, values, 0.95, above)


def test_a_touch_is_not_a_crossing():
    crossing = Crossing(0.95)
    for step in range(300):
        crossing.add(step, 1.0 if step == 50 else 0.1)
    assert (crossing.touched, crossing.confirmed, crossing.pending) == (50, None, False)


def test_exactly_ninety_per_cent_is_enough():
    for misses, confirmed in ((10, 0), (11, None)):
        crossing = Crossing(0.95)
        for step in range(101):
            crossing.add(step, 0.0 if 1 <= step <= misses else 1.0)
        assert crossing.confirmed == confirmed


def test_reaching_the_level_exactly_counts_only_upwards():
    for above in (True, False):
        crossing = Crossing(0.5, above)
        crossing.add(1, 0.5)
        assert (crossing.touched == 1) is above


def test_what_waits_is_bounded():
    crossing = Crossing(0.95)
    for step in range(5000):
        crossing.add(step, 0.0 if step % 5 == 0 else 1.0)
        assert len(crossing.state_dict()["recent"]) <= 101
    assert crossing.confirmed is None


@settings(deadline=None, max_examples=30)
@given(series, st.integers(0, 120))
def test_saving_changes_nothing(rows, at):
    one, other, step = Crossing(0.95), Crossing(0.95), 0
    for index, (gap, value) in enumerate(rows):
        step += gap
        if index == at:
            other = Crossing.from_state(json.loads(json.dumps(other.state_dict())))
        one.add(step, value)
        other.add(step, value)
        assert one.state_dict() == other.state_dict()


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="lacks 'recent'"):
        state = Crossing(0.5).state_dict()
        del state["recent"]
        Crossing.from_state(state)
