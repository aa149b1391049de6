"""What single precision loses of a memorised network's Hessian, and where a cold probe begins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from grokwatch.geometry._hvp import HessianProduct
from grokwatch.geometry._precision import WideLosses
from grokwatch.geometry.curvature import hessian_extremes


def memorised(dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
    """A linear classifier that is right by about 16 nats: its loss is about 1e-7."""
    torch.manual_seed(0)
    x = torch.randn(40, 8)
    weight = torch.randn(5, 8)
    y = (x @ weight.T).argmax(1)
    model = nn.Linear(8, 5, bias=False)
    with torch.no_grad():
        best = (x @ weight.T).topk(2, dim=1).values
        model.weight.copy_(weight)
        x = x * (16 / (best[:, 0] - best[:, 1])).unsqueeze(1)
    return model.to(dtype), x.to(dtype), y


LOSSES = {
    "function": functional.cross_entropy,
    "module": nn.CrossEntropyLoss(),
    "weights, summed": nn.CrossEntropyLoss(weight=torch.ones(5), reduction="sum"),
    "one-hot": lambda a, y: functional.cross_entropy(a, functional.one_hot(y, 5).to(a)),
    "each": lambda a, y: functional.cross_entropy(input=a, target=y, reduction="none").mean(),
    "binary": lambda a, y: functional.binary_cross_entropy_with_logits(
        a, functional.one_hot(y, 5).to(a)
    ),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_of_a_memorised_network_have_all_their_curvature(kind):
    def measure(dtype: torch.dtype) -> float:
        model, x, y = memorised(dtype)
        criterion = LOSSES[kind].to(dtype) if isinstance(LOSSES[kind], nn.Module) else LOSSES[kind]
        return hessian_extremes(lambda: criterion(model(x), y), model, 40).lambda_max

    exact = measure(torch.float64)
    assert 0 < exact and measure(torch.float32) == pytest.approx(exact, rel=1e-3)


def test_as_it_is_single_precision_loses_several_per_cent():
    grads = []
    for dtype in (torch.float32, torch.float64):
        model, x, y = memorised(dtype)
        loss = functional.cross_entropy(model(x), y)
        grads.append(torch.autograd.grad(loss, model.weight)[0].double())
    assert (grads[0] - grads[1]).norm() > 0.03 * grads[1].norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_loss_keeps_its_type_and_nothing_else_is_touched(dtype):
    a, y = torch.randn(6, 3, dtype=dtype, requires_grad=True), torch.randint(3, (6,))
    with WideLosses():
        loss, other = functional.cross_entropy(a, y), functional.log_softmax(a, 1)
    assert loss.dtype == other.dtype == dtype
    (gradient,) = torch.autograd.grad(loss, a)
    assert gradient.dtype == dtype
    exact = functional.cross_entropy(a.detach().double(), y).item()
    assert loss.item() == pytest.approx(exact, rel=1e-2)
    with pytest.raises(ValueError, match="batch_size"), WideLosses():
        functional.cross_entropy(a, y[:2])


def test_a_cold_probe_begins_at_the_gradient_with_signs_turned():
    shapes = {"a": (1, 2), "bias of a": (1,), "b": (2, 1), "c": (1, 1)}
    params = [torch.ones(shape, requires_grad=True) for shape in shapes.values()]

    def start(factor: float) -> list[float] | None:
        hessian = HessianProduct(lambda: factor * sum((p**2).sum() for p in params), params)
        found = hessian.alternating()
        return None if found is None else found.tolist()

    expected = [6**-0.5 * sign for sign in (1, 1, 1, -1, -1, 1)]
    assert start(1.0) == pytest.approx(expected) == start(1e-30)
    assert start(0.0) is None


def test_the_lower_end_of_a_product_of_layers():
    """½(ab - 1)² at a = b = 0: the gradient vanishes, the ends are ±1; near it, it is blind."""
    a, b = (torch.full((1,), 0.01, dtype=torch.float64, requires_grad=True) for _ in range(2))
    found = hessian_extremes(lambda: 0.5 * ((a * b - 1) ** 2).sum(), [a, b], 2)
    assert found.lambda_max == pytest.approx(1, abs=1e-3)
    assert found.lambda_min == pytest.approx(-1, abs=1e-3) and found.resolved_min
