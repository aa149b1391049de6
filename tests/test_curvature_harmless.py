"""A probe leaves nothing behind: training goes on bit for bit as without it."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from grokwatch.geometry.curvature import hessian_extremes

torch.set_num_threads(1)

TOKENS, WIDTH = 11, 8


class Everything(nn.Module):
    """Dropout, BatchNorm, fused attention, tied, frozen and unused parameters in one network."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.unused = nn.Linear(3, 2)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(WIDTH, TOKENS, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, tokens: Tensor) -> Tensor:
        self.calls = self.calls + 1  # a buffer that is replaced, not written to
        # One head, in four dimensions: the fused kernel takes nothing less.
        q, k, v = self.qkv(self.embed(tokens)).unsqueeze(1).chunk(3, dim=-1)
        x = scaled_dot_product_attention(q, k, v, dropout_p=0.1 if self.training else 0.0)
        x = self.norm(self.frozen(x.mean((1, 2))))
        x = x + self.dropout(torch.tanh(self.hidden(x)))
        return self.head(x)


def fingerprint(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[object]:
    """Everything a probe could have changed; tensors as bytes."""
    named = [*model.named_parameters(), *model.named_buffers()]
    tensors = [t for _, t in named] + [p.grad for p in model.parameters() if p.grad is not None]
    tensors += [v for state in optimizer.state.values() for v in state.values()]
    return [
        *(t.detach().numpy().tobytes() for t in tensors),
        [p.grad is None for p in model.parameters()],
        [t.requires_grad for _, t in named],
        [m.training for m in model.modules()],
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        np.random.get_state()[1].tobytes(),  # type: ignore[index]
        torch.is_grad_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
    ]


def train(
    probing: Callable[[nn.Module, Callable[[], Tensor]], object] | None,
    *,
    steps: int = 6,
    amp: bool = False,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> list[list[object]]:
    """Train; call the probe half-way through each step, twice; fingerprints of all steps."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = Everything()
    running = wrap(model)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    fixed = torch.randint(TOKENS, (16, 4)), torch.randint(TOKENS, (16,))
    prints = []
    for _ in range(steps):
        tokens, targets = torch.randint(TOKENS, (32, 4)), torch.randint(TOKENS, (32,))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
            loss = cross_entropy(running(tokens), targets)
            if probing:
                probing(model, lambda: cross_entropy(running(fixed[0]), fixed[1]))
        optimizer.zero_grad()
        loss.backward()
        if probing:
            probing(model, lambda: cross_entropy(running(fixed[0]), fixed[1]))
        optimizer.step()
        prints.append(fingerprint(model, optimizer))
    return prints


def lanczos(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    found = hessian_extremes(loss, model, n_hvp=4)
    assert found.mode == "train" and found.lambda_max > 0


def in_eval_mode(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    assert hessian_extremes(loss, model, n_hvp=4, model=model).mode == "eval"


def without_grad(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    with torch.no_grad():
        assert hessian_extremes(loss, model, n_hvp=4, model=model).lambda_max > 0


def other_methods(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    assert hessian_extremes(loss, model, n_hvp=4, method="power").lambda_max != 0
    hessian_extremes(loss, model, n_hvp=4, method="pyhessian", model=model)


def failing(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    def fails() -> Tensor:
        loss()
        torch.rand(3)
        raise ZeroDivisionError("a loss that fails half-way")

    with pytest.raises(ZeroDivisionError):
        hessian_extremes(fails, model, model=model)


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("probing", [lanczos, in_eval_mode, without_grad, other_methods, failing])
def test_training_is_bit_identical(probing, amp):
    assert train(probing, amp=amp) == train(None, amp=amp)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_training_of_a_compiled_model_is_bit_identical_and_not_compiled_again(backend):
    from torch._dynamo.utils import counters

    def compiled(model: nn.Module) -> nn.Module:
        torch._dynamo.reset()
        return torch.compile(model, backend=backend)  # type: ignore[return-value]

    counters.clear()
    plain = train(None, wrap=compiled)
    graphs = counters["stats"]["unique_graphs"]
    counters.clear()
    assert train(lanczos, wrap=compiled) == plain
    assert counters["stats"]["unique_graphs"] == graphs > 0


def test_autocast_is_off_inside_and_the_curvature_is_that_of_full_precision():
    seen = []

    def run(amp: bool) -> float:
        torch.manual_seed(1)
        model = Everything()
        tokens, targets = torch.randint(TOKENS, (16, 4)), torch.randint(TOKENS, (16,))

        def loss() -> Tensor:
            logits = model(tokens)
            seen.append(logits.dtype)
            return cross_entropy(logits, targets)

        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
            return hessian_extremes(loss, model, model=model).lambda_max

    assert run(True) == run(False)
    assert set(seen) == {torch.float32}


def test_the_mode_is_set_inside_and_reported():
    model = Everything()
    model.norm.eval()  # a network with its statistics fixed

    def loss() -> Tensor:
        return cross_entropy(model(torch.ones(8, 4, dtype=torch.long)), torch.arange(8))

    def mode(**settings) -> str:
        return hessian_extremes(loss, model, n_hvp=2, **settings).mode

    assert mode() == mode(model=model, mode="keep") == "mixed"
    assert mode(model=model) == "eval" and mode(model=model, mode="train") == "train"
    assert model.training and not model.norm.training
    x = torch.ones(3, requires_grad=True)
    assert hessian_extremes(lambda: (x**2).sum(), [x]).mode == ""


def test_inference_mode_is_refused():
    x = torch.ones(3, requires_grad=True)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        hessian_extremes(lambda: (x**2).sum(), [x])
    with torch.inference_mode():
        frozen = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="inference_mode"):
        hessian_extremes(lambda: frozen(torch.ones(2)).sum(), frozen)


def test_hooks_meant_for_training_gradients_are_neither_called_nor_obeyed():
    model, calls = Everything().eval(), []
    tokens, targets = torch.randint(TOKENS, (16, 4)), torch.randint(TOKENS, (16,))

    def loss() -> Tensor:
        return cross_entropy(model(tokens), targets)

    free = hessian_extremes(loss, model).lambda_max
    handles = [model.qkv.weight.register_hook(lambda g: calls.append("tensor") or 0 * g)]
    handles += [model.hidden.bias.register_post_accumulate_grad_hook(lambda p: calls.append("p"))]
    handles += [model.hidden.register_full_backward_hook(lambda *_: calls.append("module"))]
    assert hessian_extremes(loss, model, model=model).lambda_max == free
    assert calls == []
    loss().backward()
    assert sorted(calls) == ["module", "p", "tensor"]
    assert not model.qkv.weight.grad.any()
    for handle in handles:
        handle.remove()
    calls.clear()
    loss().backward()
    assert calls == []


def test_a_distributed_model_is_refused_before_it_waits(tmp_path):
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
        with pytest.raises(RuntimeError, match=r"call its \.module instead"):
            hessian_extremes(lambda: model(torch.ones(1, 2)).square().sum(), model)
        inner = model.module
        assert hessian_extremes(lambda: inner(torch.ones(1, 2)).square().sum(), model).resolved_max
    finally:
        torch.distributed.destroy_process_group()


def test_memory_is_flat_over_30_probes():
    model = Everything()
    tokens, targets = torch.randint(TOKENS, (16, 4)), torch.randint(TOKENS, (16,))
    state, alive = None, []
    gc.collect()
    gc.disable()  # a graph in a reference cycle would stay
    try:
        for k in range(30):
            found = hessian_extremes(
                lambda: cross_entropy(model(tokens), targets), model, state=state, model=model
            )
            state = found.state
            if k % 10 == 9:
                alive.append(sum(issubclass(type(o), Tensor) for o in gc.get_objects()))
    finally:
        gc.enable()
    assert alive[0] == alive[1] == alive[2]
