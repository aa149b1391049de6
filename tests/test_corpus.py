"""The corpus generator against plain torch, its labels, its encoding and its reproducibility."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("numba")

from benchmarks.corpus import loop  # noqa: E402
from benchmarks.corpus.runs import PARITY, Trainer  # noqa: E402
from benchmarks.corpus.transformer_layout import transformer_sizes  # noqa: E402

BASE = {
    "architecture": "mlp", "operator": "+", "p": 7, "k": 0, "r": 0.6, "width": 12,
    "activation": "relu", "loss": "cross_entropy", "optimiser": "adamw", "lr": 3e-3,
    "weight_decay": 0.3, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8, "warmup": 3,
    "init_scale": 1.0, "batch_size": 0, "seed": 3, "dtype": "float64", "horizon": 100,
    "to_horizon": True, "d_model": 8, "heads": 2, "layer_norm": 1,
}  # fmt: skip


def activation(name, x):
    if name == "quadratic":
        return x * x
    return torch.relu(x) if name == "relu" else torch.nn.functional.gelu(x, approximate="tanh")


def logits_mlp(trainer, theta, a, b, x):
    _, rows, width, classes = trainer.shape[:4]
    first, bias, last, last_bias = torch.split(
        theta, [rows * width, width, width * classes, classes]
    )
    first = first.reshape(rows, width)
    pre = (x @ first if x.numel() else first[a] + first[b]) + bias
    return activation(trainer.config["activation"], pre) @ last.reshape(width, -1) + last_bias


def logits_transformer(trainer, theta, a, b, x):
    rows, width, d, heads = (int(trainer.shape[i]) for i in (1, 2, 7, 8))
    p = rows // 2
    tokens, places, q, k, v, mix, up, up_bias, down, down_bias, head = torch.split(
        theta, transformer_sizes(trainer.shape)
    )
    tokens = tokens.reshape(p + 1, d)
    sequence = torch.stack([a, b - p, torch.full_like(a, p)], 1)
    stream = tokens[sequence] + places.reshape(3, d)

    def norm(z):
        return torch.nn.functional.layer_norm(z, (d,)) if trainer.config["layer_norm"] else z

    def split_heads(z, w):
        return (norm(z) @ w.reshape(d, d)).unflatten(-1, (heads, -1)).transpose(1, 2)

    attended = torch.nn.functional.scaled_dot_product_attention(
        split_heads(stream, q), split_heads(stream, k), split_heads(stream, v)
    )[:, :, -1]
    middle = stream[:, -1] + attended.flatten(1) @ mix.reshape(d, d)
    hidden = activation(trainer.config["activation"], norm(middle) @ up.reshape(d, width) + up_bias)
    return norm(middle + hidden @ down.reshape(width, d) + down_bias) @ head.reshape(d, -1)


def optimiser(config, parameter):
    common = {"lr": config["lr"], "weight_decay": config["weight_decay"]}
    if config["optimiser"] == "sgd":
        return torch.optim.SGD([parameter], momentum=config["beta1"], **common)
    kind = torch.optim.AdamW if config["optimiser"] == "adamw" else torch.optim.Adam
    return kind([parameter], betas=(config["beta1"], config["beta2"]), eps=config["eps"], **common)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"activation": "gelu", "optimiser": "adam"},
        {"activation": "quadratic", "loss": "mse", "optimiser": "sgd", "dtype": "float32"},
        {"operator": PARITY, "p": 9, "k": 2, "r": 0.05, "dtype": "float32"},
        {"architecture": "transformer"},
        {"architecture": "transformer", "layer_norm": 0, "activation": "gelu", "dtype": "float32"},
    ],
)  # fmt: skip
def test_training_agrees_with_torch(change):
    config = BASE | change
    trainer = Trainer(config)
    theta = torch.tensor(trainer.state[0], requires_grad=True)
    a, b, x, y = (torch.tensor(part) for part in trainer.train)
    steps = 12
    trainer.advance(steps)
    stepper = optimiser(config, theta)
    net = logits_mlp if config["architecture"] == "mlp" else logits_transformer
    losses = []
    for step in range(steps):
        stepper.param_groups[0]["lr"] = config["lr"] * min(1, (step + 1) / (config["warmup"] + 1))
        logits = net(trainer, theta, a, b, x)
        target = torch.nn.functional.one_hot(y, logits.shape[1]).to(logits.dtype)
        if config["loss"] == "mse":
            loss = torch.nn.functional.mse_loss(logits, target)
        else:
            loss = torch.nn.functional.cross_entropy(logits, y)
        losses.append(loss.item())
        stepper.zero_grad()
        loss.backward()
        stepper.step()
    tolerance = 1e-7 if config["dtype"] == "float64" else 2e-4
    np.testing.assert_allclose(trainer.early[:steps], losses, rtol=max(tolerance, 1e-6))
    np.testing.assert_allclose(trainer.state[0], theta.detach(), rtol=tolerance, atol=tolerance)
    last = trainer.dense[0][steps - 1]
    assert last[loop.STEP] == steps - 1
    assert last[loop.GRAD] == pytest.approx(float(theta.grad.norm()), rel=10 * tolerance)
    assert last[loop.CORRECT] == int((logits.argmax(1) == y).sum())
