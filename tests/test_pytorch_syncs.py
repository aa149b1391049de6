"""No step of a loop waits for the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import grokwatch
from tests.loops import CountScalars, CountSyncs, cross_entropy, linear_regression, one_step
from tests.nets import Spy


def test_no_host_sync_per_step(monkeypatch):
    monkeypatch.setattr("grokwatch.integrations._drain._SECONDS", 1e9)
    monkeypatch.setattr("grokwatch.integrations._drain._AT_ONCE", False)  # a CPU as if far off
    monkeypatch.setattr("grokwatch.integrations._norms.SMALL", -1)
    model, optimizer, x, y = linear_regression()
    steps, validations = 500, 5
    with grokwatch.watch(model, optimizer, budget=1000) as watch:
        with CountSyncs() as methods, CountScalars() as scalars:
            for step in range(1, steps + 1):
                logits = model(x)
                loss = torch.nn.functional.cross_entropy(logits, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.train(loss=loss, logits=logits, targets=y, step=None)
                if step % 100 == 0:
                    watch.validate(logits=logits, targets=y)
                assert not watch.should_stop
    drains = steps / 50 + validations
    assert scalars.count == 0
    assert sum(methods.counts.values()) == methods.counts["tolist"]
    assert 0 < methods.counts["tolist"] <= drains


def test_on_a_cpu_every_number_is_read_once():
    model, optimizer, x, y = linear_regression()
    with grokwatch.watch(model, optimizer, budget=1000, norms_every=0) as watch:
        with CountSyncs() as methods, CountScalars() as scalars:
            for _ in range(200):
                watch.train(loss=one_step(model, optimizer, x, y), accuracy=0.5)
    assert methods.counts == {"item": 200} and scalars.count == 200


@pytest.mark.parametrize("at_once", [False, True])
def test_a_loss_in_a_buffer_that_is_reused_is_kept(at_once, monkeypatch):
    monkeypatch.setattr("grokwatch.integrations._drain._AT_ONCE", at_once)
    model, *_ = linear_regression()
    buffer, array = torch.zeros(()), np.zeros(())
    with grokwatch.watch(model, None, budget=100) as watch:
        spy = Spy(watch)
        for step in range(1, 4):
            watch.train(loss=buffer.fill_(float(step)), grad_norm=array)
            array += 1.0
    assert [row["train_loss"] for _, row in spy.rows] == [1.0, 2.0, 3.0]
    assert [row["grad_norm"] for _, row in spy.rows] == [0.0, 1.0, 2.0]


def test_the_graph_is_let_go(monkeypatch):
    monkeypatch.setattr("grokwatch.integrations._drain._AT_ONCE", False)
    monkeypatch.setattr("grokwatch.integrations._norms.SMALL", -1)
    model, optimizer, x, y = linear_regression()
    watch = grokwatch.watch(model, optimizer, budget=100)
    loss = cross_entropy(model, x, y)
    watch.train(loss=loss)
    kept, *_ = watch._drain._open.values()
    assert not kept.requires_grad and kept.grad_fn is None
    watch.close()
