from __future__ import annotations

import json
import math
import random
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from grokwatch import Monitor
from grokwatch.ingest import MEASUREMENTS
from tests.curves import recorded

Rows = list[tuple[int, dict[str, float]]]


class Drop:
    """How far a measurement of its own is below its start."""

    name = "drop"
    inputs = ("train_loss", "height")

    def __init__(self):
        self.first = self.last = None
        self.losses = 0

    def update(self, step, name, value):
        if name == "train_loss":
            self.losses += 1
        elif math.isfinite(value):
            self.first = value if self.first is None else self.first
            self.last = value

    def values(self):
        known = {"losses": float(self.losses)}
        return known if self.first is None else {**known, "drop": self.first - self.last}

    def state_dict(self):
        return {"first": self.first, "last": self.last, "losses": self.losses}

    def load_state_dict(self, state):
        self.first, self.last, self.losses = state["first"], state["last"], state["losses"]


class Failing(Drop):
    """Fails in one of its methods."""

    def __init__(self, where, after=0):
        super().__init__()
        self.where, self.after, self.calls = where, after, 0

    def _fail(self, where):
        if where == self.where:
            self.calls += 1
            if self.calls > self.after:
                raise KeyError("my mistake")

    def update(self, step, name, value):
        self._fail("update")
        super().update(step, name, value)

    def values(self):
        self._fail("values")
        return super().values()

    def state_dict(self):
        self._fail("state_dict")
        return super().state_dict()

    def load_state_dict(self, state):
        self._fail("load_state_dict")
        super().load_state_dict(state)


class Slow(Monitor):
    """Without its hot path."""

    def _plan(self):
        super()._plan()
        self._waiting.room = 0


def random_rows(seed: int, length: int = 160) -> Rows:
    """A run at random: any measurements, irregular steps, NaN, spikes, late or missing accuracy."""
    r = random.Random(seed)
    gaps = r.choice([(1,), (1,), (1, 1, 1, 2, 7), (10,), (1, 50, 300)])
    shown = {name: r.choice([0, 0.05, 0.5, 1]) for name in [*MEASUREMENTS, "height"]}
    shown["train_loss"] = r.choice([0, 0.9, 1, 1, 1])
    shown["chance"] = r.choice([0, 0, 0.02])
    t2, t3, t4, fall, back = sorted(r.random() * 1.5 * length for _ in range(5))
    accuracy_from = r.choice([0, 0, 0, r.random() * length])
    start, floor, spikes = 10 ** r.uniform(-1, 1), 10 ** r.uniform(-9, -2), r.random() < 0.6
    bad = r.choice([0, 0, 0.02, 0.2])
    negative = r.random() < 0.1
    burst = r.randrange(length) if r.random() < 0.2 else None
    step, up, rows = r.choice([0, 0, 1, 12_345]), 0.0, []
    for i in range(length):
        step += r.choice(gaps)
        if spikes and i > t2 and r.random() < 0.03:
            up = r.uniform(0.5, 6)
        up *= r.choice([0.3, 0.8])
        loss = (start * math.exp(-3 * i / (t2 + 1)) + floor * math.exp(r.gauss(0, 0.2))) * 10**up
        if r.random() < bad or (burst is not None and burst <= i < burst + 6):
            loss = r.choice([math.nan, math.inf, 1e9 * start])
        if negative and i > length / 2:
            loss -= start / 100
        learnt = min(1.0, 0.1 + i / (t2 + 1)) if i < t2 else r.choice([1.0, 1.0, 0.995, 0.5])
        general = 0.1 if i < t3 else 1.0 if i > t4 else 0.1 + 0.9 * (i - t3) / (t4 - t3 + 1e-9)
        if fall < i < back:
            general = 0.2
        general = min(1.0, max(0.0, general + r.gauss(0, 0.01)))
        row = {
            "train_loss": loss,
            "train_accuracy": learnt if i >= accuracy_from else None,
            "val_loss": r.choice([1.0, 1.0, math.nan]) * start * (1.05 - general),
            "val_accuracy": general if i >= accuracy_from else None,
            "val_margin": r.gauss(general, 0.1),
            "grad_norm": abs(r.gauss(1, 0.1)) * 10 ** (up / 2),
            "weight_norm": 10 + i / 50,
            "last_layer_norm": 3.0,
            "update_cosine_distance": abs(r.gauss(1e-3, 1e-4)) * 10**up,
            "learning_rate": 1e-3,
            "chance": 0.1,
            "height": r.gauss(0, 1),
        }
        kept = {k: v for k, v in row.items() if v is not None and r.random() < shown[k]}
        if kept:
            rows.append((step, kept))
    return rows


def make(seed: int, kind: type[Monitor] = Monitor) -> Monitor:
    r = random.Random(-seed)
    own = [Drop()] if r.random() < 0.3 else []
    chance = r.choice([None, 0.1])
    return kind(budget=r.choice([50, 3000, 10**6]), chance=chance, signals=own)


def known_to(monitor: Monitor, rows: Rows) -> Rows:
    known = {*MEASUREMENTS, *monitor.extra_inputs}
    kept = [(step, {k: v for k, v in row.items() if k in known}) for step, row in rows]
    return [(step, row) for step, row in kept if row]


def whole(seed: int, rows: Rows, kind: type[Monitor] = Monitor, **how):
    """The last verdict of every step; ``how`` says in what way the rows are handed over."""
    monitor = make(seed, kind)
    r = random.Random(seed + 1)
    said = []
    for step, row in known_to(monitor, rows):
        for part in split(row, r) if how.get("split") else [row]:
            if how.get("dress"):
                part = {name: dressed(value, r) for name, value in part.items()}
            verdict = monitor.update(step, **part)
            if how.get("look") and r.random() < 0.1:
                monitor.state_dict()
            if how.get("restart") and r.random() < 0.05:
                saved = json.dumps(monitor.state_dict(), allow_nan=False)
                assert len(saved) <= 64_000
                monitor = make(seed, kind)
                monitor.load_state_dict(json.loads(saved))
                assert monitor.verdict.as_dict() == verdict.as_dict()
        said.append((step, verdict.as_dict()))
    return said


def split(row, r):
    names = list(row)
    r.shuffle(names)
    while names:
        count = r.randint(1, len(names))
        yield {name: row[name] for name in names[:count]}
        names = names[count:]


def dressed(value, r):
    if float(value).is_integer() and r.random() < 0.5:
        return int(value)
    double = torch.float64
    return r.choice([
        float, np.float32, np.float64, np.array, torch.tensor,
        lambda x: torch.tensor([x], dtype=double), lambda x: torch.tensor(x, dtype=double),
    ])(value)  # fmt: skip


def agree(want, got):
    for (step, one), (at, other) in zip(want, got, strict=True):
        assert (step, one) == (at, other)


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


# -- bad input -------------------------------------------------------------------------------------


def begun() -> Monitor:
    monitor = Monitor(budget=1000, signals=[Drop()])
    for step in range(0, 101, 2):
        monitor.update(step, train_loss=1.0, train_accuracy=step / 100, height=1.0)
    return monitor


@pytest.mark.parametrize("step, row, error, parts", [
    (98, {"train_loss": 1.0}, ValueError, ["went backwards from 100 to 98", "only grow", "resume"]),
    (100, {"train_loss": 2.0}, ValueError, ["train_loss of step 100 came twice", "first 1", "now 2",
                                            "larger step", "average"]),
    (101, {"train_accuracy": 97.0}, ValueError, ["train_accuracy", "0..1", "got 97.0", "divide",
                                                 "accuracy_unit='percent'"]),
    (101, {"val_accuracy": -0.5}, ValueError, ["val_accuracy", "0..1", "got -0.5"]),
    (101, {"grad_norm": -1.0}, ValueError, ["grad_norm", "negative", "-1.0"]),
    (101, {"train_los": 1.0}, TypeError, ["unknown measurement 'train_los'", "train_loss",
                                          "Monitor(signals=...)"]),
    (101, {"train_loss": "1.0"}, TypeError, ["train_loss", "real number", "'1.0'"]),
    (101, {"train_loss": np.ones(3)}, TypeError, ["train_loss", "shape (3,)", "mean"]),
    (101, {"height": [1.0]}, TypeError, ["height", "list [1.0]"]),
    (101.0, {"train_loss": 1.0}, TypeError, ["step must be an integer", "101.0", "float"]),
    (-1, {"train_loss": 1.0}, ValueError, ["step cannot be negative", "-1"]),
    (10**18, {"train_loss": 1.0}, ValueError, ["step must be at most", str(10**18), "not a time"]),
    # The good part of a bad row is not taken either.
    (101, {"train_loss": 0.5, "val_loss": 1.0, "val_accuracy": 50.0}, ValueError, ["val_accuracy"]),
])  # fmt: skip
def test_one_clear_error_that_changes_nothing(step, row, error, parts):
    monitor = begun()
    before, verdict = monitor.state_dict(), monitor.verdict
    with pytest.raises(error) as caught:
        monitor.update(step, **row)
    for part in parts:
        assert part in str(caught.value)
    assert monitor.state_dict() == before
    assert monitor.verdict is verdict
    monitor.update(101, train_loss=1.0, train_accuracy=1.0)
    assert monitor.last_step == 101


def test_the_same_value_twice_is_fine():
    monitor = begun()
    before = monitor.state_dict()
    monitor.update(100, train_loss=1.0, train_accuracy=1.0)
    assert monitor.state_dict() == before
    for _ in range(2):
        monitor.update(102, train_loss=math.nan)


@pytest.mark.parametrize("signal, error, message", [
    (object(), TypeError, "signals must have name, inputs, update"),
    (Drop, TypeError, None),
])  # fmt: skip
def test_what_is_no_signal(signal, error, message):
    if message is None:  # a class has all the parts; it fails at its first measurement
        with pytest.warns(RuntimeWarning, match="'drop' failed and is switched off"):
            Monitor(budget=10, signals=[signal]).update(0, train_loss=1.0)
        return
    with pytest.raises(error, match=message):
        Monitor(budget=10, signals=[signal])


def test_two_signals_of_one_name():
    with pytest.raises(ValueError, match="two signals are called 'drop'; rename one"):
        Monitor(budget=10, signals=[Drop(), Drop()])
    phase = Drop()
    phase.name = "phase"
    with pytest.raises(ValueError, match="two signals are called 'phase'"):
        Monitor(budget=10, signals=[phase])


# -- a signal of one's own -------------------------------------------------------------------------


def test_a_signal_of_ones_own():
    monitor = Monitor(budget=1000, signals=[Drop()])
    assert monitor.extra_inputs == {"height"}
    for step in range(300):
        verdict = monitor.update(step, train_loss=1.0, height=10.0 - step)
    assert verdict.signals["drop"] == verdict.step
    assert verdict.signals["losses"] == verdict.step + 1
    assert verdict.signals["height"] == 10 - verdict.step


@pytest.mark.parametrize("where", ["update", "values"])
def test_a_signal_that_fails_is_told_once_and_left_out(where):
    plain = Monitor(budget=1000, signals=[])
    monitor = Monitor(budget=1000, signals=[Failing(where, after=20)])
    with pytest.warns(RuntimeWarning) as told:
        for step in range(300):
            want = plain.update(step, train_loss=1.0)
            verdict = monitor.update(step, train_loss=1.0)
    assert [str(warning.message) for warning in told] == [
        "the signal 'drop' failed and is switched off: KeyError: 'my mistake'"
    ]
    assert verdict == want
    # It stays off in what is resumed, and is not asked to restore anything.
    other = Monitor(budget=1000, signals=[Failing("load_state_dict")])
    other.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    assert other.update(300, train_loss=1.0) == plain.update(300, train_loss=1.0)


def test_a_signal_that_cannot_be_saved_or_restored():
    monitor = Monitor(budget=1000, signals=[Failing("state_dict")])
    monitor.update(0, train_loss=1.0)
    with pytest.warns(RuntimeWarning, match="my mistake"):
        saved = monitor.state_dict()
    assert monitor.state_dict() == saved
    monitor = Monitor(budget=1000, signals=[Drop()])
    monitor.update(0, train_loss=1.0)
    other = Monitor(budget=1000, signals=[Failing("load_state_dict")])
    with pytest.warns(RuntimeWarning, match="my mistake"):
        other.load_state_dict(monitor.state_dict())
    assert "losses" not in other.update(1, train_loss=1.0).signals


def test_values_that_are_not_finite_are_left_out():
    class Odd(Drop):
        def values(self):
            return {"odd": math.nan, "even": np.float32(2.0)}

    verdict = Monitor(budget=10, signals=[Odd()]).update(0, train_loss=1.0)
    assert "odd" not in verdict.signals
    assert type(verdict.signals["even"]) is float


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
