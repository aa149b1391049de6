"""The corpus generator against plain torch, its labels, its encoding and its reproducibility."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.corpus import loop
from benchmarks.corpus.encoding import LOGARITHMIC, decode, encode, to_arrays, write
from benchmarks.corpus.labels import outcome
from benchmarks.corpus.load import SHARDS, load
from benchmarks.corpus.plan import group_key, random_unit, split_of, tagged
from benchmarks.corpus.runs import PARITY, Trainer, execute
from benchmarks.corpus.transformer_layout import transformer_sizes

BASE = {
    "architecture": "mlp", "operator": "+", "p": 7, "k": 0, "r": 0.6, "width": 12,
    "activation": "relu", "loss": "cross_entropy", "optimiser": "adamw", "lr": 3e-3,
    "weight_decay": 0.3, "beta1": 0.9, "beta2": 0.98, "eps": 1e-8, "warmup": 3,
    "init_scale": 1.0, "batch_size": 0, "seed": 3, "dtype": "float64", "horizon": 100,
    "to_horizon": True, "d_model": 8, "heads": 2, "layer_norm": 1,
    "embedding_std": 1.0,
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


def logits_embedding_mlp(trainer, theta, a, b, x):
    rows, width, classes, d = (int(trainer.shape[i]) for i in (1, 2, 3, 7))
    table, matrix, bias, last = torch.split(
        theta, [rows // 2 * d, 2 * d * width, width, width * classes]
    )
    pairs = torch.stack([a, b - rows // 2], 1)
    combined = torch.nn.functional.embedding(pairs, table.reshape(-1, d)).flatten(1)
    pre = combined @ matrix.reshape(2 * d, width) + bias
    return activation(trainer.config["activation"], pre) @ last.reshape(width, classes)


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


NETS = {
    "mlp": logits_mlp,
    "transformer": logits_transformer,
    "embedding_mlp": logits_embedding_mlp,
}


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
        {"architecture": "embedding_mlp"},
        {"architecture": "embedding_mlp", "operator": "/", "activation": "gelu"},
        {"architecture": "embedding_mlp", "activation": "quadratic", "optimiser": "adam"},
        {"architecture": "embedding_mlp", "operator": "dihedral", "p": 4, "loss": "mse",
         "optimiser": "sgd", "dtype": "float32"},
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
    net = NETS[config["architecture"]]
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


@pytest.mark.parametrize(("scale", "deviation"), [(1.0, 1.0), (2.5, 8**-0.5)])
def test_nets_with_an_embedding_start_as_in_torch(scale, deviation):
    config = BASE | {
        "architecture": "embedding_mlp", "p": 53, "width": 128,
        "init_scale": scale, "embedding_std": deviation,
    }  # fmt: skip
    trainer = Trainer(config)
    table, hidden, last = np.split(trainer.state[0], [53 * 8, 53 * 8 + 17 * 128])
    torch.manual_seed(0)
    layers = torch.nn.Linear(16, 128), torch.nn.Linear(128, 53, bias=False)
    for ours, layer in zip((hidden, last), layers, strict=True):
        theirs = torch.cat([part.detach().flatten() for part in layer.parameters()]).numpy()
        assert len(ours) == len(theirs)
        assert np.abs(ours).max() == pytest.approx(scale * np.abs(theirs).max(), rel=0.01)
        assert ours.std() == pytest.approx(scale * theirs.std(), rel=0.05)
        assert abs(ours.mean()) < 0.1 * scale * theirs.std()
    # Five standard errors of a standard deviation from 424 normal numbers.
    assert table.std() == pytest.approx(deviation, rel=5 / np.sqrt(2 * len(table)))
    assert np.abs(table).max() > 2 * deviation


def recorded(change):
    return execute(BASE | {"dtype": "float32", "horizon": 700} | change)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"batch_size": 8},
        {"architecture": "transformer"},
        {"architecture": "embedding_mlp", "batch_size": 8},
    ],
)
def test_a_run_repeats_bit_for_bit_and_survives_a_shard(change, tmp_path):
    records = [recorded(change | {"seed": seed}) for seed in (1, 2)]
    again = [recorded(change | {"seed": seed}) for seed in (1, 2)]
    for place, record in enumerate(records + again):
        record["meta"] = tagged(record["meta"], "mlp", 0, place % 2)
    first, second = (to_arrays(part, {"kind": "mlp"}) for part in (records, again))
    assert all(np.array_equal(first[name], second[name]) for name in first)

    write(tmp_path / "mlp-000.npz", first)
    runs = load(tmp_path)
    assert [run.meta for run in runs] == [record["meta"] for record in records]
    for run, record in zip(runs, records, strict=True):
        steps, losses = run.columns["train_loss"]
        np.testing.assert_array_equal(losses[:400], record["early"])
        assert np.all(np.diff(steps) > 0)
        rows, values = run.columns["val_loss"]
        np.testing.assert_array_equal(rows, record["rows"][:, loop.STEP])
        np.testing.assert_allclose(values, record["rows"][:, loop.VAL_LOSS], rtol=5e-4)
        correct = run.columns["val_accuracy"][1] * run.meta["n_val"]
        np.testing.assert_allclose(correct, record["rows"][:, loop.VAL_CORRECT], atol=1e-9)
        margin = run.columns["val_margin"][1]
        np.testing.assert_allclose(margin, record["rows"][:, loop.VAL_MARGIN], rtol=6e-4, atol=1e-6)


def test_more_steps_leave_the_beginning_as_it_was():
    short, long = recorded({}), recorded({"horizon": 1400})
    np.testing.assert_array_equal(short["early"], long["early"])
    common = short["rows"][:, loop.STEP] < 650
    shared = long["rows"][: len(short["rows"])][common]
    np.testing.assert_array_equal(short["rows"][common], shared)


def test_what_is_not_finite_is_stored_as_nan():
    values = np.array([np.nan, np.inf, 0.0, 1e-12, 1e6])
    codes = decode(encode(values, LOGARITHMIC), LOGARITHMIC)
    np.testing.assert_allclose(codes, [np.nan, np.nan, 0, 1e-12, 1e6], rtol=5e-4)


def test_a_touch_is_not_yet_generalisation():
    steps = np.arange(0, 2000, 10.0)
    accuracy = np.where(steps >= 800, 0.97, 0.1)
    accuracy[30] = 1.0
    losses = np.ones_like(steps)
    result = outcome(steps, np.where(steps >= 100, 1.0, 0.0), accuracy, losses)
    assert (result["t2"], result["t4"], result["late"]) == (100, 800, True)
    assert not result["censored"] and not result["ungrokked"] and not result["diverged"]

    accuracy[-10:] = 0.2
    assert outcome(steps, accuracy, accuracy, losses)["ungrokked_at"] == 1900
    assert outcome(steps, accuracy, accuracy * 0.5, losses)["censored"]
    assert outcome(steps, accuracy, accuracy * 0.5, losses * np.inf)["diverged"]


def test_a_touch_at_the_very_end_is_not_confirmed():
    steps = np.arange(0, 1000, 10.0)
    accuracy = np.where(steps >= 960, 1.0, 0.0)
    assert outcome(steps, accuracy, accuracy, np.ones_like(steps))["t4"] is None


def test_the_plan_is_a_function_of_kind_and_unit():
    assert random_unit("mlp", 9) == random_unit("mlp", 9)
    assert random_unit("mlp", 9) != random_unit("mlp", 10)
    assert random_unit("deep", 9) == random_unit("deep", 9)
    assert {config["architecture"] for config in random_unit("deep", 9)} == {"embedding_mlp"}
    assert split_of(group_key("+", 23, 0.5)) == split_of(group_key("+", 23, 0.51))
    shares = [split_of(f"group {i}") for i in range(2000)]
    assert 0.56 < shares.count("fit") / 2000 < 0.64
    assert 0.17 < shares.count("test") / 2000 < 0.23


def test_the_shipped_shards_are_complete_and_not_split_within_a_group():
    assert any(SHARDS.glob("*.npz"))
    splits: dict[str, set[str]] = {}
    for run in load():
        splits.setdefault(run.meta["group"], set()).add(run.meta["split"])
        assert run.meta["steps_run"] > 0
        for steps, values in run.columns.values():
            assert len(steps) == len(values)
            assert np.all(np.diff(steps) > 0)
    assert all(len(found) == 1 for found in splits.values())
    assert all(path.stat().st_size < 3e6 for path in SHARDS.glob("*.npz"))
