from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from grokwatch.geometry.landscape import (
    direction_between,
    filter_normalized,
    hessian_directions,
    named_parameters,
    random_direction,
    slice_1d,
    slice_2d,
    slices_over_training,
)

torch.set_num_threads(1)


class Quadratic(nn.Module):
    """L(w) = ½ wᵀ A w + bᵀ w in double precision."""

    def __init__(self, n: int = 4) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(n)
        root = torch.randn(n, n, generator=rng, dtype=torch.float64)
        self.a, self.b = root + root.T, torch.randn(n, generator=rng, dtype=torch.float64)
        self.w = nn.Parameter(torch.randn(n, generator=rng, dtype=torch.float64))

    def forward(self) -> torch.Tensor:
        return self.w @ self.a @ self.w / 2 + self.b @ self.w


class Noisy(nn.Module):
    """All that an evaluation could disturb: BatchNorm, dropout, tied, frozen and odd buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(5, 7)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = self.seen + 1  # another tensor, not another value
        return self.head(self.drop(self.norm(self.embedding(x)))) * self.frozen.mean()


def everything(model: nn.Module) -> list[Any]:
    """Bits, identities and flags of all that must come back."""
    tensors = [*model.parameters(), *model.buffers()]
    return [
        [t.detach().numpy().tobytes() for t in tensors],
        [id(t) for t in tensors],
        [None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()],
        [module.training for module in model.modules()],
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        np.random.get_state()[1].tobytes(),  # type: ignore[index, union-attr]
    ]


def test_a_slice_of_a_quadratic_is_its_parabola() -> None:
    model = Quadratic()
    d = random_direction(named_parameters(model), seed=3)
    alphas = np.linspace(-3, 3, 13)
    found = slice_1d(model, model, d, alphas)
    w, v = model.w.detach(), d["w"]
    c = [model().item(), float(v @ (model.a @ w + model.b)), float(v @ model.a @ v) / 2]
    expected = c[0] + c[1] * alphas + c[2] * alphas**2
    np.testing.assert_allclose(found.values["loss"], expected, rtol=1e-12, atol=1e-12)


def test_hessian_directions_are_the_eigenvectors() -> None:
    model = Quadratic()
    before = everything(model)
    top, bottom = hessian_directions(model, model)
    assert everything(model) == before
    values, vectors = np.linalg.eigh(model.a.numpy())
    assert abs(top["w"].numpy() @ vectors[:, -1]) == pytest.approx(1.0, abs=1e-9)
    assert abs(bottom["w"].numpy() @ vectors[:, 0]) == pytest.approx(1.0, abs=1e-9)
    # Along them the parabola's second derivative is the eigenvalue.
    for direction, value in ((top, values[-1]), (bottom, values[0])):
        low, middle, high = slice_1d(model, model, direction, [-1, 0, 1]).values["loss"]
        assert low - 2 * middle + high == pytest.approx(value, rel=1e-9)
    with pytest.raises(ValueError, match="not finite"):
        hessian_directions(model, lambda: model() * float("nan"))


def test_a_surface_has_beta_down_and_alpha_across() -> None:
    model = Quadratic()
    here = named_parameters(model)
    d, e = random_direction(here, 1), random_direction(here, 2)
    alphas, betas = [-1.0, 0.0, 2.0], [0.5, -0.25]
    found = slice_2d(model, model, (d, e), alphas, betas)
    w = model.w.detach()
    for i, beta in enumerate(betas):
        for j, alpha in enumerate(alphas):
            at = w + alpha * d["w"] + beta * e["w"]
            value = float(at @ model.a @ at / 2 + model.b @ at)
            assert found.values["loss"][i, j] == pytest.approx(value, rel=1e-12)


def test_several_values_by_name_and_the_centre_is_the_model_itself() -> None:
    model = Quadratic()
    found = slice_1d(
        model, lambda: {"loss": model(), "accuracy": 0.25}, {"w": torch.ones(4)}, [0.0, 1.0]
    )
    assert found.values["loss"][0] == model().item()
    assert found.values["accuracy"].tolist() == [0.25, 0.25]


def test_filter_norms_by_hand() -> None:
    weights = {
        "conv": torch.arange(16.0).reshape(2, 2, 2, 2),
        "bias": torch.tensor([-2.0, 0.0, 3.0]),
        "gain": torch.tensor(5.0),
    }
    d = {
        "conv": torch.stack([torch.full((2, 2, 2), 1e-30), torch.zeros(2, 2, 2)]),
        "bias": torch.tensor([0.1, 4.0, -7.0]),
        "gain": torch.tensor(-0.5),
    }
    found = filter_normalized(d, weights)
    norm = float(weights["conv"][0].norm())
    torch.testing.assert_close(found["conv"][0], torch.full((2, 2, 2), norm / 8**0.5))
    assert not found["conv"][1].any()  # nothing to scale
    assert found["bias"].tolist() == [2.0, 0.0, -3.0]
    assert found["gain"].item() == -5.0
    flat = filter_normalized(d, weights, vectors="zero")
    assert not flat["bias"].any() and not flat["gain"].any() and flat["conv"][0].any()


def test_filter_normalised_slices_do_not_depend_on_the_scale_of_the_weights() -> None:
    """Li et al. 2018, section 4: ReLU networks with rescaled layers are the same network."""
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randint(0, 3, (32,))
    slices = []
    for scale in (1.0, 64.0):
        model = nn.Sequential(
            nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)
        ).double()
        model.load_state_dict(
            {
                k: torch.randn(v.shape, generator=torch.Generator().manual_seed(v.numel())).double()
                for k, v in model.state_dict().items()
            }
        )
        model[0].weight.data.mul_(scale)
        model[2].weight.data.div_(scale)
        here = named_parameters(model)
        d = filter_normalized(random_direction(here, 5), here)
        found = slice_1d(
            model, lambda m=model: nn.functional.cross_entropy(m(x.double()), y), d, [-1, 0, 1]
        )
        slices.append(found.values["loss"])
    np.testing.assert_allclose(slices[0], slices[1], rtol=1e-9)


@pytest.mark.parametrize("mode", ["eval", "train", "keep"])
def test_everything_comes_back_bit_for_bit(mode: Any) -> None:
    torch.manual_seed(0)
    model, x = Noisy(), torch.arange(7)
    model.norm.eval()  # one module in another mode than the rest
    loss = nn.functional.cross_entropy(model(x), x)
    loss.backward(retain_graph=True)
    before = everything(model)

    def evaluate() -> torch.Tensor:
        random.random()
        np.random.random()
        return nn.functional.cross_entropy(model(x), x)

    here = named_parameters(model)
    first = slice_1d(model, evaluate, random_direction(here), [-1.0, 0.0, 0.0, 1.0], mode=mode)
    assert everything(model) == before
    values = first.values["loss"]
    assert values[1] == values[2]  # same dropout mask, same running statistics
    loss.backward()  # the graph built before still stands


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_everything_comes_back_after_an_exception(error: type[BaseException]) -> None:
    torch.manual_seed(0)
    model, x = Noisy(), torch.arange(7)
    before, calls = everything(model), []

    def evaluate() -> torch.Tensor:
        calls.append(model(x).sum())
        if len(calls) == 3:
            raise error("stop")
        return calls[-1]

    here = named_parameters(model)
    with pytest.raises(error):
        slice_1d(model, evaluate, random_direction(here), mode="train")
    assert len(calls) == 3 and everything(model) == before
    states = [(0, {k: v + 1 for k, v in model.state_dict().items()}), (1, model.state_dict())]
    calls.clear()
    with pytest.raises(error):
        slices_over_training(model, evaluate, states)
    assert everything(model) == before


def test_training_is_the_same_with_and_without_slices() -> None:
    def train(sliced: bool) -> bytes:
        torch.manual_seed(1)
        model, x = Noisy(), torch.arange(7)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
        for _ in range(5):
            loss = nn.functional.cross_entropy(model(x), x)
            if sliced:  # between forward and backward, the worst of places
                here = named_parameters(model)
                slice_1d(model, lambda: model(x).sum(), random_direction(here), [-1, 1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return b"".join(v.numpy().tobytes() for v in model.state_dict().values())

    assert train(True) == train(False)


def straight_path(model: Quadratic) -> list[tuple[int, dict[str, torch.Tensor]]]:
    start, end = torch.full((4,), 2.0).double(), torch.full((4,), -1.0).double()
    return [(10 * i, {"w": start + (end - start) * i / 3}) for i in range(4)]


@pytest.mark.parametrize("toward", ["final", "next", "initial"])
def test_slices_over_training_reach_their_goal(toward: Any, tmp_path: Path) -> None:
    model = Quadratic()
    path = straight_path(model)
    files: list[tuple[int, Path]] = []
    for step, state in path:
        torch.save(state, tmp_path / f"{step}.pt")
        files.append((step, tmp_path / f"{step}.pt"))
    before = everything(model)
    found = slices_over_training(model, model, files, toward, [0.0, 1.0], normalize="none")
    assert everything(model) == before
    losses = {}
    for step, state in path:
        model.load_state_dict(state)
        losses[step] = model().item()
    goals = {"final": {0: 30, 10: 30, 20: 30}, "initial": {10: 0, 20: 0, 30: 0},
             "next": {0: 10, 10: 20, 20: 30}}[toward]  # fmt: skip
    assert found.steps.tolist() == list(goals)
    expected = [[losses[step], losses[goal]] for step, goal in goals.items()]
    np.testing.assert_allclose(found.values["loss"], expected, rtol=1e-12)


def test_slices_over_training_in_one_random_direction() -> None:
    model = Quadratic()
    path = straight_path(model)
    found = slices_over_training(model, model, path, "random", [1.0], normalize="unit", seed=4)
    d = random_direction(named_parameters(model), 4)["w"]
    assert found.steps.tolist() == [0, 10, 20, 30]
    model.w.data.copy_(path[2][1]["w"] + d / d.norm())
    assert found.values["loss"][2, 0] == pytest.approx(model().item(), rel=1e-12)


def test_buffers_of_each_checkpoint_are_used() -> None:
    torch.manual_seed(0)
    model, x = Noisy().eval(), torch.arange(7)
    states = []
    for shift in (0.0, 1.0):
        state = {k: v.clone() for k, v in model.state_dict().items()}
        state["norm.running_mean"] += shift
        states.append((int(shift), state))
    found = slices_over_training(model, lambda: model(x).sum(), states, "random", [0.0])
    assert found.values["loss"][0, 0] == model(x).sum().item()
    assert found.values["loss"][0, 0] != found.values["loss"][1, 0]


def test_a_compiled_model_is_known_by_its_own_names() -> None:
    model = torch.nn.Linear(2, 2)
    compiled = torch.compile(model, backend="eager")
    assert list(named_parameters(compiled)) == ["weight", "bias"]
    d = direction_between(named_parameters(compiled), compiled.state_dict() | model.state_dict())
    assert not any(v.any() for v in d.values())


def refusals() -> list[tuple[Callable[[], Any], str]]:
    model = Quadratic()
    here = named_parameters(model)
    ok = {"w": torch.ones(4)}
    path = straight_path(model)
    return [
        (lambda: slice_1d(model, model, {"v": torch.ones(4)}), "no parameter of the model"),
        (lambda: slice_1d(model, model, {"w": torch.ones(5)}), r"\(5,\).*\(4,\)"),
        (lambda: slice_1d(model, model, {}), "empty"),
        (lambda: slice_1d(model, model, ok, []), "alphas"),
        (lambda: slice_1d(model, model, ok, [np.nan]), "finite"),
        (lambda: slice_1d(model, model, ok, mode="test"), "mode"),  # type: ignore[arg-type]
        (lambda: slice_2d(model, model, (ok, ok), [0.0], [[0.0]]), "betas"),
        (lambda: filter_normalized({"v": torch.ones(4)}, here), "'v'"),
        (lambda: filter_normalized(ok, {"w": torch.ones(3)}), r"\(4,\).*\(3,\)"),
        (lambda: filter_normalized(ok, here, "one"), "vectors"),  # type: ignore[arg-type]
        (lambda: direction_between(here, {}), "'w'"),
        (lambda: slices_over_training(model, model, path[:1]), "at least two"),
        (lambda: slices_over_training(model, model, path, "up"), "toward"),  # type: ignore[arg-type]
        (
            lambda: slices_over_training(model, model, path, normalize="max"),  # type: ignore[arg-type]
            "normalize",
        ),
        (lambda: slices_over_training(model, model, [(0, {}), (1, ok)]), "lacks 'w'"),
    ]


@pytest.mark.parametrize("case", range(15))
def test_misuse_is_told_and_harms_nothing(case: int) -> None:
    call, message = refusals()[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_progress_is_shown_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    model = Quadratic()
    quiet = slice_1d(model, model, {"w": torch.ones(4)}, [0.0, 1.0])
    assert capsys.readouterr() == ("", "")
    shown = slice_1d(model, model, {"w": torch.ones(4)}, [0.0, 1.0], progress=True)
    assert shown.values["loss"].tolist() == quiet.values["loss"].tolist()
    assert capsys.readouterr().out == ""
