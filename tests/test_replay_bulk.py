"""Whole slices through the door: the same verdicts as row by row, bit for bit."""

from __future__ import annotations

import functools
import math
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokwatch import Monitor
from grokwatch._bulk import Rows, merged_steps
from grokwatch._sums import add_all, add_rows
from grokwatch.history import LogBins
from grokwatch.records import read_run
from grokwatch.signals.merged_curve import MergedCurve
from grokwatch.signals.slingshot import Slingshot
from tests.curves import GOLDEN
from tests.golden.record import RUNS


def row_by_row(monitor, columns):
    verdicts = []
    for step, row in Rows(columns).all():
        verdict = monitor.update(step, **row)
        if not verdicts or verdict is not verdicts[-1]:
            if verdicts and verdicts[-1].step == verdict.step:
                verdicts.pop()
            verdicts.append(verdict)
    return verdicts


def same(got, want):
    assert [v.step for v in got] == [v.step for v in want]
    for a, b in zip(got, want, strict=True):
        assert a.as_dict() == b.as_dict()
        assert list(a.signals) == list(b.signals)


def invented(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A run of any kind: noise near thresholds, spikes, gaps, NaN, falling back, any cadence."""
    random = np.random.default_rng(seed)
    n = int(random.integers(30, 2500))
    steps = np.cumsum(random.choice([1, 1, 1, 2, 7], n)) + int(random.integers(0, 50))
    t = np.linspace(0, 1, n)
    noise = random.choice([0.0, 0.01, 0.3])
    loss = 4.0 * np.exp(-t * random.uniform(0, 14)) * np.exp(random.normal(0, noise, n))
    for at in random.integers(0, n, random.integers(0, 4)):
        loss[at : at + int(random.integers(1, 40))] *= 10 ** random.uniform(0.5, 4)
    if random.random() < 0.3:
        loss[int(random.integers(0, n)) :][:: int(random.integers(1, 9))] = random.choice(
            [math.nan, math.inf, 1e9, -1.0]
        )
    speed = random.uniform(1, 40)
    accuracy = np.clip(t * speed + random.normal(0, noise / 10, n), 0, 1)
    late = random.uniform(0, 1.2)
    val = np.clip(0.1 + (t > late) * (t - late) * speed + random.normal(0, noise / 5, n), 0, 1)
    if random.random() < 0.3:
        val[t > (late + 1) / 2] *= 0.2  # it falls back
    columns = {"train_loss": loss, "train_accuracy": accuracy, "val_accuracy": val}
    columns["val_loss"] = np.where(random.random() < 0.5, 1 - val, 5.0 * (1.01 - t))
    columns["grad_norm"] = np.abs(random.normal(1, 1, n))
    columns["val_margin"] = random.normal(0, 1, n)
    columns["chance"] = np.full(n, 0.125)
    kept = {}
    for name, values in columns.items():
        if random.random() < 0.7:
            some = random.random(n) < random.choice([1.0, 1.0, 0.1, 0.01])
            kept[name] = (steps[some], values[some].astype(np.float32))
    return kept or {"train_loss": (steps, loss.astype(np.float32))}


@pytest.mark.parametrize("name", list(RUNS))
def test_golden_runs(name):
    run = read_run(GOLDEN / f"{name}.jsonl")
    want = row_by_row(Monitor(**run.settings), run.columns)
    same(Monitor(**run.settings).extend(run.columns), want)


@given(st.integers(0, 10**9))
@settings(max_examples=25, deadline=None)
def test_invented_runs(seed):
    columns = invented(seed)
    chance = None if seed % 2 else 0.1
    want = row_by_row(Monitor(budget=5000, chance=chance), columns)
    same(Monitor(budget=5000, chance=chance).extend(columns), want)


@given(st.integers(0, 10**9), st.floats(0, 1))
@settings(max_examples=10, deadline=None)
def test_in_two_pieces_and_resumed_between(seed, where):
    columns = invented(seed)
    last = max(int(steps[-1]) for steps, _ in columns.values() if len(steps))
    cut = int(where * last)
    parts = [{}, {}]
    for name, (steps, values) in columns.items():
        at = int(np.searchsorted(steps, cut, side="right"))
        parts[0][name], parts[1][name] = (steps[:at], values[:at]), (steps[at:], values[at:])
    whole = Monitor(budget=5000)
    want = whole.extend(columns)
    first, second = Monitor(budget=5000), Monitor(budget=5000)
    got = first.extend(parts[0])
    second.load_state_dict(first.state_dict())
    got += second.extend(parts[1])
    same(got, want)
    assert second.verdict.as_dict() == whole.verdict.as_dict()


def test_percentages_and_numbers_beyond_float32():
    steps = np.arange(1, 3000)
    loss = np.where(steps == 2500, 1e300, 1.0 / steps)
    columns = {"train_loss": (steps, loss), "train_accuracy": (steps, steps / 30.0)}
    with pytest.raises(ValueError, match=r"^step 3001: train_accuracy must lie in 0\.\.100"):
        Monitor(budget=9000, accuracy_unit="percent").extend(
            {"train_accuracy": ([3000, 3001], [99.0, 101.0])}
        )
    want = row_by_row(Monitor(budget=9000, accuracy_unit="percent"), columns)
    same(Monitor(budget=9000, accuracy_unit="percent").extend(columns), want)


class Counts:
    """A signal of one's own that must see every row."""

    name, inputs = "counts", ("train_loss",)

    def __init__(self):
        self.seen = 0

    def update(self, step, name, value):
        self.seen += 1

    def values(self):
        return {"seen": float(self.seen)}

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_a_signal_of_ones_own_sees_every_row():
    monitor = Monitor(budget=9000, signals=[Counts()])
    monitor.extend({"train_loss": (np.arange(1, 1001), np.ones(1000))})
    assert monitor.update(1001, train_loss=1.0).signals["seen"] in (1000.0, 1001.0)
    assert monitor.update(9000, train_loss=1.0).signals["seen"] == 1002.0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"train_loss": ([1, 1], [1, 1])}, "ascend"),
        ({"train_loss": ([1.5], [1])}, "integers"),
        ({"train_loss": ([1, 2], [1])}, r"shape \(2,\)"),
        ({"train_loss": ([1, 2], [1, 2]), "val_accuracy": ([2], [3.0])}, "^step 2: val_accuracy"),
        ({"train_loss": ([-1], [1])}, "^step -1: step cannot be negative"),
    ],
)
def test_misuse_is_told(columns, message):
    with pytest.raises(ValueError, match=message):
        Monitor(budget=9).extend(columns)
    with pytest.raises(TypeError, match=r"^step 3: update got an unknown measurement 'mine'"):
        Monitor(budget=9).extend({"mine": ([3], [1])})


def test_nothing_is_nothing():
    assert Monitor(budget=9).extend({}) == []
    assert Monitor(budget=9).extend({"train_loss": ([], [])}) == []


@given(st.lists(st.lists(st.integers(0, 40), unique=True).map(sorted), max_size=4))
def test_merged_steps_are_all_steps(columns):
    merged = merged_steps([np.array(c, dtype=np.int64) for c in columns])
    assert merged.tolist() == sorted({step for column in columns for step in column})


floats = st.floats(0, 9, width=32) | st.sampled_from([math.nan, math.inf])


@given(st.lists(floats, min_size=1, max_size=400), st.integers(0, 10**14), st.integers(0, 400))
@settings(max_examples=40, deadline=None)
def test_arrays_fill_history_and_curves_as_single_values_do(values, start, cut):
    steps = (start + np.cumsum(np.arange(1, len(values) + 1))).astype(np.int64)
    numbers = np.array(values)
    for make in (LogBins, lambda: MergedCurve(16)):
        one, many = make(), make()
        for step, value in zip(steps.tolist(), values, strict=True):
            one.add(step, value)
        many.extend(steps[:cut], numbers[:cut])
        many.extend(steps[cut:], numbers[cut:])
        assert one.state_dict() == many.state_dict()


@given(st.integers(0, 10**9))
@settings(max_examples=30, deadline=None)
def test_calm_for_is_where_a_spike_would_start(seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 3000))
    levels = np.cumsum(random.normal(0, random.choice([0.001, 0.05, 0.4]), n)) - 2
    levels[random.random(n) < 0.001] += random.uniform(0.8, 2.0)
    losses = (10.0 ** np.clip(levels, -30, 30)).astype(np.float32).astype(np.float64)
    before = int(random.integers(0, min(n, 200)))
    one, many = Slingshot(), Slingshot()
    for signal in (one, many):
        signal.arm(0)
        for step in range(before):
            signal.update(step + 1, "train_loss", float(losses[step]))
    if many.busy:
        return
    count = one.count
    calm = many.calm_for(losses[before:])
    for at in range(before, before + calm):
        one.update(at + 1, "train_loss", float(losses[at]))
        assert one.count == count
    if before + calm < n:
        one.update(before + calm + 1, "train_loss", float(losses[before + calm]))
        assert one.count == count + 1
    steps = np.arange(before + 1, before + calm + 1)
    many.extend_calm(steps, losses[before : before + calm])
    if before + calm == n:
        assert many.state_dict() == one.state_dict()


@pytest.mark.parametrize("shape", [(1, 5000), (2, 3000), (7, 129), (8, 1), (8, 5000), (3000, 2)])
def test_sums_run_from_left_to_right(shape):
    numbers = np.random.default_rng(0).lognormal(0, 8, shape)
    want = [functools.reduce(operator.add, row) for row in numbers.tolist()]  # sum compensates
    assert add_rows(numbers).tolist() == want
    flat = np.concatenate([numbers.ravel()] * 3)
    assert add_all(0.25, flat) == functools.reduce(operator.add, flat.tolist(), 0.25)
    assert add_all(0.25, flat[:0]) == 0.25
