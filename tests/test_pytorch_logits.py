"""Loss, accuracy and margin from logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import grokwatch
from grokwatch.integrations.pytorch import evaluate
from tests.loops import linear_regression
from tests.nets import Spy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("index", [torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("shape", [(40,), (5, 8)])
def test_evaluate_against_numpy(dtype, index, shape):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(*shape, 7, generator=generator).to(dtype)
    targets = torch.randint(7, shape, generator=generator).to(index)
    loss, accuracy, margin = (value.item() for value in evaluate(logits, targets))
    z, t = logits.double().numpy().reshape(-1, 7), targets.long().numpy().ravel()
    rows = np.arange(len(t))
    others = z.copy()
    others[rows, t] = -np.inf
    assert loss == pytest.approx(np.mean(np.log(np.exp(z).sum(1)) - z[rows, t]), rel=1e-5)
    assert accuracy == pytest.approx(np.mean(z.argmax(1) == t))
    assert margin == pytest.approx(np.mean(z[rows, t] - others.max(1)), rel=1e-5)


def test_negative_targets_are_left_out():
    logits, targets = torch.randn(6, 4), torch.tensor([0, 1, -100, 3, -1, 2])
    kept = targets >= 0
    assert [v.item() for v in evaluate(logits, targets)] == pytest.approx(
        [v.item() for v in evaluate(logits[kept], targets[kept])]
    )
    model, *_ = linear_regression()
    with grokwatch.watch(model, budget=9) as watch:
        spy = Spy(watch)
        watch.train(loss=1.0, logits=logits, targets=targets)
    assert spy.rows[0][1]["train_accuracy"] == pytest.approx(
        evaluate(logits[kept], targets[kept])[1].item()
    )
    assert all(torch.isnan(v) for v in evaluate(logits, torch.full((6,), -1)))


def test_validation_of_nothing_is_not_measured():
    model, *_ = linear_regression()
    with grokwatch.watch(model, budget=9) as watch:
        watch.train(loss=1.0)
        watch.validate(logits=torch.zeros(0, 3), targets=torch.zeros(0, dtype=torch.long))
    assert "val_accuracy" not in watch.verdict.signals
