"""Norms and update angles against float64."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import grokwatch
from grokwatch.integrations._norms import NormProbe
from tests.nets import Spy


def model_and_data(dtype=torch.float32):
    torch.manual_seed(2)
    model = torch.nn.Sequential(
        torch.nn.Linear(12, 32), torch.nn.LayerNorm(32), torch.nn.ReLU(), torch.nn.Linear(32, 5)
    ).to(dtype)
    return model, torch.randn(64, 12).to(dtype), torch.randint(5, (64,))


def flat(tensors):
    """All entries as one float64 vector."""
    return np.concatenate([t.detach().double().numpy().ravel() for t in tensors])


def measure(model, optimizer, x, y, steps=1):
    """Probe and oracle of the last of several steps."""
    probe = NormProbe(model, every=1)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x).float(), y).backward()
        before = copy.deepcopy([p.detach() for p in model.parameters()])
        probe.before_step()
        optimizer.step()
        found = probe.after_step(optimizer)
    u, v = flat(before), flat(model.parameters())
    # 1 - cos with all digits: half the squared distance of the unit vectors
    unit = u / np.linalg.norm(u) - v / np.linalg.norm(v)
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    want = {
        "weight_norm": np.linalg.norm(v),
        "grad_norm": np.linalg.norm(flat(grads)),
        "last_layer_norm": np.linalg.norm(flat([list(model.parameters())[-2]])),
        "update_cosine_distance": unit @ unit / 2,
    }
    return {name: float(value) for name, value in found.items()}, want


@pytest.fixture(params=["by numpy", "by torch"], autouse=True)
def way(request, monkeypatch):
    """Small models on a CPU are measured in another way than the rest."""
    if request.param == "by torch":
        monkeypatch.setattr("grokwatch.integrations._norms.SMALL", -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("lr", [1e-1, 1e-3, 1e-5, 1e-7])
def test_norms_and_angle_against_float64(dtype, make, lr):
    model, x, y = model_and_data(dtype)
    found, want = measure(model, make(model.parameters(), lr=lr), x, y, steps=3)
    assert found["learning_rate"] == lr
    for name in ("weight_norm", "grad_norm", "last_layer_norm"):
        assert found[name] == pytest.approx(want[name], rel=2e-6)
    assert found["update_cosine_distance"] == pytest.approx(
        want["update_cosine_distance"], rel=2e-5, abs=1e-17
    )


def test_a_norm_beyond_half_precision():
    model = torch.nn.Linear(400, 400, bias=False).half()
    torch.nn.init.normal_(model.weight, std=2000.0)
    found = NormProbe(model, 1).after_step(torch.optim.SGD(model.parameters(), lr=1.0))
    want = np.linalg.norm(flat(model.parameters()))
    assert want > torch.finfo(torch.float16).max
    assert float(found["weight_norm"]) == pytest.approx(want, rel=2e-6)


def test_a_large_tensor():
    model = torch.nn.Linear(2000, 2000, bias=False)
    found = NormProbe(model, 1).after_step(torch.optim.SGD(model.parameters(), lr=1.0))
    assert float(found["weight_norm"]) == pytest.approx(
        np.linalg.norm(flat(model.parameters())), rel=1e-6
    )


def test_mixed_precisions():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4).bfloat16(), torch.nn.Linear(4, 2).double())
    found = NormProbe(model, 1).after_step(torch.optim.SGD(model.parameters(), lr=1.0))
    assert float(found["weight_norm"]) == pytest.approx(np.linalg.norm(flat(model.parameters())))


def test_frozen_and_unused_parameters():
    model, x, y = model_and_data()
    model[0].requires_grad_(False)
    model.unused = torch.nn.Linear(3, 3)
    model.forward = lambda x: torch.nn.Sequential.forward(model[:4], x)
    probe = NormProbe(model, 1)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    torch.nn.functional.cross_entropy(model(x), y).backward()
    probe.before_step()
    optimizer.step()
    found = {name: float(value) for name, value in probe.after_step(optimizer).items()}
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(grads) == 4
    assert found["grad_norm"] == pytest.approx(np.linalg.norm(flat(grads)))
    assert found["weight_norm"] == pytest.approx(np.linalg.norm(flat(model.parameters())))
    assert found["last_layer_norm"] == pytest.approx(np.linalg.norm(flat([model.unused.weight])))
    assert found["update_cosine_distance"] > 0.0


def test_without_gradients_there_is_no_gradient_norm():
    model, *_ = model_and_data()
    found = NormProbe(model, 1).after_step(torch.optim.SGD(model.parameters(), lr=0.1))
    assert set(found) == {"weight_norm", "last_layer_norm", "learning_rate"}


def test_sparse_gradients_have_no_norm_but_do_no_harm():
    model = torch.nn.Embedding(10, 3, sparse=True)
    optimizer = torch.optim.SparseAdam(list(model.parameters()))
    with grokwatch.watch(model, optimizer, budget=10, norms_every=1) as watch:
        spy = Spy(watch)
        for _ in range(3):
            loss = model(torch.tensor([1, 2])).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.train(loss=loss)
    assert all("grad_norm" not in row and "weight_norm" in row for _, row in spy.rows)


def test_complex_weights():
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(3, 3, dtype=torch.cfloat))])
    probe, optimizer = NormProbe(model, 1), torch.optim.SGD(model.parameters(), lr=0.1)
    (model[0] * (1 + 2j)).abs().sum().backward()
    probe.before_step()
    before = model[0].detach().clone()
    optimizer.step()
    found = probe.after_step(optimizer)
    u, v = (torch.view_as_real(t.detach()).numpy().ravel() for t in (before, model[0]))
    u, v = u.astype(float), v.astype(float)
    cosine = u @ v / np.linalg.norm(u) / np.linalg.norm(v)
    assert float(found["update_cosine_distance"]) == pytest.approx(1 - cosine, rel=1e-4)
    assert float(found["weight_norm"]) == pytest.approx(np.linalg.norm(v))


def test_an_empty_model():
    model = torch.nn.Sequential(torch.nn.Flatten())
    other = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    with grokwatch.watch(model, optimizer, budget=10, norms_every=1) as watch:
        spy = Spy(watch)
        optimizer.step()
        watch.train(loss=1.0)
    assert spy.rows == [(1, {"learning_rate": float(np.float32(0.1)), "train_loss": 1.0})]


def test_all_weights_zero():
    model = torch.nn.Linear(3, 3)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    probe, optimizer = NormProbe(model, 1), torch.optim.SGD(model.parameters(), lr=0.1)
    probe.before_step()
    found = probe.after_step(optimizer)
    assert float(found["weight_norm"]) == 0.0
    assert np.isnan(float(found["update_cosine_distance"]))


def test_a_large_model_does_without_the_copy(monkeypatch):
    monkeypatch.setattr("grokwatch.integrations._norms.MAX_PARAMETERS_FOR_ANGLE", 100)
    model, *_ = model_and_data()
    probe = NormProbe(model, 1)
    probe.before_step()
    assert probe._before is None
    found = probe.after_step(torch.optim.SGD(model.parameters(), lr=0.1))
    assert "update_cosine_distance" not in found and "weight_norm" in found


def test_cadence():
    probe = NormProbe(torch.nn.Linear(2, 2), every=50)
    measured, step = [], 0
    while (step := probe.next_after(step)) < 160:
        measured.append(step)
    assert measured == [1, 50, 100, 150] and probe.next_after(51) == 100


def test_a_probe_that_fails_is_told_once_and_left_out():
    model, x, y = model_and_data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with grokwatch.watch(model, optimizer, budget=10, norms_every=1) as watch:
        watch._clock._probe.parameters = ["broken"]
        with pytest.warns(RuntimeWarning, match="norms failed") as told:
            for _ in range(5):
                loss = torch.nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.train(loss=loss)
    assert len(told) == 1
    assert watch.verdict.step == 5


def test_weights_and_gradients_can_be_resized_afterwards():
    model, x, y = model_and_data()
    measure(model, torch.optim.SGD(model.parameters(), lr=0.1), x, y)
    weight = model[0].weight
    weight.grad.resize_(5, 4)
    weight.data.resize_(5, 4)
    weight.untyped_storage().resize_(0)


def negative_view():
    return torch.complex(torch.zeros(3, 4), torch.ones(3, 4)).conj().imag


@pytest.mark.parametrize("grad", [negative_view, lambda: torch._efficientzerotensor(3, 4)])
def test_gradients_that_are_views_of_a_kind(grad):
    model = torch.nn.Linear(4, 3, bias=False)
    model.weight.grad = grad()
    found = NormProbe(model, 1).after_step(torch.optim.SGD(model.parameters(), lr=0.1))
    want = np.linalg.norm(model.weight.grad.clone().numpy())
    assert float(found["grad_norm"]) == pytest.approx(want)


class Subclass(torch.Tensor):
    """A gradient of somebody's own type."""


def test_a_gradient_of_another_type_than_the_weights_has_its_norm():
    model = torch.nn.Linear(4, 3, bias=False)
    model.weight.grad = torch.ones(3, 4).as_subclass(Subclass)
    probe, optimizer = NormProbe(model, 1), torch.optim.SGD(model.parameters(), lr=0.1)
    probe.before_step()
    found = probe.after_step(optimizer)
    assert float(found["grad_norm"]) == pytest.approx(np.sqrt(12)) and len(found) == 5


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e200])
def test_a_divergence_is_measured_in_silence(value):
    model = torch.nn.Linear(4, 3).double()
    torch.nn.init.constant_(model.weight, value)
    probe, optimizer = NormProbe(model, 1), torch.optim.SGD(model.parameters(), lr=0.1)
    with np.errstate(all="raise"):
        probe.before_step()
        found = probe.after_step(optimizer)
    assert not float(found["weight_norm"]) < 1e200
    assert set(found) >= {"last_layer_norm", "update_cosine_distance"}
