"""A monitor's saved state, and its size."""

from __future__ import annotations

import json
import math
import random
import tracemalloc

import numpy as np
import pytest

from grokwatch import Monitor
from grokwatch.ingest import MEASUREMENTS
from tests.streams import Drop, begun

# -- saved state -----------------------------------------------------------------------------------


def restored(monitor: Monitor) -> Monitor:
    other = Monitor(budget=1000, signals=[Drop()])
    other.load_state_dict(json.loads(json.dumps(monitor.state_dict(), allow_nan=False)))
    return other


def test_after_a_resume_one_step_back_is_fine():
    straight = begun()
    monitor = restored(straight)
    for step in range(60, 101, 2):  # repeated, with other numbers: seen before
        assert monitor.update(step, train_loss=7.0) is monitor.verdict
        assert monitor.catching_up
    for step in range(102, 300, 2):
        row = {"train_loss": 0.5, "train_accuracy": 1.0}
        assert monitor.update(step, **row) == straight.update(step, **row)
        assert not monitor.catching_up
    with pytest.raises(ValueError, match="went backwards from 298 to 150"):
        monitor.update(150, train_loss=1.0)


@pytest.mark.parametrize("rows", [1, 2, 3, 10])
def test_only_right_after_a_resume(rows):
    monitor = restored(begun())
    for step in range(102, 102 + rows):
        monitor.update(step, train_loss=0.9)
        assert not monitor.catching_up
    with pytest.raises(ValueError, match="went backwards"):
        monitor.update(90, train_loss=1.0)


def test_after_a_resume_the_last_step_may_be_repeated():
    monitor = restored(begun())
    monitor.update(100, train_loss=1.0001, train_accuracy=0.9)
    assert monitor.catching_up
    monitor.update(101, train_loss=1.0)
    assert not monitor.catching_up
    with pytest.raises(ValueError, match="came twice"):
        monitor.update(101, train_loss=2.0)


def test_after_a_resume_the_rest_of_a_row_may_come():
    straight = begun()
    monitor = restored(straight)
    row = {"val_loss": 1.0, "val_accuracy": 0.2}
    assert monitor.update(100, **row) == straight.update(100, **row)
    assert monitor.state_dict() == straight.state_dict()


def test_a_saved_state_stands_alone():
    monitor = begun()
    saved = monitor.state_dict()
    text = json.dumps(saved)
    for step in range(101, 400):
        monitor.update(step, train_loss=1e-3 * step, train_accuracy=1.0, val_accuracy=0.9, height=0)
    assert json.dumps(saved) == text
    other = Monitor(budget=1000, signals=[Drop()])
    other.load_state_dict(saved)
    other.update(500, train_loss=9.0, val_accuracy=1.0)
    assert json.dumps(saved) == text


def without(state, *path):
    """A copy of a state that lacks one key."""
    copy = json.loads(json.dumps(state))
    part = copy
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    return copy


def paths(state, before=()):
    for key, value in state.items():
        yield (*before, key)
        if isinstance(value, dict) and key not in ("row", "bins", "verdict", "known"):
            yield from paths(value, (*before, key))


def test_a_missing_key_is_named_and_nothing_is_changed():
    saved = begun().state_dict()
    target = Monitor(budget=1000, signals=[Drop()])
    for step in range(7):
        target.update(step, train_loss=2.0, height=3.0)
    before = target.state_dict()
    optional = ("history", "own", "witnesses")
    tried = 0
    for path in paths(saved):
        if path[0] == "analyzer" and len(path) > 2 and path[1] in optional:
            continue
        if path[0] == "thresholds" and len(path) > 1:
            continue
        tried += 1
        with pytest.raises(ValueError, match=f"lacks {path[-1]!r}"):
            target.load_state_dict(without(saved, *path))
        assert target.state_dict() == before
    assert tried > 40
    with pytest.raises(ValueError, match="lacks 'steps'"):
        target.load_state_dict(without(saved, "analyzer", "history", "train_loss", "steps"))
    with pytest.raises(ValueError, match="lacks 'drop'"):
        target.load_state_dict(without(saved, "analyzer", "own", "drop"))
    assert target.state_dict() == before


def test_a_state_of_another_kind():
    saved = begun().state_dict()
    fresh = Monitor(budget=1000, signals=[Drop()])
    with pytest.raises(ValueError, match="of version 99; this grokwatch reads 1"):
        fresh.load_state_dict({**saved, "version": 99})
    with pytest.raises(ValueError, match="should be a mapping but is NoneType"):
        fresh.load_state_dict(None)
    with pytest.raises(ValueError, match=r"'generalised_at': 0\.94\d*.*'generalised_at': 0\.8"):
        Monitor(budget=1000, generalised_at=0.8, signals=[Drop()]).load_state_dict(saved)
    longer = Monitor(budget=2000, signals=[Drop()])  # a budget may grow
    longer.load_state_dict(saved)
    assert longer.settings.budget == 2000


# -- size ------------------------------------------------------------------------------------------


def everything(step: int, r: random.Random) -> dict[str, float]:
    row = {name: 0.1 + r.random() / 2 for name in MEASUREMENTS if name != "train_accuracy"}
    row["train_accuracy"] = 1.0 if step > 50 else 0.2
    row["train_loss"] = 1e-3 * math.exp(r.gauss(0, 0.2)) * (1e4 if r.random() < 1e-3 else 1)
    return row


def test_the_state_of_a_long_run_with_everything_measured_is_below_64_kb():
    monitor, r = Monitor(budget=10**7), random.Random(0)
    sparse = np.unique(np.geomspace(1, 10**7, 3000).astype(int)).tolist()
    for step in [*sparse, *range(10**7 + 1, 10**7 + 700)]:
        monitor.update(step, **everything(step, r))
    text = json.dumps(monitor.state_dict(), allow_nan=False)
    assert 30_000 < len(text) <= 64_000


def memory_of(updates: int) -> tuple[int, Monitor]:
    """Largest memory in bytes that a run takes, monitor included."""
    r = random.Random(0)
    losses = [1e-3 * math.exp(r.gauss(0, 0.2)) for _ in range(1000)]
    Monitor(budget=1).update(0, train_loss=1.0, val_accuracy=0.5)  # imports are not the monitor's
    tracemalloc.start()
    monitor = Monitor(budget=updates, chance=0.1)
    update = monitor.update
    for step in range(updates):
        if step % 1000 == 0:
            update(step, **everything(step, r))
        elif step % 10_007 == 0:
            update(step, train_loss=3.0)
        else:
            update(step, train_loss=losses[step % 1000], train_accuracy=1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, monitor


@pytest.mark.parametrize("updates", [
    200_000,
    pytest.param(10**6, marks=pytest.mark.slow),
    pytest.param(10**7, marks=pytest.mark.slow),
])  # fmt: skip
def test_memory_is_fixed(updates):
    peak, monitor = memory_of(updates)
    assert peak < 5e6
    assert len(json.dumps(monitor.state_dict())) <= 64_000
