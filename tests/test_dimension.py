from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import skdim
import torch
from torch import nn

from grokwatch.geometry.dimension import (
    activations,
    layer_dimensions,
    mle_dimension,
    neighbour_distances,
    twonn_dimension,
)
from tests.test_landscape import Noisy, everything

torch.set_num_threads(1)
Array = np.ndarray[Any, Any]


def cube(d: int, n: int = 2000, ambient: int = 20, seed: int = 0) -> Array:
    """Uniform in a d-cube, turned into a larger space."""
    rng = np.random.default_rng(seed)
    frame = np.linalg.qr(rng.normal(size=(ambient, d)))[0].T
    return rng.random((n, d)) @ frame


def sphere(d: int, n: int = 2000, seed: int = 0) -> Array:
    points = np.random.default_rng(seed).normal(size=(n, d + 1))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def swiss_roll(n: int = 3000) -> Array:
    rng = np.random.default_rng(0)
    t = 1.5 * np.pi * (1 + 2 * rng.random(n))
    return np.stack([t * np.cos(t), 21 * rng.random(n), t * np.sin(t)], 1)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8])
def test_cubes_have_their_dimension(d: int) -> None:
    points = cube(d)
    # Boundaries pull the estimates down, more so in many dimensions and over many neighbours.
    low, high = 0.82 * d, 1.08 * d
    for k in (2, 10, 20):
        assert low < mle_dimension(points, k) < high
    assert low < twonn_dimension(points) < high
    assert low < twonn_dimension(points, discard=0.1) < high


@pytest.mark.parametrize("d", [1, 2, 4])
def test_spheres_have_their_dimension(d: int) -> None:
    points = sphere(d)
    assert mle_dimension(points, 10) == pytest.approx(d, rel=0.07)
    assert twonn_dimension(points) == pytest.approx(d, rel=0.07)


def test_a_rolled_up_plane_and_a_line() -> None:
    assert twonn_dimension(swiss_roll()) == pytest.approx(2.0, rel=0.07)
    assert mle_dimension(swiss_roll(), 5) == pytest.approx(2.0, rel=0.07)
    line = np.outer(np.random.default_rng(1).random(2000) ** 3, np.arange(5.0))
    assert twonn_dimension(line) == pytest.approx(1.0, rel=0.07)  # whatever the density


def test_estimators_by_hand() -> None:
    """Points 0, 1, 3, 7: nearest two distances (1,3) (1,2) (2,3) (4,6)."""
    points = np.array([[0.0], [1.0], [3.0], [7.0]])
    assert neighbour_distances(points, 2).tolist() == [[1, 3], [1, 2], [2, 3], [4, 6]]
    logs = np.log([3.0, 2.0, 1.5, 1.5])
    assert mle_dimension(points) == pytest.approx(1 / logs.mean(), rel=1e-12)
    assert mle_dimension(points, combine="mean") == pytest.approx((1 / logs).mean(), rel=1e-12)
    x, y = np.sort(logs)[:3], -np.log(1 - np.array([1, 2, 3]) / 4)
    assert twonn_dimension(points) == pytest.approx(x @ y / (x @ x), rel=1e-12)
    assert twonn_dimension(points, discard=0.5) == pytest.approx(
        x[:2] @ y[:2] / (x[:2] @ x[:2]), rel=1e-12
    )


def test_neighbours_in_blocks_and_far_from_the_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    from grokwatch.geometry import dimension

    points = 1e4 + cube(3, 300)  # inner products would lose every digit of these distances
    whole = neighbour_distances(points, 5)
    brute = np.sort(np.linalg.norm(points[:, None] - points[None], axis=-1), axis=1)[:, 1:6]
    np.testing.assert_allclose(whole, brute, rtol=1e-12)
    monkeypatch.setattr(dimension, "_PAIRS", 1000)
    assert (neighbour_distances(points, 5) == whole).all()


@pytest.mark.parametrize("d", [1, 3, 6])
def test_agrees_with_scikit_dimension(d: int) -> None:
    for points in (cube(d, 400), sphere(d, 400)):
        n = len(points)
        # Their distances come by way of inner products: single digits are lost near 1e-8.
        for k in (2, 5, 20):
            for comb, mine in (("mle", "inverse"), ("mean", "mean")):
                theirs = skdim.id.MLE().fit(points, n_neighbors=k, comb=comb).dimension_
                assert mle_dimension(points, k, mine) == pytest.approx(theirs, rel=1e-6)  # type: ignore[arg-type]
        # Theirs keeps the last ratio, whose height is infinite, unless some are discarded.
        theirs = skdim.id.TwoNN(discard_fraction=0.5 / n).fit(points).dimension_
        assert twonn_dimension(points) == pytest.approx(theirs, rel=1e-6)
        theirs = skdim.id.TwoNN(discard_fraction=0.1).fit(points).dimension_
        assert twonn_dimension(points, discard=0.1) == pytest.approx(theirs, rel=1e-6)


def test_coinciding_points_are_left_out() -> None:
    points = cube(2, 500)
    twice = np.concatenate([points, points[:50]])
    assert mle_dimension(twice) == pytest.approx(2.0, rel=0.15)
    assert twonn_dimension(twice) == pytest.approx(2.0, rel=0.15)
    assert np.isnan(mle_dimension(np.ones((9, 3)))) and np.isnan(twonn_dimension(np.ones((9, 3))))
    square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert mle_dimension(square) == np.inf and twonn_dimension(square) == np.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mle_dimension(np.ones(5)), "shape"),
        (lambda: mle_dimension(np.ones((5, 2)), k=5), "between 2 and n - 1 = 4 but got 5"),
        (lambda: mle_dimension(np.ones((5, 2)), k=1), "got 1"),
        (lambda: mle_dimension(np.ones((5, 2)), combine="sum"), "combine"),  # type: ignore[arg-type]
        (lambda: twonn_dimension(np.full((5, 2), np.nan)), "nan or inf"),
        (lambda: twonn_dimension(np.ones((5, 2)), discard=1.0), "discard"),
        (lambda: activations(nn.Linear(2, 2), torch.ones(3, 2), ["head"]), "no layer 'head'"),
        (lambda: activations(nn.Linear(2, 2), (1, 2)), "at least one tensor"),
    ],
)
def test_misuse_is_told(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_layers_of_a_real_network() -> None:
    """Two inputs spread over 64 units are still a surface; what follows a bottleneck is a line."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 1), nn.Linear(1, 16))
    found = layer_dimensions(model, torch.rand(800, 2))
    assert list(found) == ["0", "1", "2", "3"]
    assert found["0"] == pytest.approx(2.0, rel=0.1) == found["1"]
    assert found["2"] == pytest.approx(1.0, rel=0.1) == found["3"]
    chosen = layer_dimensions(model, torch.rand(300, 2), ["", "0"], estimator=twonn_dimension)
    assert list(chosen) == ["", "0"]


def test_activations_are_the_layers_outputs() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    x = torch.randn(5, 3)
    found = activations(model, x)
    assert torch.equal(found["0"], model[0](x).detach())  # not what ReLU made of it in place
    assert torch.equal(found["1"], model(x).detach())
    wide = activations(nn.Linear(3, 4), torch.randn(5, 7, 3), reduce=lambda h: h[:, -1])
    assert wide[""].shape == (5, 4)


def test_inputs_by_position_and_by_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Embedding(3, 2)

        def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> Any:
            y = x if scale is None else x * scale
            return (y + self.position(torch.arange(2)).sum(), "extra")

    x = torch.rand(6, 2)
    by_position = activations(Two(), (x, torch.ones(())), ["", "position"])
    by_name = activations(Two(), {"x": x, "scale": torch.ones(())}, [""])
    assert list(by_position) == [""]  # two positions are not six examples
    assert by_position[""].shape == by_name[""].shape == (6, 2)


@pytest.mark.parametrize("mode", ["eval", "train", "keep"])
def test_nothing_is_left_behind(mode: Any) -> None:
    torch.manual_seed(0)
    model, x = Noisy(), torch.arange(7)
    before = everything(model)
    activations(model, x, mode=mode)
    assert everything(model) == before
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(RuntimeError, match="broken"):
        activations(nn.Sequential(model, Broken()), x, mode=mode)
    assert everything(model) == before
    assert not any(module._forward_hooks for module in model.modules())


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken")
