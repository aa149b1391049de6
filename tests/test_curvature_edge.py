from __future__ import annotations

import pytest
import torch
from torch import Tensor

from grokwatch.geometry._edge import stability_limit
from grokwatch.geometry.curvature import hessian_extremes
from grokwatch.geometry.probe import CurvatureProbe

VALUES = torch.tensor([5.0, 3.0, 1.0, 0.1, -0.5])


def bowl(values: Tensor = VALUES) -> tuple[Tensor, object]:
    x = torch.full((len(values),), 0.01, dtype=torch.float64, requires_grad=True)
    return x, lambda: 0.5 * (values.to(x) * x**2).sum()


def grows(make, steps: int = 400) -> bool:
    """Whether an optimiser is thrown out of the bowl ½x²."""
    x = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = make([x])
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * x**2).sum().backward()
        optimizer.step()
    return abs(x.item()) > 1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.5},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.5, "dampening": 0.5},
    ],
)
def test_sgd_diverges_just_above_its_limit_and_not_below(settings):
    limit = stability_limit({"lr": 1.0, "momentum": 0.0, **settings})
    assert limit is not None
    assert not grows(lambda p: torch.optim.SGD(p, lr=0.97 * limit, **settings))
    assert grows(lambda p: torch.optim.SGD(p, lr=1.03 * limit, **settings))


def test_adam_with_its_preconditioner_held_fixed_diverges_just_above_its_limit():
    beta = 0.9
    limit = stability_limit({"betas": (beta, 0.999)})
    assert limit == pytest.approx(38.0)
    for factor, diverges in ((0.97, False), (1.03, True)):
        x, average = 1.0, 0.0
        for _ in range(2000):
            average = beta * average + (1 - beta) * x
            x -= factor * limit * average
        assert (abs(x) > 1) == diverges


def test_plain_sgd_takes_no_further_products():
    x, loss = bowl()
    found = hessian_extremes(loss, [x], optimizer=torch.optim.SGD([x], lr=0.1), n_hvp=8)
    assert found.n_hvp == 5
    assert found.edge.threshold == pytest.approx(20.0)
    assert found.edge.fraction == pytest.approx(5.0 / 20.0) and found.edge.resolved


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_against_the_dense_preconditioned_hessian(kind, amsgrad):
    x, loss = bowl()
    lr, betas, eps = 0.01, (0.8, 0.95), 1e-8
    optimizer = kind([x], lr=lr, betas=betas, eps=eps, amsgrad=amsgrad)
    assert hessian_extremes(loss, [x], optimizer=optimizer).edge is None  # no step taken yet
    second, largest = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(7):
        optimizer.zero_grad()
        loss().backward()
        second = betas[1] * second + (1 - betas[1]) * x.grad**2
        largest = torch.maximum(largest, second)
        optimizer.step()
    used = largest if amsgrad else second
    preconditioner = (1 - betas[0] ** 7) * ((used / (1 - betas[1] ** 7)).sqrt() + eps)
    expected = float((VALUES.to(x) / preconditioner).detach().max())
    found = hessian_extremes(loss, [x], optimizer=optimizer)
    assert found.edge.lambda_max == pytest.approx(expected, rel=1e-9)
    assert found.edge.threshold == pytest.approx((2 + 2 * 0.8) / (0.2 * lr))
    assert found.edge.resolved and found.n_hvp == 10
    again = hessian_extremes(loss, [x], optimizer=optimizer, state=found.state, n_hvp=3)
    assert found.state.v_edge is not None
    assert again.edge.lambda_max == pytest.approx(expected, rel=1e-3)


def test_groups_with_rates_of_their_own():
    a = torch.full((2,), 0.1, dtype=torch.float64, requires_grad=True)
    b = torch.full((2,), 0.1, dtype=torch.float64, requires_grad=True)
    still = torch.full((2,), 0.1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([{"params": [a], "lr": 0.1}, {"params": [b], "lr": 0.3}])

    def loss() -> Tensor:
        return 0.5 * (4 * a**2).sum() + 0.5 * (2 * b**2).sum() + 0.5 * (100 * still**2).sum()

    found = hessian_extremes(loss, [a, b, still], optimizer=optimizer)
    # In units of its limit 2: 0.1 · 4 and 0.3 · 2; what the optimiser does not hold is still.
    assert found.lambda_max == pytest.approx(100.0)
    assert found.edge.fraction == pytest.approx(0.3 * 2 / 2)


def test_optimisers_without_a_known_limit():
    x, loss = bowl()
    for optimizer in (
        torch.optim.RMSprop([x]),
        torch.optim.SGD([x], lr=0.0),
        torch.optim.SGD([x], lr=0.1, maximize=True),
    ):
        assert hessian_extremes(loss, [x], optimizer=optimizer).edge is None


def test_a_probe_says_how_near_plain_sgd_is_to_its_edge_and_charges_nothing():
    net, x = torch.nn.Linear(2, 1, bias=False), torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    batch = x, torch.zeros(2, 1)  # mean of (3 w1)² and w2²: eigenvalues 9 and 1

    def row(optimizer: torch.optim.Optimizer, **settings) -> dict[str, float]:
        probe = CurvatureProbe(batch=batch, **settings).attach(net, optimizer)
        found = probe.measure()
        assert found.n_hvp == 2  # of one spectrum
        return probe.measurements(found)

    sgd = torch.optim.SGD
    assert row(sgd(net.parameters(), lr=0.1))["hessian_edge"] == pytest.approx(9 / 20)
    momentum = row(sgd(net.parameters(), lr=0.1, momentum=0.9))
    assert momentum["hessian_edge"] == pytest.approx(9 / 38)
    assert momentum["hessian_edge_resolved"] == 1.0
    assert "hessian_edge" not in row(torch.optim.Adam(net.parameters()))
    two = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(1))])
    assert "hessian_edge" not in row(sgd(two.parameters(), lr=0.1))  # it moves others


def test_a_probe_says_how_near_adam_is_to_its_edge():
    """Eigenvalues 9 and 1 where the gradients are 9 w and w: preconditioned, both are 1/|w|."""
    net, x = torch.nn.Linear(2, 1, bias=False), torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    batch = x, torch.zeros(2, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.5, 0.25]]))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-9, eps=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(x), batch[1]).backward()
        optimizer.step()
    probe = CurvatureProbe(batch=batch, edge=True).attach(net, optimizer)
    # P = (1 - β₁³) |g|: λ = 9 / ((1 - .9³) 9 · .25) = 4 / (1 - .9³), against 38 / lr.
    expected = 4 / (1 - 0.9**3) / (38 / 1e-9)
    assert probe.measurements(probe.measure())["hessian_edge"] == pytest.approx(expected, rel=1e-4)
