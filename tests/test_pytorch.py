"""Watching real training loops."""

from __future__ import annotations

import warnings

import pytest
import torch

import grokwatch
from tests.loops import cross_entropy, linear_regression, one_step
from tests.nets import Spy

# -- the clock -----------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_accumulated_batches_are_averaged_into_one_row(when):
    model, optimizer, x, y = linear_regression()
    want: dict[int, list[float]] = {}
    with grokwatch.watch(model, optimizer, budget=100, norms_every=1) as watch:
        spy = Spy(watch)
        for step in range(10):
            for part in range(4):
                loss = cross_entropy(model, x[part::4], y[part::4])
                (loss / 4).backward()
                if when == "before":
                    watch.train(loss=loss)
                    want.setdefault(step, []).append(loss.item())
                if part == 3:
                    optimizer.step()
                    optimizer.zero_grad()
                if when == "after":
                    watch.train(loss=loss)
                    want.setdefault(step + (part == 3), []).append(loss.item())
    rows = spy.merged()
    got = {step: row["train_loss"] for step, row in rows.items() if "train_loss" in row}
    assert got == {k: pytest.approx(sum(v) / len(v), rel=1e-6) for k, v in want.items()}
    assert [k for k, row in rows.items() if "weight_norm" in row] == list(range(1, 11))


@pytest.mark.parametrize("first", [0, 1, 1000])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("norms_every", [1, 3])
def test_a_step_of_the_users_own(first, when, norms_every):
    model, optimizer, x, y = linear_regression()
    with grokwatch.watch(model, optimizer, budget=2000, norms_every=norms_every) as watch:
        spy = Spy(watch)
        for step in range(first, first + 20):
            loss = cross_entropy(model, x, y)
            optimizer.zero_grad()
            loss.backward()
            if when == "before":
                watch.train(loss=loss, step=step)
            optimizer.step()
            if when == "after":
                watch.train(loss=loss, step=step)
            if step % 5 == 0:
                watch.validate(loss=loss, step=step)
    rows = spy.merged()
    assert [k for k, row in rows.items() if "train_loss" in row] == list(range(first, first + 20))
    assert any("weight_norm" in row for row in rows.values())


def test_without_an_optimizer_every_call_is_a_step():
    model, *_ = linear_regression()
    with grokwatch.watch(model, budget=100) as watch:
        spy = Spy(watch)
        for step in range(1, 6):
            watch.train(loss=1.0 / step, accuracy=torch.tensor([0.25]))
        watch.train(loss=0.1, step=10)
        watch.validate(loss=0.5)
        watch.train(loss=0.05)
    assert [step for step, row in spy.rows if "train_loss" in row] == [1, 2, 3, 4, 5, 10, 11]
    assert [step for step, row in spy.rows if "val_loss" in row] == [10]


def test_of_several_optimizers_the_first_is_the_clock():
    model, first, x, y = linear_regression()
    second = torch.optim.Adam(model.parameters())
    with grokwatch.watch(model, [first, second], budget=100, norms_every=1) as watch:
        spy = Spy(watch)
        for _ in range(5):
            loss = one_step(model, first, x, y)
            second.step()
            second.step()
            watch.train(loss=loss)
    assert [step for step, _ in spy.rows] == [1, 2, 3, 4, 5]
    assert not first._optimizer_step_post_hooks and not second._optimizer_step_post_hooks


def test_lbfgs_closures_count_one_step_each():
    model, _, x, y = linear_regression()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model, x, y)
        loss.backward()
        return loss

    with grokwatch.watch(model, optimizer, budget=100, norms_every=1) as watch:
        spy = Spy(watch)
        for _ in range(6):
            watch.train(loss=optimizer.step(closure))
    rows = spy.merged()
    assert list(rows) == [1, 2, 3, 4, 5, 6]
    assert rows[6]["train_loss"] < rows[1]["train_loss"]
    assert all(row["learning_rate"] == 1.0 for row in rows.values())


@pytest.mark.parametrize("scaled", [False, True])
def test_mixed_precision(scaled):
    model, optimizer, x, y = linear_regression()
    scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=1024.0)
    with grokwatch.watch(model, optimizer, budget=100, norms_every=1) as watch:
        spy = Spy(watch)
        for _ in range(5):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(x)
                loss = torch.nn.functional.cross_entropy(logits, y)
                watch.train(loss=loss, logits=logits, targets=y)
                watch.validate(logits=logits, targets=y)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            true = torch.cat([p.grad.flatten() for p in model.parameters()]).double().norm().item()
            scaler.update()
    assert logits.dtype == torch.bfloat16
    rows = spy.merged()
    assert rows[5]["grad_norm"] == pytest.approx(true, rel=1e-6)
    assert rows[4]["val_loss"] == pytest.approx(rows[4]["train_loss"], rel=1e-2)


def test_compiled_model():
    model, optimizer, x, y = linear_regression()
    compiled = torch.compile(model, backend="eager")
    with grokwatch.watch(compiled, optimizer, budget=100, norms_every=1) as watch:
        for _ in range(4):
            watch.train(loss=one_step(compiled, optimizer, x, y))
        watch.flush()
        norm = torch.cat([p.detach().flatten() for p in model.parameters()]).norm()
        assert watch.verdict.signals["weight_norm"] == pytest.approx(norm.item(), rel=1e-6)


@pytest.mark.slow
def test_compiled_by_inductor():
    model, optimizer, x, y = linear_regression()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        compiled = torch.compile(model)
        with grokwatch.watch(compiled, optimizer, budget=100) as watch:
            for _ in range(4):
                watch.train(loss=one_step(compiled, optimizer, x, y))
    assert watch.verdict.step == 4
