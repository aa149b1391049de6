from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from grokwatch.geometry._ends import judge
from grokwatch.geometry.curvature import Curvature, WarmStart, hessian_extremes
from tests.nets import Training


def bowl(eigenvalues, dtype=torch.float64, seed=None):
    """A quadratic loss with these Hessian eigenvalues, rotated at random if seeded."""
    d = torch.as_tensor(eigenvalues, dtype=torch.float64)
    matrix = torch.diag(d)
    if seed is not None:
        noise = torch.randn(
            len(d), len(d), dtype=d.dtype, generator=torch.Generator().manual_seed(seed)
        )
        q, _ = torch.linalg.qr(noise)
        matrix = q @ matrix @ q.T
    x = torch.ones(len(d), dtype=dtype, requires_grad=True)
    fixed = matrix.to(dtype)
    return x, lambda: 0.5 * x @ fixed @ x


def measure(eigenvalues, dtype=torch.float64, seed=None, **settings) -> Curvature:
    x, loss = bowl(eigenvalues, dtype, seed)
    return hessian_extremes(loss, [x], **settings)


SPECTRUM = [*np.linspace(-0.5, 0.5, 300), 10.0, -10.0, 4.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "ends",
    [(10.0, -10.0), (4.0, -10.0), (10.0, -4.0), (1e-8, -3e-8), (1e8, -2e8), (1e-25, -2e-25)],
)
def test_indefinite_spectra_at_any_scale(ends, dtype):
    bulk = np.linspace(ends[1], ends[0], 300) / 20
    found = measure([*bulk, *ends], dtype, seed=1)
    assert found.lambda_max == pytest.approx(ends[0], rel=1e-4)
    assert found.lambda_min == pytest.approx(ends[1], rel=1e-4)
    assert found.ratio == pytest.approx(ends[1] / ends[0], rel=1e-3)
    assert found.resolved_max and found.resolved_min
    assert found.n_hvp == 16


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_fewer_parameters_than_products_is_exact(n):
    values = np.random.default_rng(n).normal(size=n)
    found = measure(values, seed=n)
    assert found.lambda_max == pytest.approx(values.max(), abs=1e-12)
    assert found.lambda_min == pytest.approx(values.min(), abs=1e-12)
    assert found.n_hvp == n and found.resolved_max and found.resolved_min


def test_positive_definite_is_resolved_only_when_searched_through():
    few = measure([1.0, 2.0, 3.0])
    assert few.lambda_min == pytest.approx(1.0) and few.resolved_min
    many = measure([*np.linspace(1, 2, 200), 50.0], seed=0, n_hvp=8)
    assert many.lambda_min > 0 and not many.resolved_min
    negative = measure([*np.linspace(-2, -1, 200), -50.0], seed=0, n_hvp=8)
    assert negative.lambda_max < 0 and not negative.resolved_max and negative.resolved_min


def test_zero_hessian():
    x = torch.ones(50, requires_grad=True)
    for loss in (lambda: x.sum(), lambda: 0 * (x**2).sum()):
        found = hessian_extremes(loss, [x])
        assert (found.lambda_max, found.lambda_min) == (0.0, 0.0)
        assert (found.residual_max, found.residual_min) == (0.0, 0.0)
        assert not found.resolved_max and not found.resolved_min and math.isnan(found.ratio)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_distinct_eigenvalues_exhaust_the_krylov_space(dtype):
    found = measure([3.0] * 40 + [0.0] * 40 + [-1.0] * 20, dtype, seed=2)
    assert found.lambda_max == pytest.approx(3.0, rel=1e-5) and found.resolved_max
    assert found.lambda_min == pytest.approx(-1.0, rel=1e-5) and found.resolved_min


@pytest.mark.parametrize("seed", range(8))
def test_a_near_null_negative_is_not_called_resolved(seed):
    decades = 10.0 ** np.random.default_rng(seed).uniform(-9, -2, size=400)
    found = measure([1.0, *decades, -1e-7], torch.float32, seed=seed, n_hvp=24)
    assert found.lambda_max == pytest.approx(1.0, rel=1e-5) and found.resolved_max
    assert not found.resolved_min
    assert abs(found.ratio) < 2e-3


@pytest.mark.parametrize("seed", range(6))
def test_what_is_called_resolved_is_right(seed):
    random = np.random.default_rng(seed)
    claimed = 0
    for _ in range(25):
        bulk = random.normal(size=150) * 10.0 ** random.uniform(-4, 0, size=150)
        values = [*bulk, random.uniform(0.5, 20), -(10.0 ** random.uniform(-6, 1))]
        found = measure(values, torch.float32, seed=seed, n_hvp=int(random.integers(4, 33)))
        top, bottom = max(values), min(values)
        assert found.lambda_max <= top * (1 + 1e-5) and found.lambda_min >= bottom * (1 + 1e-5)
        if found.resolved_max:
            assert found.lambda_max == pytest.approx(top, rel=0.02)
        if found.resolved_min:
            claimed += 1
            assert found.lambda_min == pytest.approx(bottom, rel=0.2)
    assert claimed > 0


@pytest.mark.parametrize("seed", range(10))
def test_a_singular_hessian_has_no_sign_below_even_when_searched_through(seed):
    random = np.random.default_rng(seed)
    values = [*random.uniform(1, 9, size=3), *[0.0] * int(random.integers(1, 6))]
    found = measure(values, torch.float32, seed=seed)
    assert found.resolved_max and not found.resolved_min
    assert abs(found.lambda_min) < 1e-5


def test_what_may_be_rounding_is_not_claimed():
    assert judge(-1e-6, 0.0, 1e-7, top=False, complete=True)
    assert not judge(-2e-7, 0.0, 1e-7, top=False, complete=True)


def test_residuals_are_those_of_the_eigenvectors():
    x, loss = bowl(SPECTRUM, seed=3)
    found = hessian_extremes(loss, [x], n_hvp=6)
    matrix = _dense(loss, [x])
    for value, residual, v in (
        (found.lambda_max, found.residual_max, found.state.v_max),
        (found.lambda_min, found.residual_min, found.state.v_min),
    ):
        assert torch.linalg.vector_norm(v) == pytest.approx(1.0)
        assert torch.linalg.vector_norm(matrix @ v - value * v) == pytest.approx(residual)


def _dense(loss, params: list[Tensor]) -> Tensor:
    """The Hessian row by row."""
    grads = torch.autograd.grad(loss(), params, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in grads])
    rows = [
        torch.cat(
            [
                r.reshape(-1)
                for r in torch.autograd.grad(
                    g, params, retain_graph=True, allow_unused=True, materialize_grads=True
                )
            ]
        )
        for g in flat
    ]
    return torch.stack(rows)


# -- warm starts ------------------------------------------------------------------------------


def test_a_warm_start_is_better_than_a_cold_one():
    values = [*np.linspace(-1, 1, 400), 1.3, -1.2]
    x, loss = bowl(values, seed=4)
    first = hessian_extremes(loss, [x], n_hvp=32)
    warm = hessian_extremes(loss, [x], n_hvp=8, state=first.state)
    cold = hessian_extremes(loss, [x], n_hvp=8)
    assert warm.warm and not cold.warm
    assert abs(warm.lambda_min + 1.2) < 0.3 * abs(cold.lambda_min + 1.2)
    assert abs(warm.lambda_max - 1.3) < 0.3 * abs(cold.lambda_max - 1.3)


def test_a_stale_or_orthogonal_warm_state_recovers():
    n = 300
    values = torch.linspace(-0.2, 0.2, n, dtype=torch.float64)
    values[0], values[1] = 5.0, -3.0
    x, loss = bowl(values)
    # Nothing of the two ends is in these: without noise their Krylov space would not have it.
    middle, other = torch.zeros(2, n, dtype=x.dtype)
    middle[100:200], other[150:250] = 0.1, 0.1
    for wrong in (WarmStart(middle, other), WarmStart(torch.eye(n)[50], torch.eye(n)[60])):
        recovers(loss, x, wrong)


def recovers(loss, x, wrong):
    found = hessian_extremes(loss, [x], n_hvp=8, state=wrong)
    assert found.lambda_max == pytest.approx(5.0, rel=1e-3)
    assert found.lambda_min == pytest.approx(-3.0, rel=1e-2)


def test_it_is_deterministic_and_the_noise_varies():
    x, loss = bowl(SPECTRUM, torch.float32, seed=5)
    one, two = (hessian_extremes(loss, [x], n_hvp=4) for _ in range(2))
    assert (one.lambda_max, one.lambda_min) == (two.lambda_max, two.lambda_min)
    assert torch.equal(one.state.v_min, two.state.v_min)
    other = hessian_extremes(loss, [x], n_hvp=4, seed=1)
    assert other.lambda_min != one.lambda_min
    assert one.state.probes == 1
    assert hessian_extremes(loss, [x], state=one.state).state.probes == 2


# -- networks ---------------------------------------------------------------------------------


class Small(torch.nn.Module):
    """Tied, frozen, unused and plain parameters in one network."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(7, 5)
        self.hidden = torch.nn.Linear(5, 5)
        self.frozen = torch.nn.Linear(5, 5).requires_grad_(False)
        self.unused = torch.nn.Linear(3, 2)
        self.head = torch.nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        return self.head(self.frozen(torch.tanh(self.hidden(x))) + x)


def small_problem(dtype=torch.float64):
    torch.manual_seed(3)
    model = Small().to(dtype)
    tokens, targets = torch.randint(7, (40,)), torch.randint(7, (40,))
    return model, lambda: cross_entropy(model(tokens), targets)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_a_network_against_its_dense_hessian():
    model, loss = small_problem()
    params = [p for p in model.parameters() if p.requires_grad]
    names = [name for name, p in model.named_parameters() if p.requires_grad]

    def functional(*values: Tensor) -> Tensor:
        old = dict(zip(names, values, strict=True))
        return torch.func.functional_call(
            _Lossy(model, loss), {f"model.{k}": v for k, v in old.items()}, ()
        )

    blocks = torch.func.hessian(functional, argnums=tuple(range(len(params))))(*params)
    rows = [
        torch.cat([b.reshape(p.numel(), -1) for b in row], dim=1)
        for p, row in zip(params, blocks, strict=True)
    ]
    exact = torch.linalg.eigvalsh(torch.cat(rows).detach())
    assert exact[0] < 0 < exact[-1]
    for given in (model, model.parameters(), model.named_parameters(), [*params, *params]):
        found = hessian_extremes(loss, given, n_hvp=48)
        assert found.lambda_max == pytest.approx(float(exact[-1]), rel=1e-9)
        assert found.lambda_min == pytest.approx(float(exact[0]), rel=1e-6)
        assert found.resolved_max and found.resolved_min
        assert found.state.v_max.numel() == sum(p.numel() for p in params)
    in_32 = small_problem(torch.float32)
    found = hessian_extremes(in_32[1], in_32[0], n_hvp=48)
    assert found.lambda_max == pytest.approx(float(exact[-1]), rel=1e-4)
    assert found.lambda_min == pytest.approx(float(exact[0]), rel=1e-3)


class _Lossy(torch.nn.Module):
    def __init__(self, model, loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self) -> Tensor:
        return self.loss()


def test_methods_agree_on_a_real_network():
    training = Training()
    for _ in range(30):
        training.step()

    def loss() -> Tensor:
        return cross_entropy(training.model(training.x), training.y)

    lanczos = hessian_extremes(loss, training.model, n_hvp=40)
    power = hessian_extremes(loss, training.model, n_hvp=120, method="power")
    pyhessian = hessian_extremes(loss, training.model, n_hvp=100, method="pyhessian")
    assert lanczos.resolved_max and lanczos.method == "lanczos" and lanczos.loss == loss().item()
    for other in (power, pyhessian):
        assert other.lambda_max == pytest.approx(lanczos.lambda_max, rel=0.01)
    assert pyhessian.n_hvp <= 100 and power.n_hvp == 120
    assert math.isnan(pyhessian.lambda_min) and not pyhessian.resolved_min
    again = hessian_extremes(loss, training.model, n_hvp=6, method="power", state=power.state)
    assert again.lambda_max == pytest.approx(lanczos.lambda_max, rel=0.01)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True:UserWarning")
def test_agreement_with_pyhessian_itself():
    from pyhessian import hessian as PyHessian

    training = Training()
    for _ in range(30):
        training.step()
    copied = copy.deepcopy(training.model)
    theirs = PyHessian(copied, cross_entropy, data=(training.x, training.y), cuda=False)
    expected = theirs.eigenvalues(maxIter=200, tol=1e-4)[0][0]
    copied.zero_grad()  # it leaves a reference cycle through .grad

    def loss() -> Tensor:
        return cross_entropy(training.model(training.x), training.y)

    for method, n_hvp in (("lanczos", 16), ("pyhessian", 200)):
        ours = hessian_extremes(loss, training.model, n_hvp=n_hvp, method=method)
        assert ours.lambda_max == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("method", ["power", "pyhessian"])
def test_a_dominant_negative_end(method):
    found = measure([*np.linspace(-1, 1, 50), -20.0], method=method, n_hvp=40, seed=6)
    assert found.lambda_min == pytest.approx(-20.0, rel=1e-3) and found.resolved_min
    assert not found.resolved_max
    if method == "pyhessian":
        assert math.isnan(found.lambda_max) and math.isnan(found.ratio)


@pytest.mark.parametrize("method", ["lanczos", "power", "pyhessian"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(method, bad):
    x = torch.ones(5, requires_grad=True)
    found = hessian_extremes(lambda: (x**2).sum() * bad, [x], method=method)
    assert math.isnan(found.lambda_max) and math.isnan(found.lambda_min)
    assert not found.resolved_max and not found.resolved_min and found.state is None
    assert found.n_hvp == 0
    # A finite loss with an infinite second derivative.
    z = torch.zeros(5, requires_grad=True)
    found = hessian_extremes(lambda: (z.abs() ** 1.5).sum(), [z], method=method)
    assert math.isnan(found.lambda_max) and not found.resolved_max and found.state is None


def test_misuse_is_told():
    x, loss = bowl([1.0, 2.0])
    bad = [
        (ValueError, "method must be in", dict(method="arnoldi")),
        (ValueError, "n_hvp must be at least 2 but got 1", dict(n_hvp=1)),
        (ValueError, "mode must be in", dict(mode="test")),
        (ValueError, "the state is of 3 parameters", dict(
            state=WarmStart(torch.ones(3), torch.ones(3)))),
    ]  # fmt: skip
    for error, message, settings in bad:
        with pytest.raises(error, match=message):
            hessian_extremes(loss, [x], **settings)
    with pytest.raises(TypeError, match="must return the loss as a tensor but returned float"):
        hessian_extremes(lambda: 1.0, [x])
    with pytest.raises(ValueError, match=r"one real number but returned shape \(2,\)"):
        hessian_extremes(lambda: x**2, [x])
    with pytest.raises(ValueError, match="loss without a graph"):
        hessian_extremes(lambda: loss().detach(), [x])
    with pytest.raises(ValueError, match="no parameter requires a gradient"):
        hessian_extremes(loss, [x.detach()])
    with pytest.raises(TypeError, match="params must hold tensors but got str"):
        hessian_extremes(loss, ["x"])
    with pytest.raises(ValueError, match="complex"):
        hessian_extremes(loss, [torch.ones(2, dtype=torch.complex64, requires_grad=True)])
