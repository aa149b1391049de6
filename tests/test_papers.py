"""The papers' experiments under examples/: closed forms; each small preset against its paper."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import _experiment
import edge_formulas
import miller_linear
import numpy as np
import optimiser_toys
import pytest
import slingshots
import tiny_mlp_gromov
import torch
from scipy.integrate import quad
from scipy.optimize import linprog

ROOT = Path(__file__).parent.parent


def results_of(script: str, out: Path) -> dict[str, Any]:
    """Run a small preset as a user would; its results.json."""
    path = ROOT / "examples" / f"{script}.py"
    command = [sys.executable, "-W", "error", str(path), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    assert "grokwatch:" in done.stdout or script == "optimiser_toys"
    for figure in out.glob("*.png"):
        assert figure.stat().st_size < 200_000, figure
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


# -- closed forms ---------------------------------------------------------------------------------


def test_linear_losses_are_integrals_over_the_marchenko_pastur_law() -> None:
    lam, steps = 0.9, 60_000
    low, high = (1 - lam**0.5) ** 2, (1 + lam**0.5) ** 2

    def integral(power: int) -> float:
        def integrand(s: float) -> float:
            density = math.sqrt((s - low) * (high - s)) / (2 * math.pi * lam * s)
            return density * s**power * math.exp(-4 * miller_linear.RATE * (s - low) * steps)

        edge = low + 0.02  # nearly all of it lies close to the lower end
        return quad(integrand, low, edge)[0] * math.exp(-4 * miller_linear.RATE * low * steps)

    train, general = miller_linear.losses(np.array([float(steps)]), lam)
    assert train[0] == pytest.approx(integral(1), rel=0.02)  # the form is that of long times
    assert general[0] == pytest.approx(integral(0), rel=0.15)


def test_simulated_student_takes_the_steps_of_gradient_descent() -> None:
    found = miller_linear.simulate(1.5, 20, np.array([0, 50]), seed=3)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((20, 30))
    student = rng.standard_normal(30)
    student /= np.linalg.norm(student)
    for _ in range(50):
        student = student - miller_linear.RATE * 2 * x.T @ (x @ student) / 20
    assert found["val_loss"][0] == pytest.approx(1.0)
    assert found["val_loss"][1] == pytest.approx(float(student @ student))
    assert found["train_loss"][1] == pytest.approx(float(np.mean((x @ student) ** 2)))


def test_generalisation_loss_and_accuracy_are_integrals() -> None:
    for norm, bias, sigma in ((0.3, -1.0, 5.0), (2.0, 0.5, 5.0), (0.0, -3.0, 1.0)):

        def density(z: float) -> float:
            return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        def loss(z: float, s: float = norm * sigma, b: float = bias) -> float:
            return float(np.logaddexp(0.0, s * z + b)) * density(z)

        got = edge_formulas.generalisation_loss(norm, bias, sigma)
        assert got == pytest.approx(quad(loss, -10, 10, limit=200)[0], rel=1e-5)
    cut = 1.0 / (0.3 * 5.0)  # right while z lies below -b / (σ‖S‖)
    share = quad(density, -10, cut)[0]
    assert edge_formulas.generalisation_accuracy(0.3, -1.0, 5.0) == pytest.approx(share)


def test_margin_agrees_with_linear_programming_on_separability() -> None:
    found = set()
    for seed in range(12):
        x = np.random.default_rng(seed).standard_normal((20, 10))
        program = linprog(np.zeros(10), A_ub=-x, b_ub=-np.ones(20), bounds=(None, None))
        separable = program.status == 0
        assert (edge_formulas.margin(x) > 0) == separable
        found.add(separable)
    assert found == {True, False}


def test_two_points_follow_the_exact_solutions_and_reach_their_limits() -> None:
    times = np.geomspace(0.01, 1e5, 20)
    for lam in (0.0, 0.5, 1.0):
        integrated = edge_formulas.two_points(lam, 1.0, times)
        np.testing.assert_allclose(integrated, edge_formulas.exact(lam, times), atol=1e-4)
    for lam, limit in ((0.3, 0.65449), (0.45, 2.09326)):
        s, _ = edge_formulas.two_points(lam, 30.0, np.array([1e6]))
        assert s[0] == pytest.approx(limit, abs=1e-4)


def test_grokking_time_law_for_large_variance() -> None:
    for gap, root in ((0.1, 1.60), (0.01, 3.32), (0.001, 4.94)):
        ratio = edge_formulas.grokking_ratio((1 - gap) / 2, 100.0)
        assert ratio**0.5 == pytest.approx(root, abs=0.02)


def test_toys_have_their_minimum_where_it_is_said_to_be() -> None:
    for toy in optimiser_toys.TOYS.values():
        at = torch.tensor(toy.minimum, dtype=torch.float64, requires_grad=True)
        toy.function(at).backward()
        assert toy.function(at).item() == 0.0 and at.grad is not None and not at.grad.any()
        assert (toy.function(at + torch.randn(50, 2, dtype=torch.float64)) > 0).all()


def test_hand_written_gradient_of_the_quadratic_network() -> None:
    torch.manual_seed(0)
    net = tiny_mlp_gromov.Net(5, 7)
    pairs, targets = torch.randint(5, (9, 2)), torch.rand(9, 5)
    weights = [net.left, net.right, net.out]
    copies = [w.clone().requires_grad_() for w in weights]
    twin = tiny_mlp_gromov.Net(5, 7)
    twin.left, twin.right, twin.out = copies
    ((twin.forward(pairs) - targets) ** 2).mean().backward()
    _, norm = net.step(pairs, targets, 0.5)
    for after, before in zip((net.left, net.right, net.out), copies, strict=True):
        assert before.grad is not None
        torch.testing.assert_close(after, before.detach() - 0.5 * before.grad)
    squares = sum(float((c.grad**2).sum()) for c in copies if c.grad is not None)
    assert float(norm) == pytest.approx(squares**0.5, rel=1e-4)


def test_slingshot_settings_start_from_the_same_weights() -> None:
    preset = slingshots.Preset(10, 3, 8, 1)
    single, double = (slingshots.make(slingshots.SETTINGS[i], preset, 0)[0] for i in (0, 4))
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        assert a.dtype == torch.float32 and b.dtype == torch.float64
        assert torch.equal(a.double(), b)


def test_opinion_says_when_it_was_wrong() -> None:
    opinion = _experiment.Opinion(budget=2000, chance=0.5)
    for step in range(0, 2000, 10):
        opinion.see(step, train_accuracy=1.0, val_accuracy=0.5)
    beside = opinion.beside()
    assert beside["t4"] is None and not beside["generalised"]
    assert beside["said at the end"] == "memorisation"
    assert beside["steps ahead of t4"] is None
    assert _experiment.in_words("run", beside).startswith("run: t2 0, t4 never; grokwatch: memor")


# -- the small presets against the papers ---------------------------------------------------------


@pytest.mark.slow
def test_miller_linear(tmp_path: Path) -> None:
    results = results_of("miller_linear", tmp_path)
    for name, (slope, intercept) in miller_linear.PAPER.items():
        line = results["lines"][name]
        assert line["slope"] == pytest.approx(slope, rel=0.02)
        assert line["intercept"] == pytest.approx(intercept, rel=0.02)
    assert results["ends"]["1.003"]["m"] == pytest.approx(7.939, rel=0.002)
    assert results["ends"]["1.100"]["relative"] == pytest.approx(0.934, rel=0.002)
    below, above = (results["simulated"][lam] for lam in ("0.8", "1.2"))
    assert below["grokwatch"]["said at the end"] == "generalised"
    assert above["grokwatch"]["t2"] and above["grokwatch"]["t4"] is None
    assert above["generalisation loss left"] == pytest.approx(1 - 1 / 1.2, abs=0.03)


@pytest.mark.slow
def test_edge_of_separability(tmp_path: Path) -> None:
    results = results_of("edge_of_separability", tmp_path)
    runs = results["runs"]
    for name, one in runs.items():
        generalised = one["grokwatch"]["generalised"]
        assert generalised == (not one["separable"]), name
    late = runs["gradient descent, λ = 0.45"]["grokwatch"]
    soon = runs["gradient descent, λ = 0.3"]["grokwatch"]
    assert late["t4"] / late["t2"] > 5 * soon["t4"] / soon["t2"]
    assert results["Wendel"]["400, 192"] == pytest.approx(0.21158, abs=1e-5)
    for _, counted, formula in results["Wendel"]["λ, counted, formula"]:
        assert abs(counted - formula) < 4 * math.sqrt(0.25 / 60)
    assert results["law"]["σ = 100"]["slope"] == pytest.approx(-0.715, rel=0.03)
    assert abs(results["law"]["σ = 1"]["slope"]) < 0.3
    distances = results["two points: largest distance from the exact solution"]
    assert max(distances.values()) < 1e-3


@pytest.mark.slow
def test_optimiser_toys(tmp_path: Path) -> None:
    results = results_of("optimiser_toys", tmp_path)
    best = {
        toy: {
            name: max(one["reached"] for one in rates.values())
            for name, rates in results[toy].items()
        }
        for toy in ("Rosenbrock", "Rastrigin")
    }
    assert best["Rosenbrock"]["Rprop"] > 0.9 and best["Rosenbrock"]["Adamax"] > 0.4
    assert best["Rosenbrock"]["SGD"] == best["Rosenbrock"]["momentum"] == 0.0
    assert max(best["Rastrigin"].values()) <= 0.1  # but for starts in the right hollow


@pytest.mark.slow
def test_tiny_mlp_gromov(tmp_path: Path) -> None:
    results = results_of("tiny_mlp_gromov", tmp_path)
    beside = results["grokwatch"]
    assert beside["said at the end"] == "generalised"
    assert beside["t4"] > 1.3 * beside["t2"]
    assert results["last"]["val_accuracy"] > 0.99
    assert results["last"]["waves"] > 2 * results["first"]["waves"]


@pytest.mark.slow
def test_omnigrok_digits(tmp_path: Path) -> None:
    runs = results_of("omnigrok_digits", tmp_path)["runs"]
    large, ordinary = runs["8"], runs["1"]
    assert large["grokwatch"]["t4"] > 1.3 * large["grokwatch"]["t2"]
    assert large["val accuracy at t2"] < 0.8
    assert ordinary["val accuracy at t2"] > 0.85  # no delay from ordinary weights


@pytest.mark.slow
def test_slingshots(tmp_path: Path) -> None:
    runs = results_of("slingshots", tmp_path)["runs"]
    assert runs["Adam, float32, ε 1e-08, decay 0"]["spikes"] > 0
    assert runs["Adam, float32, ε 1e-05, decay 0"]["spikes"] == 0
    assert runs["SGD, float32"]["spikes"] == 0
