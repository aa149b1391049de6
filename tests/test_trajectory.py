from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grokwatch.geometry._checkpoints import flat
from grokwatch.geometry.trajectory import Trajectory, pca, principal_directions

torch.set_num_threads(1)
RNG = np.random.default_rng


def random_path(t: int = 9, n: int = 500, seed: int = 0) -> np.ndarray[Any, Any]:
    """A random walk around a far-off point, as weights are."""
    rng = RNG(seed)
    return 10.0 * rng.normal(size=n) + np.cumsum(rng.normal(size=(t, n)), axis=0)


def svd(points: np.ndarray[Any, Any], center: str) -> tuple[Any, Any, Any]:
    m = points - (points.mean(0) if center == "mean" else points[-1])
    u, s, v = np.linalg.svd(m, full_matrices=False)
    return s**2 / (s**2).sum(), u * s, v


@pytest.mark.parametrize("center", ["mean", "final"])
@pytest.mark.parametrize("block", [1, 2, 4, 100])
def test_pca_equals_the_svd_whatever_the_blocks(center: Any, block: int) -> None:
    points = random_path()
    memory = (2 * block + 1) * points[0].nbytes
    found = pca(list(points), center=center, memory=memory)
    explained, path, modes = svd(points, center)
    np.testing.assert_allclose(found.explained, explained, atol=1e-12)
    # Modes without variance have no direction.
    full = explained > 1e-9
    np.testing.assert_allclose(np.abs(found.path[:, full]), np.abs(path[:, full]), atol=1e-8)
    assert (found.path[-1] >= found.path[0]).all()
    for i, direction in enumerate(principal_directions(list(points), found, 3)):
        assert abs(direction[""].double().numpy() @ modes[i]) == pytest.approx(1.0, abs=1e-6)
        projected = (points - points[-1]) @ direction[""].double().numpy()
        np.testing.assert_allclose(
            projected - projected[0], found.path[:, i] - found.path[0, i], atol=1e-4
        )


def test_the_line_from_first_to_last_by_hand() -> None:
    points = random_path(seed=3)
    found = pca(list(points))
    chord = points[-1] - points[0]
    along = (points - points[0]) @ chord / (chord @ chord)
    residual = np.linalg.norm(points - points[0] - along[:, None] * chord, axis=1)
    np.testing.assert_allclose(found.progress, along, atol=1e-12)
    np.testing.assert_allclose(found.residual, residual, atol=1e-5)
    assert found.chord == pytest.approx(np.linalg.norm(chord), rel=1e-12)


def test_a_plane_curve_far_from_the_origin_has_two_modes() -> None:
    angle = np.linspace(0, 2, 30)
    plane = np.linalg.qr(RNG(1).normal(size=(1000, 2)))[0].T
    points = 50.0 + 1e-3 * np.stack([np.cos(angle), np.sin(angle)], 1) @ plane
    found = pca(list(points.astype(np.float32)), center="mean")
    # In single precision the points themselves are rounded to 2e-6.
    assert found.explained[:2].sum() > 0.99 and found.modes_for(0.98) == 2
    exact = pca(list(points))
    assert exact.explained[:2].sum() == pytest.approx(1.0, abs=1e-9)
    assert exact.modes_for(0.5) == 1 and exact.modes_for(1.0) <= 30


def test_a_random_walk_has_61_percent_in_its_first_mode() -> None:
    """6/π² and a quarter of it (Antognini & Sohl-Dickstein 2018): docs/geometry.md warns of it."""
    walk = np.cumsum(RNG(0).normal(size=(120, 3000)), axis=0)
    found = pca(list(walk)).explained
    assert found[:2] == pytest.approx([6 / np.pi**2, 1.5 / np.pi**2], abs=0.02)


def test_files_state_dicts_and_vectors_are_the_same_path(tmp_path: Path) -> None:
    points = random_path(5, 24).astype(np.float32)
    states = [
        {
            "w": torch.from_numpy(p[:20].reshape(4, 5)),
            "n": torch.tensor(3),
            "b": torch.from_numpy(p[20:]).to(torch.float32),
        }
        for p in points
    ]
    files = [tmp_path / f"{i}.pt" for i in range(5)]
    for i, (file, state) in enumerate(zip(files, states, strict=True)):
        torch.save(state if i else {"state_dict": state, "epoch": 3}, file)
    wanted = pca(list(points))
    for checkpoints in (
        states,
        files,
        [str(f) for f in files],
        [torch.from_numpy(p) for p in points],
    ):
        found = pca(checkpoints, memory=300)
        np.testing.assert_allclose(found.explained, wanted.explained, atol=1e-12)
        np.testing.assert_allclose(found.path, wanted.path, atol=1e-5)
    some = pca(files, names=["w"])
    np.testing.assert_allclose(
        some.explained, svd(points[:, :20].astype(float), "mean")[0], atol=1e-9
    )


def test_files_are_read_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight checkpoints in four blocks: each is read (4 + 1)/2 times on average, never all held."""
    import weakref

    from grokwatch.geometry import _pca

    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most, reads = 0, 0

    def counted(checkpoint: Any, layout: Any) -> torch.Tensor:
        nonlocal most, reads
        vector = flat(checkpoint, layout)
        alive.add(vector)
        most, reads = max(most, len(alive)), reads + 1
        return vector

    monkeypatch.setattr(_pca, "flat", counted)
    pca(list(random_path(8, 100)), memory=5 * 800)
    assert reads == 1 + 8 * 5 // 2
    # The origin, two blocks of two, and the block that is being replaced.
    assert most <= 7


def test_a_path_that_never_moves() -> None:
    found = pca([np.ones(3)] * 4)
    assert np.isnan(found.explained).all() and not found.path.any() and found.chord == 0.0
    assert np.isnan(found.progress).all() and not found.residual.any()


@pytest.mark.parametrize(
    ("checkpoints", "options", "message"),
    [
        ([np.ones(3)], {}, "at least two"),
        ([np.ones(3), np.ones(4)], {}, "but \\(3,\\) in the first"),
        ([np.ones(3), np.array([1.0, np.nan, 2.0])], {}, "nan or inf"),
        ([np.ones((2, 3))] * 2, {}, "shape \\(2, 3\\)"),
        ([np.ones(3)] * 2, {"center": "first"}, "center"),
        ([{"w": torch.ones(2)}, {"v": torch.ones(2)}], {}, "w is missing"),
        ([{"w": torch.ones(2)}] * 2, {"names": ["v"]}, "no entry 'v'"),
        ([{"w": torch.ones(2, dtype=torch.long)}] * 2, {}, "floating-point"),
    ],
)
def test_misuse_of_pca_is_told(checkpoints: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pca(checkpoints, **options)


def test_a_file_without_a_state_dict_is_told(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="no state_dict"):
        pca([tmp_path / "a.pt"] * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_angles_equal_their_definition(dtype: torch.dtype) -> None:
    walk = torch.from_numpy(random_path(6, 300)).to(dtype)
    pieces = [walk[0][:100].reshape(4, 25).clone(), walk[0][100:].clone()]
    trajectory = Trajectory(pieces, updates=True)
    w = walk.double().numpy()
    for t in range(1, 6):
        pieces[0].copy_(walk[t][:100].reshape(4, 25))
        pieces[1].copy_(walk[t][100:])
        found = trajectory.update()

        def cosine(u: Any, v: Any) -> float:
            return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))

        assert found.step_cosine == pytest.approx(cosine(w[t - 1], w[t]), abs=1e-12)
        assert found.initial_cosine == pytest.approx(cosine(w[0], w[t]), abs=1e-12)
        assert found.step_length == pytest.approx(np.linalg.norm(w[t] - w[t - 1]), rel=1e-12)
        assert found.initial_distance == pytest.approx(np.linalg.norm(w[t] - w[0]), rel=1e-12)
        assert found.weight_norm == pytest.approx(np.linalg.norm(w[t]), rel=1e-12)
        if t == 1:
            assert math.isnan(found.update_cosine)
        else:  # the last update is kept in the parameters' own precision
            turn = cosine(w[t] - w[t - 1], w[t - 1] - w[t - 2])
            tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}[dtype]
            assert found.update_cosine == pytest.approx(turn, abs=tolerance)


def test_tiny_steps_keep_their_angle() -> None:
    """A turn by 1e-9 has 1 - cos = 5e-19, far below the rounding of a cosine near 1."""
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64)
    trajectory = Trajectory([weights])
    weights.copy_(torch.tensor([1.0, 1e-9], dtype=torch.float64))
    assert trajectory.update().step_cosine_distance == pytest.approx(5e-19, rel=1e-6)


def test_pieces_of_a_large_parameter_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    from grokwatch.geometry import trajectory

    monkeypatch.setattr(trajectory, "_PIECE", 7)
    weights = torch.zeros(50, dtype=torch.float64)
    watched = trajectory.Trajectory([weights])
    weights.copy_(torch.arange(50.0))
    assert watched.update().step_length == pytest.approx(float(torch.arange(50.0).norm()), rel=1e-7)


def test_zero_weights_have_no_angle() -> None:
    trajectory = Trajectory([torch.zeros(3)], updates=True)
    angles = trajectory.update()
    assert math.isnan(angles.step_cosine) and math.isnan(angles.update_cosine)
    assert angles.step_length == 0.0


def test_training_is_untouched_and_memory_is_two_or_three_copies() -> None:
    def train(measured: bool) -> tuple[bytes, list[float]]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(5, 8), torch.nn.Dropout(), torch.nn.Linear(8, 1)
        )
        optimizer, seen = torch.optim.Adam(model.parameters()), []
        trajectory = Trajectory(model.parameters(), updates=True)
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.ones(3, 5)).square().sum().backward()
            optimizer.step()
            if measured:
                seen.append(trajectory.update().step_length)
        held = [v for v in vars(trajectory).values() if isinstance(v, list)]
        n = sum(p.numel() for p in model.parameters())
        assert sum(t.numel() for tensors in held[1:] for t in tensors) == 3 * n
        return b"".join(p.detach().numpy().tobytes() for p in model.parameters()), seen

    assert train(True)[0] == train(False)[0]


def test_a_resumed_trajectory_goes_on_bit_for_bit(tmp_path: Path) -> None:
    walk = torch.from_numpy(random_path(6, 30)).float()
    weights = walk[0].clone()
    whole = Trajectory([weights], updates=True)
    wanted = []
    for t in range(1, 6):
        weights.copy_(walk[t])
        wanted.append(whole.update())
        if t == 2:
            torch.save(whole.state_dict(), tmp_path / "state.pt")
    weights.copy_(walk[2])
    resumed = Trajectory([weights], updates=True)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for t in range(3, 6):
        weights.copy_(walk[t])
        assert resumed.update() == wanted[t - 1]


def test_misuse_of_a_trajectory_is_told() -> None:
    with pytest.raises(ValueError, match="at least one parameter"):
        Trajectory([])
    small, large = Trajectory([torch.ones(2)]), Trajectory([torch.ones(3)])
    with pytest.raises(ValueError, match="parameters"):
        small.load_state_dict(large.state_dict())
    with pytest.raises(ValueError, match="updates"):
        small.load_state_dict(Trajectory([torch.ones(2)], updates=True).state_dict())
    with pytest.raises(ValueError, match="initial"):
        small.load_state_dict({})
