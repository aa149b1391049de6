"""examples/power_arn.py: the network of Power et al. 2022, its trainer, the script."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import power_arn
import pytest
import torch
from groups import symmetric_group
from power_model import Decoder
from power_tasks import task
from power_train import Setting, batches, evaluate, start, train
from torch import Tensor
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from benchmarks.transformer_speed import _answer
from tests.test_papers import results_of

SETTING = Setting(0.5, 1, 16, 1e-3, 1.0, 60, 20, 1.5, 0)


def by_the_book(model: Decoder, rows: Tensor) -> Tensor:
    """The same weights in a plain causal decoder: every position of every sequence, (n, L, T)."""
    x = model.embedding(rows) + model.get_buffer("position")[: rows.shape[1]]
    for block in model.blocks:
        width = x.shape[2]
        parts = (block.query(x), block.key_value(x)[..., :width], block.key_value(x)[..., width:])
        q, k, v = (part.view(*x.shape[:2], block.n_heads, -1).transpose(1, 2) for part in parts)
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = block.attention_norm(x + block.out(mixed))
        x = block.feed_forward_norm(x + block.feed_forward(x))
    logits: Tensor = model.head(x)
    return logits


# -- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/", "sort"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_decoder_that_shares_beginnings_is_the_plain_decoder(name: str, layers: int) -> None:
    torch.manual_seed(0)
    what = task(name, 11)
    model = Decoder(what.n_tokens, layers, width=16).double()
    batch = what.equations.take(torch.randint(len(what.equations.which), (40,)))
    expected = by_the_book(model, batch.whole().rest)[:, -batch.answers.shape[1] :]
    torch.testing.assert_close(model(batch), expected)
    torch.testing.assert_close(model(batch.whole()), expected)


def test_gradients_are_those_of_the_plain_decoder() -> None:
    torch.manual_seed(0)
    what = task("s3")
    model = Decoder(what.n_tokens, 2, width=16).double()
    batch = what.equations

    def gradient(logits: Tensor) -> tuple[Tensor, ...]:
        loss = cross_entropy(logits, batch.answers[:, 0])
        return torch.autograd.grad(loss, list(model.parameters()))

    plain = gradient(by_the_book(model, batch.whole().rest)[:, -1])
    for shared, expected in zip(gradient(model(batch)[:, 0]), plain, strict=True):
        torch.testing.assert_close(shared, expected)


def test_the_benchmark_compares_two_ways_to_compute_the_same() -> None:
    torch.manual_seed(0)
    what = task("/", 11)
    model = Decoder(what.n_tokens, 2, width=16)
    torch.testing.assert_close(
        _answer(model, what.equations.whole().rest), model(what.equations)[:, 0]
    )


def test_the_size_is_that_of_the_paper() -> None:
    tokens = 2 + 1 + 97 + 120 + 17  # <bos>, <eos>; =; numbers; permutations; operators
    n = sum(w.numel() for w in Decoder(tokens).parameters())
    assert n == pytest.approx(455_000, rel=0.002)


def test_width_must_suit_the_heads() -> None:
    with pytest.raises(ValueError, match="multiple of n_heads = 4 but got 30"):
        Decoder(10, width=30)


# -- the trainer ----------------------------------------------------------------------------------


def test_batches_pass_over_the_data_without_repeating() -> None:
    torch.manual_seed(0)
    stream = batches(1300, torch.device("cpu"))
    first = torch.cat([next(stream), next(stream)])
    assert len(first) == 1024 and len(first.unique()) == 1024
    assert len(next(batches(101, torch.device("cpu")))) == 51


def test_evaluation_is_that_of_one_batch() -> None:
    what = task("copy", 31)
    model = Decoder(what.n_tokens, 1, width=16)
    logits = model(what.equations)
    loss, accuracy = evaluate(model, what.equations)
    answers = what.equations.answers
    torch.testing.assert_close(loss, cross_entropy(logits.flatten(0, 1), answers.flatten()))
    whole = (logits.argmax(2) == answers).all(1).float().mean()
    assert float(accuracy) == pytest.approx(float(whole))


@pytest.mark.parametrize("name", ["+", "sort"])
def test_training_takes_the_steps_of_adamw_with_warm_up(name: str) -> None:
    what = task(name, 7)
    found = train(what, SETTING._replace(budget=25), lambda n: None)
    model, _, train_set, val_set = start(what, SETTING)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=1.0)
    stream = batches(len(train_set.which), torch.device("cpu"))
    for step in range(25):
        batch = train_set.take(next(stream))
        logits = by_the_book(model, batch.whole().rest)[:, -batch.answers.shape[1] :]
        loss = cross_entropy(logits.flatten(0, 1), batch.answers.flatten())
        assert found["curves"]["loss"][step] == pytest.approx(loss.item(), rel=1e-3), step
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 10)
        optimizer.step()
    assert found["curves"]["val_step"][-1] == 24
    last = float(evaluate(model, val_set)[0])
    assert found["curves"]["val_loss"][-1] == pytest.approx(last, rel=1e-3)


def test_same_seed_same_run_and_every_step_is_reported() -> None:
    taken: list[int] = []
    one = train(task("+", 7), SETTING, taken.append)
    two = train(task("+", 7), SETTING, lambda n: None)
    assert sum(taken) == 60 == len(one["curves"]["accuracy"])
    for name, values in one["curves"].items():
        np.testing.assert_array_equal(values, two["curves"][name])
    assert one["grokwatch"] == two["grokwatch"]


# -- the script -----------------------------------------------------------------------------------


def test_an_interrupted_experiment_goes_on(tmp_path: Path) -> None:
    table, out = tmp_path / "s3.csv", tmp_path / "out"
    np.savetxt(table, symmetric_group(3), fmt="%d", delimiter=",")
    options = ["--cayley", str(table), "--out", str(out), "--budget", "30", "--fractions"]
    assert power_arn.main([*options, ".5"]) == 0
    kept = out / "s3-0.5-decay1.json"
    before = kept.stat().st_mtime_ns
    assert power_arn.main([*options, ".5", ".7"]) == 0
    assert kept.stat().st_mtime_ns == before  # not trained again
    results = json.loads((out / "results.json").read_text())
    assert [one["fraction"] for one in results["runs"]["s3, decay 1"]] == [0.5, 0.7]
    assert (out / "power_losses.png").exists() and (out / "power_accuracies.png").exists()
    assert power_arn.main([*options, ".5", "--decays", "1", "--seed", "1"]) == 0
    assert kept.stat().st_mtime_ns != before  # another seed is another run
    before = kept.stat().st_mtime_ns
    np.savetxt(table, symmetric_group(3).T, fmt="%d", delimiter=",")
    assert power_arn.main([*options, ".5", "--decays", "1", "--seed", "1"]) == 0
    assert kept.stat().st_mtime_ns != before  # and so is another table


def test_a_table_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.csv").write_text("0,1\n")
    with pytest.raises(SystemExit, match="2"):
        power_arn.main(["--cayley", str(tmp_path / "bad.csv"), "--out", str(tmp_path)])
    assert "square table but its shape is (1, 2)" in capsys.readouterr().err


@pytest.mark.slow
def test_power_arn(tmp_path: Path) -> None:
    """Whether a run groks is chaotic, so the bounds leave room for another machine's rounding."""
    results = results_of("power_arn", tmp_path)
    verdict = {claim["claim"]: claim["verdict"] for claim in results["claims"]}
    assert verdict["late generalisation"] == "agrees"
    assert verdict["symmetric operators start from a high base"] == "agrees"
    assert "disagrees" not in (
        verdict["no grokking before the first loss spike, in his setting"],
        verdict["what generalises does so with more data too"],
    )
    for name in ("/, decay 1", "+, decay 1"):
        most = results["runs"][name][0]  # of the table
        assert most["grokwatch"]["t2"] < 1000 < most["grokwatch"]["t4"] + 500
        assert most["t4 over t2"] > 2 and most["slingshots"] > 0
    quick, late = results["runs"]["/, decay 0.01"]
    assert quick["t4 over t2"] < 2 and late["grokwatch"]["t2"] < 500
    assert late["slingshots"] >= 2 and late["largest slingshot, decades"] > 5  # Arn: 10^6
    assert late["grokwatch"]["t4"] is None or late["grokwatch"]["t4"] > late["first slingshot"]
