from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokwatch.forecast.base import Outlook
from grokwatch.policy import Confirmed, Facts, StandardPolicy
from grokwatch.verdict import PHASES, STOPS, check_stop_on


def facts(phase="memorisation", by_loss=False, unpromising=False, step=9):
    return Facts(step, phase, by_loss, Outlook(None, None, "", unpromising=unpromising))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("by_loss", [False, True])
def test_the_standard_policy_phase_by_phase(phase, by_loss):
    policy = StandardPolicy()
    for unpromising in (False, True):
        want = "continue"
        if phase == "diverged":
            want = "stop_diverged"
        elif phase == "generalised":
            want = "continue" if by_loss else "stop_generalised"
        elif unpromising and phase != "ungrokked":
            want = "stop_unpromising"
        assert policy.decide(facts(phase, by_loss, unpromising), None) == (want, None)


@given(st.lists(st.booleans(), max_size=20), st.integers(1, 4))
def test_confirmed_needs_that_many_in_a_row(story, evaluations):
    policy, memory, row = Confirmed(StandardPolicy(), evaluations), None, 0
    for bad in story:
        choice, memory = policy.decide(facts(unpromising=bad), memory)
        memory = json.loads(json.dumps(memory))  # plain, and enough
        row = row + 1 if bad else 0
        assert choice == ("stop_unpromising" if row >= evaluations else "continue")


def test_confirmed_passes_everything_else_at_once():
    policy = Confirmed(StandardPolicy(), 5)
    assert policy.decide(facts("diverged"), None)[0] == "stop_diverged"
    assert policy.decide(facts("generalised"), None)[0] == "stop_generalised"


def test_deciding_changes_no_memory():
    policy = Confirmed(StandardPolicy(), 3)
    memory = [1, None]
    for _ in range(4):
        assert policy.decide(facts(unpromising=True), memory) == ("continue", [2, None])
    assert memory == [1, None]


def test_policies_wrap_one_another():
    policy, memory, said = Confirmed(Confirmed(StandardPolicy(), 2), 2), None, []
    for _ in range(4):
        choice, memory = policy.decide(facts(unpromising=True), memory)
        said.append(choice)
    assert said == ["continue", "continue", "stop_unpromising", "stop_unpromising"]


def test_bad_settings():
    with pytest.raises(ValueError, match=r"evaluations must be at least 1 but got 0\."):
        Confirmed(StandardPolicy(), 0)


def test_stop_on():
    assert check_stop_on(STOPS) == STOPS
    assert check_stop_on("stop_diverged") == ("stop_diverged",)
    assert check_stop_on([]) == ()
    with pytest.raises(ValueError, match=r"stop_on knows .*stop_diverged.*but got \['divreged'\]"):
        check_stop_on(["divreged"])
