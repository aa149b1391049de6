"""examples/miller_parity.py: training side by side, its figures of one run, the small preset."""

from __future__ import annotations

import math
from pathlib import Path

import _experiment
import miller_parity
import numpy as np
import parity_train
import pytest
import torch
from scipy.special import erf
from torch import nn

from tests.test_papers import results_of


def twin_of(nets: parity_train.Nets, run: int) -> nn.Sequential:
    """The paper's network, written with torch's own layers, with the weights of one run."""
    weights, outer = nets.inner[run], nets.outer[run]
    n_bits, width = weights.shape[0] - 1, weights.shape[1]
    model = nn.Sequential(
        nn.Linear(n_bits, width), nn.ReLU(), nn.Linear(width, 2, bias=False)
    ).double()
    model[0].weight.data, model[0].bias.data = weights[:-1].mT.double(), weights[-1].double()
    model[2].weight.data = outer.double()
    return model


def test_steps_are_those_of_torchs_own_layers_and_sgd() -> None:
    nets = parity_train.Nets(6, seeds=(0, 1, 2), width=20)
    twins = [twin_of(nets, run) for run in range(3)]
    optimizers = [
        torch.optim.SGD(twin.parameters(), lr=parity_train.RATE, weight_decay=parity_train.DECAY)
        for twin in twins
    ]
    generator = torch.Generator().manual_seed(0)
    for n in (32, 32, 14):
        x = torch.randint(2, (3, n, 6), generator=generator).float()
        labels = torch.randint(2, (3, n), generator=generator)
        targets = nn.functional.one_hot(labels, 2).float()
        logits = nets.step(nets.with_bias(x), targets)
        for run, (twin, optimizer) in enumerate(zip(twins, optimizers, strict=True)):
            expected = twin(x[run].double())
            torch.testing.assert_close(logits[run].double(), expected, rtol=1e-5, atol=1e-6)
            optimizer.zero_grad()
            nn.functional.cross_entropy(expected, labels[run]).backward()
            optimizer.step()
    for run, twin in enumerate(twins):
        after = twin_of(nets, run)
        for mine, theirs in zip(after.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_initial_weights_fill_the_ranges_of_xavier_and_of_linear_layers() -> None:
    nets = parity_train.Nets(30, seeds=(0, 7))
    assert not torch.equal(nets.inner[0], nets.inner[1])
    for part, bound in (
        (nets.inner[:, :-1], (6 / 1030) ** 0.5),
        (nets.inner[:, -1], 30**-0.5),
        (nets.outer, (6 / 1002) ** 0.5),
    ):
        assert 0.98 * bound < float(part.abs().max()) <= bound
        assert abs(float(part.mean())) < 0.1 * bound


def test_runs_side_by_side_are_those_one_at_a_time() -> None:
    together = parity_train.train(25, seeds=(0, 1, 2), epochs=4)
    for run, seed in enumerate((0, 1, 2)):
        alone = parity_train.train(25, seeds=(seed,), epochs=4)
        for name, curves in together.items():
            np.testing.assert_allclose(curves[run], alone[name][0], rtol=0, atol=2e-3)


def test_weights_of_examples_give_the_mean_over_mini_batches() -> None:
    right = np.random.default_rng(0).integers(2, size=250)
    batches = [right[start : start + 32].mean() for start in range(0, 250, 32)]
    weights = parity_train.batch_weights(250).numpy()
    assert float(weights @ right) == pytest.approx(float(np.mean(batches)))


def test_kept_curves_are_read_again_only_if_they_are_of_the_same_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "curves.npz"
    trained = []

    def train(n_bits: int, seeds: tuple[int, ...], epochs: int, advance: object) -> object:
        trained.append((n_bits, tuple(seeds), epochs))
        return real(n_bits, seeds, epochs)

    real = parity_train.train
    monkeypatch.setattr(parity_train, "train", train)

    def ask(n_bits: int, seeds: tuple[int, ...], epochs: int) -> dict[str, np.ndarray]:
        return parity_train.train_or_load(path, n_bits, seeds, epochs, lambda: None)

    first = ask(5, (0, 1), 2)
    again = ask(5, (0, 1), 2)
    assert trained == [(5, (0, 1), 2)]
    for name, curve in first.items():
        np.testing.assert_array_equal(curve, again[name])
    for other in ((6, (0, 1), 2), (6, (0, 2), 2), (6, (0, 2), 3)):
        ask(*other)
        assert trained[-1] == other
    path.write_bytes(path.read_bytes()[:100])  # killed while writing
    ask(6, (0, 2), 3)
    assert len(trained) == 5
    ask(6, (0, 2), 3)
    assert len(trained) == 5


def curves_of(val_top: float) -> dict[str, np.ndarray]:
    """Accuracies that rise at epochs 100 and 400, the validation to ``val_top`` only."""
    epochs = np.arange(1, 1001)
    train = 0.75 + 0.25 * erf(0.02 * (epochs - 100))
    val = 0.5 + (val_top - 0.5) * (0.5 + 0.5 * erf(0.005 * (epochs - 400)))
    return {
        "train_accuracy": train,
        "val_accuracy": val,
        "train_loss": 1.01 - train,
        "val_loss": 1.01 - val,
    }


def test_gap_and_sharpness_of_known_curves() -> None:
    found = miller_parity.measure(curves_of(1.0))
    assert found["counts"]
    assert found["m"] == pytest.approx(3.0, rel=1e-6)
    assert found["relative"] == pytest.approx(0.25, rel=1e-6)
    assert found["absolute"] == pytest.approx(0.5 * 0.005 / math.sqrt(math.pi), rel=1e-6)


def test_a_run_that_does_not_get_to_know_the_rule_does_not_count() -> None:
    found = miller_parity.measure(curves_of(0.9))
    assert not found["counts"] and "m" not in found


def test_bootstrap_interval_is_about_that_of_normal_theory() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(200)
    y = 3 * x + rng.standard_normal(200)
    low, high = miller_parity.bootstrap(x, y, seed=0)
    line = _experiment.straight_line(x, y)
    assert low == pytest.approx(line["low"], abs=0.03)
    assert high == pytest.approx(line["high"], abs=0.03)


def test_what_grokwatch_said_is_counted_over_runs() -> None:
    good, bad = (
        {"grokwatch": miller_parity.watch(curves_of(top), epochs=1000)} for top in (1.0, 0.8)
    )
    total = miller_parity.in_total([good, bad, good])
    assert total["runs"] == 3 and total["generalised"] == 2
    assert good["grokwatch"]["t2"] < good["grokwatch"]["t4"]
    assert total["killed a run that generalised"] == 0


@pytest.mark.slow
def test_miller_parity(tmp_path: Path) -> None:
    results = results_of("miller_parity", tmp_path)
    assert results["counted"] >= 9  # of 10; so few runs make wide intervals
    for name, (slope, _) in miller_parity.PAPER.items():
        line = results["lines"][name]
        assert line["slope"] == pytest.approx(slope, abs=0.2)
        assert line["low"] < line["slope"] < line["high"] < 0  # sharpness falls as delay grows
    runs = results["runs"]
    few, many = ([one["m"] for one in runs if one["bits"] == bits] for bits in (25, 41))
    assert max(few) < min(many)  # spurious bits delay generalisation
    assert 0.5 < min(few) and max(many) < 14  # the paper's m lie between 0.57 and 12.2
    assert results["smallest R²"] > 0.9
