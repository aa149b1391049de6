"""Batches that go to the drain without being asked about: the same rows, the same verdicts."""

from __future__ import annotations

import json
import random

import pytest
import torch

import grokwatch
from tests.nets import Spy

QUICK = "grokwatch.integrations.pytorch._QUICK"


def trained(seed: int, optimizer_given: bool = True):
    """Rows and last verdict of a loop that calls the watch in any way there is, at random."""
    r = random.Random(seed)
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    logits, targets = torch.randn(8, 3), torch.randint(3, (8,))

    def watch():
        given = optimizer if optimizer_given else None
        return grokwatch.watch(model, given, budget=400, norms_every=r.choice([0, 7, 50]))

    watch, rows, hot = watch(), [], 0
    spy = Spy(watch)
    for step in range(1, 400):
        optimizer.step()
        for _ in range(r.choice([1, 1, 1, 1, 1, 2])):
            loss = torch.tensor(2.0 / step + r.random() / 100, requires_grad=True)
            loss = r.choice([loss, loss, loss, loss.double(), loss.item(), float("nan"), None, "x"]
                            if r.random() < 0.02 else [loss])  # fmt: skip
            how = r.random()
            hot += watch._quick > 0
            if how < 0.8:
                watch.train(loss)
            elif how < 0.9:
                watch.train(loss, accuracy=torch.tensor(min(1.0, step / 300)))
            elif how < 0.94:
                watch.train(loss, logits=logits, targets=targets)
            elif how < 0.97:
                watch.train(loss, grad_norm=3.0)
            elif not optimizer_given:
                watch.train(loss, step=watch._clock.step + 1)
            else:
                watch.train(loss, accuracy=None, step=watch._clock.step)
        if r.random() < 0.05:
            watch.validate(loss=1.0, accuracy=0.3)
        if r.random() < 0.02:
            watch.flush()
        if r.random() < 0.02:
            watch.observe(val_margin=0.5)
        if r.random() < 0.01:
            saved = json.loads(json.dumps(watch.state_dict()))
            watch.load_state_dict(saved)
    watch.close()
    watch.train(1.0)
    rows = [(step, sorted((k, repr(v)) for k, v in row.items())) for step, row in spy.rows]
    return rows, watch.verdict.as_dict(), hot


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.filterwarnings("ignore")
def test_the_short_way_is_the_long_way(seed, monkeypatch):
    rows, verdict, hot = trained(seed)
    monkeypatch.setattr(QUICK, 0)
    want, last, none = trained(seed)
    assert none == 0 and hot > 150
    assert rows == want and verdict == last


@pytest.mark.filterwarnings("ignore")
def test_without_an_optimizer_every_batch_is_a_step():
    rows, _, hot = trained(3, optimizer_given=False)
    assert hot == 0 and len({step for step, _ in rows}) > 300


def test_what_fails_under_way_ends_the_short_way():
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with grokwatch.watch(model, optimizer, budget=400) as watch:
        for step in range(1, 200):
            optimizer.step()
            watch.train(torch.tensor(1.0))
            if step == 20:
                with pytest.warns(RuntimeWarning, match="monitor failed"):
                    watch._outlet.fault("monitor", KeyError("mine"))
        assert watch._quick == 0 and len(watch._drain._rows) <= 50  # those from before


class Undivided(torch.Tensor):
    """A loss that can be added but not averaged."""

    def __truediv__(self, other):
        raise RuntimeError("no division, please")


def test_what_fails_on_the_short_way_stays_in_the_watch():
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with grokwatch.watch(model, optimizer, budget=400, norms_every=0) as watch:
        optimizer.step()
        watch.train(torch.tensor(1.0))
        optimizer.step()
        for _ in range(2):
            watch.train(torch.tensor(1.0).as_subclass(Undivided))
        optimizer.step()
        with pytest.warns(RuntimeWarning, match="no division"):
            watch.train(torch.tensor(1.0))


def test_who_does_not_judge_looks_no_more_often_for_a_process_group(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    looks = []
    monkeypatch.setattr("grokwatch.integrations._distributed.grouped", lambda: looks.append(1))
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with grokwatch.watch(model, optimizer, budget=400) as watch:
        for _ in range(100):
            optimizer.step()
            watch.train(torch.tensor(1.0))
    assert len(looks) < 10
