from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokwatch.signals.phase import Phases
from tests.curves import measured
from tests.test_crossing import label


def fed(phases=None, **columns):
    """Phases after some columns, each a function of the step, at steps 0, 10, ... 1990."""
    phases = phases or Phases(chance=0.1)
    for step in range(0, 2000, 10):
        for name in Phases.inputs:
            if name in columns:
                value = columns[name](step)
                if value is not None:
                    phases.update(step, name, float(np.float32(value)))
    return phases


def after(step, low=0.1, high=1.0):
    return lambda now: high if now >= step else low


def between(start, stop, high=1.0, low=0.1):
    return lambda now: high if start <= now < stop else low


def test_the_story_of_a_run_that_groks():
    phases, seen = Phases(chance=0.1), []
    for step in range(0, 2000, 10):
        phases.update(step, "train_accuracy", min(1.0, 0.1 + step / 400))
        phases.update(step, "val_accuracy", min(1.0, max(0.1, (step - 800) / 500)))
        if not seen or seen[-1][1] != phases.phase:
            seen.append((step, phases.phase))
    assert seen == [
        (0, "confusion"),
        (360, "memorisation"),
        (900, "transition"),
        (1380, "generalised"),  # declared once 100 steps and five measurements are in
    ]
    # Chance is left a tenth of the way up: at 0.1 + 0.9 / 10 = 0.19.
    assert phases.values() == {"t1": 40, "t2": 360, "t3": 900, "t4": 1280}


@pytest.mark.parametrize("name", ["grokker", "immediate", "never", "slingshot"])
def test_milestones_of_real_runs_follow_the_label_rule(name):
    train, val = measured(name, "train_accuracy"), measured(name, "val_accuracy")
    columns = ("train_loss", "train_accuracy", "val_accuracy")
    known = {column: dict(zip(*measured(name, column), strict=True)) for column in columns}
    chance = 1 / 23
    phases = Phases(chance=chance)
    for step in train[0]:
        for column in columns:
            if step in known[column]:
                phases.update(step, column, known[column][step])
    leaves = float(np.float32(np.float32(chance) + 0.1 * (1 - np.float32(chance))))
    want = {
        "t1": label(*train, leaves)[0],
        "t2": label(*train, float(np.float32(0.99)))[0],
        "t3": label(*val, leaves)[0],
        "t4": label(*val, float(np.float32(0.95)))[1],
    }
    assert phases.values() == {key: step for key, step in want.items() if step is not None}
    assert ("t4" in phases.values()) == (name in ("grokker", "immediate"))


def test_first_touch_dates_t2_but_not_t4():
    noisy = fed(train_accuracy=between(500, 510), val_accuracy=between(700, 710))
    assert noisy.values() == {"t1": 500, "t2": 500, "t3": 700}
    assert noisy.phase == "transition"


def test_a_percentage_point_below_the_goal_is_not_the_goal():
    assert "t4" not in fed(val_accuracy=after(500, high=0.9499)).values()
    assert fed(val_accuracy=after(500, high=0.95)).t4 == 500
    phases = Phases(0.1, memorised_at=0.8, generalised_at=0.7)
    assert (
        fed(phases, train_accuracy=after(50, high=0.8), val_accuracy=after(90, high=0.7)).t4 == 90
    )
    assert phases.t2 == 50


def test_validation_alone_tells_three_phases():
    for val, phase in ((after(9999), "confusion"), (after(500, high=0.5), "transition"),
                       (after(500), "generalised")):  # fmt: skip
        assert fed(val_accuracy=val).phase == phase


def test_training_alone_stays_at_memorisation():
    assert fed(train_accuracy=after(500)).phase == "memorisation"


# -- by loss ---------------------------------------------------------------------------------------


def test_by_loss_only():
    phases = fed(
        Phases(), train_loss=lambda s: 4 * math.exp(-s / 100), val_loss=after(1000, 5.0, 0.4)
    )
    assert phases.by_loss
    assert phases.basis == (True, True)
    assert phases.phase == "generalised"
    # 10 % and 90 % below the first value; exp(-s / 100) is .9 at 10.5 and .1 at 230.3.
    assert phases.values() == {"t1": 20, "t2": 240, "t3": 1000, "t4": 1000}


def test_a_validation_loss_that_rises_is_not_generalisation():
    phases = fed(Phases(), train_loss=after(300, 2.0, 0.01), val_loss=lambda s: 2 + s / 100)
    assert phases.phase == "memorisation"


def test_accuracy_beats_loss():
    def late(step):
        return 0.1 if step >= 1000 else None

    phases = fed(Phases(), train_loss=after(300, 2.0, 0.01), val_loss=after(300, 2.0, 0.01))
    assert phases.phase == "generalised"
    phases = fed(
        Phases(), train_loss=after(300, 2.0, 0.01), val_loss=after(300, 2.0, 0.01),
        train_accuracy=late, val_accuracy=late,
    )  # fmt: skip
    assert not phases.by_loss
    assert phases.values() == {}
    assert phases.phase == "confusion"


def test_t4_by_loss_is_a_guess_even_if_training_accuracy_is_known():
    phases = fed(train_accuracy=after(100), val_loss=after(300, 2.0, 0.01))
    assert phases.phase == "generalised"
    assert phases.basis == (False, True)
    assert phases.by_loss


@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_nothing_to_judge_by(loss):
    assert Phases().phase == "unknown"
    phases = fed(Phases(), train_loss=lambda s: loss, val_loss=lambda s: loss)
    assert phases.phase == "unknown"
    assert phases.values() == {}
    assert fed(Phases(), train_loss=lambda s: math.nan if s == 0 else None).phase == "unknown"


# -- un-grokking -----------------------------------------------------------------------------------


def test_ungrokked_and_grokked_again():
    phases, seen = Phases(chance=0.1), []
    for step in range(0, 2000, 10):
        phases.update(step, "train_accuracy", 1.0)
        phases.update(step, "val_accuracy", 0.3 if 700 <= step < 1200 or step < 200 else 1.0)
        if not seen or seen[-1][1] != phases.phase:
            seen.append((step, phases.phase, phases.values().get("ungrokked_step")))
    assert seen == [
        (0, "transition", None),
        (300, "generalised", None),
        (800, "ungrokked", 700),
        (1300, "generalised", None),
    ]
    assert phases.t4 == 200


def test_a_dip_is_not_ungrokking():
    phases = fed(val_accuracy=lambda s: 0.1 if s < 200 or 700 <= s < 760 else 1.0)
    assert phases.phase == "generalised"
    # Half-way between chance and the goal is the line: (0.1 + 0.95) / 2.
    for low, phase in ((0.53, "generalised"), (0.52, "ungrokked")):
        phases = fed(val_accuracy=lambda s, low=low: 1.0 if s < 700 else low)
        assert phases.phase == phase


def test_ungrokked_by_loss():
    phases = fed(Phases(), val_loss=lambda s: 0.01 if 200 <= s < 900 else 2.0)
    assert phases.phase == "ungrokked"
    assert phases.values()["ungrokked_step"] == 900


# -- divergence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_diverged_after_a_few_nans(bad):
    phases = Phases(0.1)
    phases.update(0, "train_loss", 1.0)
    for step, phase in ((1, "confusion"), (2, "confusion"), (3, "diverged"), (4, "diverged")):
        phases.update(step, "train_loss", bad)
        assert phases.phase == phase
    assert phases.values()["diverged_step"] == 3
    assert phases.nonfinite
    phases.update(5, "train_loss", 1.0)
    assert phases.phase == "confusion"
    assert "diverged_step" not in phases.values()


def test_nans_from_the_first_step_on():
    assert fed(train_loss=lambda s: math.nan).values() == {"diverged_step": 20}


def test_single_nans_are_not_a_divergence():
    assert fed(train_loss=lambda s: math.nan if s % 30 else 1.0).phase == "confusion"
    assert fed(train_accuracy=after(0), val_loss=lambda s: math.nan).phase == "memorisation"


def test_diverged_by_explosion():
    for factor, phase in ((99.0, "confusion"), (101.0, "diverged")):
        phases = fed(train_loss=lambda s, factor=factor: 2.0 * (factor if s >= 500 else 1))
        assert phases.phase == phase
    assert phases.values()["diverged_step"] == 500 + 31 * 10  # 32 losses in a row
    assert not phases.nonfinite
    spike = fed(train_loss=lambda s: 1e6 if 500 <= s < 500 + 31 * 10 else 1.0)
    assert spike.phase == "confusion"


def test_recovery_from_an_explosion():
    phases = fed(train_loss=lambda s: 1e6 if 500 <= s < 1500 else 1.0, train_accuracy=after(0))
    assert phases.phase == "memorisation"


# -- chance ----------------------------------------------------------------------------------------


def test_chance_unknown_is_the_first_accuracy():
    phases = fed(Phases(), train_accuracy=lambda s: 0.3 + s / 2000)
    assert phases.train.chance == float(np.float32(0.3))
    assert phases.values()["t1"] == 140  # 0.3 + 0.7 / 10


def test_a_told_chance_counts_from_the_next_step_on():
    phases = Phases()
    for name, value in (("chance", 0.5), ("val_accuracy", 0.0)):
        phases.update(0, name, value)
    assert phases.val.chance == 0.0
    phases.update(10, "val_accuracy", 0.25)
    assert (phases.val.chance, phases.val.left) == (0.5, None)
    phases.update(20, "val_accuracy", 0.56)
    assert phases.val.left == 20


def test_a_chance_given_beforehand_stays():
    phases = fed(Phases(chance=0.1), chance=lambda s: 0.5, val_accuracy=after(500, 0.1, 0.2))
    assert phases.val.chance == float(np.float32(0.1))
    assert phases.values() == {"t3": 500}


# -- state and the quiet range ---------------------------------------------------------------------

NUMBERS = st.sampled_from([None, None, math.nan, 0.0, 1e-3, 0.09, 0.1, 0.9, 1.0, 4.0, 500.0, -1.0])
SHARES = st.sampled_from([None, 0.0, 0.1, 0.3, 0.5, 0.95, 0.99, 1.0, 1.0])
STORY = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 40), NUMBERS, SHARES, NUMBERS, SHARES), max_size=8
)


def rows_of(story):
    step = 0
    for gap, count, *values in story:
        for _ in range(count):
            step += gap
            pairs = zip(Phases.inputs, values, strict=False)
            yield step, [pair for pair in pairs if pair[1] is not None]


@settings(deadline=None, max_examples=60)
@given(STORY, st.sampled_from([None, 0.1]), st.integers(0, 50))
def test_saving_and_skipping_the_quiet_change_nothing(story, chance, at):
    one, other = Phases(chance), Phases(chance)
    for index, (step, row) in enumerate(rows_of(story)):
        if index == at:
            saved = json.loads(json.dumps(other.state_dict(), allow_nan=False))
            other = Phases(chance)
            other.load_state_dict(saved)
        loss_range, accuracy_range = other.quiet, other.quiet_accuracy
        for name, value in row:
            one.update(step, name, value)
            quiet = {"train_loss": loss_range, "train_accuracy": accuracy_range}.get(name)
            if quiet is None or not quiet[0] <= value <= quiet[1]:
                other.update(step, name, value)
        assert one.phase == other.phase
        assert one.values() == other.values()
        assert one.basis == other.basis


def test_a_missing_key_is_named():
    saved = Phases().state_dict()
    del saved["train"]["done"]
    with pytest.raises(ValueError, match="lacks 'done'"):
        Phases().load_state_dict(saved)
