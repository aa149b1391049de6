"""Random streams of measurements, and signals that forget, fail or are slow."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import torch

from grokwatch import Monitor
from grokwatch.ingest import MEASUREMENTS

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


def begun() -> Monitor:
    monitor = Monitor(budget=1000, signals=[Drop()])
    for step in range(0, 101, 2):
        monitor.update(step, train_loss=1.0, train_accuracy=step / 100, height=1.0)
    return monitor
