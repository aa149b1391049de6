"""The phase diagram of Notsawo et al. 2023: its networks, its scores, its small preset."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import phase_diagram
import phase_run
import phase_scores
import pytest
import torch
from models import Transformer
from phase_net import BETAS, AdamW, Net, symmetric_split
from phase_row import answers
from phase_run import Cell
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from grokwatch.records import read_run
from grokwatch.replay import replay

ROOT = Path(__file__).parent.parent


def model_of(weights: torch.Tensor, p: int, width: int) -> Transformer:
    """The module that a row of flat weights stands for."""
    model = Transformer(p, p, 1, 4, width)
    torch.nn.utils.vector_to_parameters(weights.clone(), model.parameters())
    return model


def loss_of(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Sum over runs of each run's mean."""
    return F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="sum") / y.shape[-1]


# -- the networks and their optimiser, against plain torch ----------------------------------------


def test_batched_networks_are_the_transformer_and_have_its_gradient() -> None:
    net = Net(11, 16)
    weights = torch.stack([net.start(seed) for seed in (0, 1)]).requires_grad_()
    x, y, _, _ = symmetric_split(11, 0.6, 2)
    logits = net(weights, net.code(x).expand(2, -1, -1))
    (gradient,) = torch.autograd.grad(loss_of(logits, y.expand(2, -1)), weights)
    for i in range(2):
        model = model_of(weights[i].detach(), 11, 16)
        torch.testing.assert_close(logits[i], model(x), atol=1e-5, rtol=1e-4)
        own = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
        flat = torch.cat([one.flatten() for one in own])
        torch.testing.assert_close(gradient[i], flat, atol=1e-6, rtol=1e-3)


def test_shortcut_of_the_papers_network_is_exact() -> None:
    torch.manual_seed(1)
    model = Transformer(13, 13, width=16)
    pairs, y, _, _ = symmetric_split(13, 0.5, 0)
    short, long = answers(model, pairs), model(pairs)
    torch.testing.assert_close(short, long, atol=1e-5, rtol=1e-4)
    parameters = list(model.parameters())
    gradients = [torch.autograd.grad(F.cross_entropy(x, y), parameters) for x in (short, long)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-3)


def test_rows_are_stepped_as_torch_steps_them_though_runs_come_and_go() -> None:
    """Three runs; the first leaves after 20 steps, the third enters after 10."""
    settings = [(1e-3, 1.0, math.inf), (5e-3, 0.0, 0.05), (2e-3, 3.0, math.inf)]
    spans = [(0, 20), (0, 30), (10, 30)]
    rng = np.random.default_rng(0)
    starts = torch.tensor(rng.standard_normal((3, 50)), dtype=torch.float32)
    pulls = torch.tensor(rng.standard_normal((30, 3, 50)), dtype=torch.float32)

    def enter(rows: list[int]) -> AdamW:
        tuning = (
            torch.tensor([settings[i][k] for i in rows], dtype=torch.double) for k in range(3)
        )
        return AdamW(starts[rows].clone(), *tuning)

    batch, present = enter([0, 1]), [0, 1]
    ended: dict[int, torch.Tensor] = {}
    for step in range(30):
        if step == 10:
            batch.join(enter([2]))
            present.append(2)
        if step == 20:
            ended[0] = batch.weights[0]
            batch.keep(torch.tensor([1, 2]))
            present.remove(0)
        batch.step(pulls[step, present])
    ended |= {1: batch.weights[0], 2: batch.weights[1]}
    for i, ((rate, decay, clip), (first, last)) in enumerate(zip(settings, spans, strict=True)):
        own = torch.nn.Parameter(starts[i].clone())
        optimizer = torch.optim.AdamW([own], rate, BETAS, weight_decay=decay)
        for step in range(first, last):
            own.grad = pulls[step, i].clone()
            torch.nn.utils.clip_grad_norm_([own], clip)
            optimizer.param_groups[0]["lr"] = rate * min(1.0, (step - first + 1) / 10)
            optimizer.step()
        torch.testing.assert_close(ended[i], own.detach(), atol=1e-6, rtol=1e-5)


def test_split_holds_each_sum_once() -> None:
    x, y, u, v = symmetric_split(7, 0.5, 3)
    everything = {tuple(pair) for pair in torch.cat([x, u]).tolist()}
    assert everything == {(a, b) for a, b in itertools.product(range(7), repeat=2) if a <= b}
    assert len(x) + len(u) == 28
    assert torch.equal(torch.cat([x, u]).sum(1) % 7, torch.cat([y, v]))


# -- the scores -----------------------------------------------------------------------------------


def test_auc_is_that_of_scikit_learn_and_strata_only_pair_equals() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random(80) < 0.4
    scores = np.round(rng.standard_normal(80) + labels, 1)  # with ties
    assert phase_scores.auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    strata = rng.integers(4, size=80).tolist()
    won = pairs = 0.0
    for i, j in itertools.product(range(80), repeat=2):
        if labels[i] and not labels[j] and strata[i] == strata[j]:
            won += 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
            pairs += 1
    assert phase_scores.auc(scores, labels, strata) == pytest.approx(won / pairs)
    assert phase_scores.auc([1.0, 2.0], [True, True]) is None


def test_table_leaves_out_what_ended_early_and_brackets_its_values() -> None:
    rng = np.random.default_rng(2)
    names = ("activity", "energy", "fast_log_energy", "train_loss", "val_loss", "val_loss_trend")
    runs: list[dict[str, Any]] = []
    for rate, decay, _ in itertools.product((1e-3, 2e-3), (0.0, 1.0, 2.0, 3.0), range(3)):
        figures = {f"early_{name}": float(rng.random()) for name in names}
        t4 = 100 if decay in (1.0, 2.0) else None
        figures["early_activity"] = (1.0 if t4 else 0.0) + rate
        runs.append({"learning_rate": rate, "weight_decay": decay, "t4": t4, **figures})
    runs.append({"early_activity": None, "t4": None, "learning_rate": 9.0, "weight_decay": 0.0})
    found = phase_scores.table(runs, draws=50)
    assert found["energy (activity, 400 steps)"]["overall"] == [1.0, 1.0, 1.0]
    assert found["−(lr·wd)"]["at matched lr"][0] == 0.5  # two below, two above
    assert found["−(lr·wd)"]["at matched lr and wd"] is None  # seeds of a cell agree here
    for by_stratum in found.values():
        middle, low, high = by_stratum["overall"]
        assert low <= middle <= high


def test_grokking_law_recovers_a_law_and_counts_what_never_comes() -> None:
    steps = {
        r: [round(phase_scores.PAPER_LAW.predict(100 * r))] for r in (0.2, 0.25, 0.3, 0.4, 0.8)
    }
    found = phase_scores.grokking_law(steps)
    assert found["here"]["gamma"] == pytest.approx(7.73, rel=0.01)
    assert found["here"]["b"] == pytest.approx(1442.63, rel=0.01) and found["determined"]
    found = phase_scores.grokking_law({0.5: [None, None, 9], 0.6: [5, 7, None], 0.7: [4, 5, 6]})
    assert found["median t4"] == {"0.5": None, "0.6": 7.0, "0.7": 5.0}
    assert found["here"] is None


def test_opinions_are_counted() -> None:
    def run(t4: int | None, right: int | None, stop: int | None) -> dict[str, Any]:
        beside = {
            "first probability": (10, 0.3),
            "right since": right,
            "generalised": t4 is not None,
            "steps ahead of t4": t4 - right if t4 is not None and right is not None else None,
            "t4": t4,
            "recommended": {} if stop is None else {"stop_unpromising": stop},
        }
        return {"t4": t4, "steps": 1000, "grokwatch": beside}

    runs = [run(500, 100, None), run(800, None, 50), run(None, 20, 250), run(None, 30, None)]
    counted = phase_scores.opinions(runs)
    assert counted["right"] == 3 and counted["right of those that generalised"] == 1
    assert counted["median steps ahead of t4"] == 400
    assert counted["stop_unpromising"] == 2
    assert counted["stop_unpromising of runs that generalised"] == 1
    assert counted["steps of the others it would have saved"] == pytest.approx(750 / 2000)


def test_early_figures_are_their_definitions() -> None:
    rng = np.random.default_rng(0)
    losses = (3.0 + rng.standard_normal(500) / 10).tolist()
    steps = list(range(0, 500, 10))
    columns = {
        "train_loss": (list(range(500)), losses),
        "val_loss": (steps, [(step + 1.0) ** -0.5 for step in steps]),
    }
    found = phase_run.early_figures(columns)
    assert found["early_activity"] == pytest.approx(np.var(losses[:400]))
    assert found["early_energy"] == pytest.approx(np.square(losses[:400]).sum())
    assert found["early_val_loss_trend"] == pytest.approx(-0.5 * math.log(2))  # per doubling
    assert found["early_val_loss"] == pytest.approx(401**-0.5)
    short = {name: (at[:300], values[:300]) for name, (at, values) in columns.items()}
    assert phase_run.early_figures(short)["early_activity"] is None


# -- the small preset -----------------------------------------------------------------------------


@pytest.mark.slow
def test_phase_diagram(tmp_path: Path) -> None:
    script = ROOT / "examples" / "phase_diagram.py"
    command = [sys.executable, "-W", "error", str(script), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    assert "grokwatch:" in done.stdout
    for figure in tmp_path.glob("*.png"):
        assert figure.stat().st_size < 200_000, figure
    results = json.loads((tmp_path / "results.json").read_text())
    runs = results["runs"]
    preset = phase_diagram.PRESETS["small"]
    diagram, laws = phase_diagram.cells(preset, 0)
    assert runs.keys() == {cell.name for cell in [*diagram, *laws]}
    generalised = {name for name, run in runs.items() if run["t4"] is not None}
    assert Cell(*preset.good, preset.fraction, 0).name in generalised
    for cell in diagram:
        if cell.decay == 0.0 or cell.decay > 4:  # the two ends fail, as in the paper
            assert cell.name not in generalised
    # The energy falls with weight decay, as in Fig. 6 ...
    strong, weak = (
        np.mean([runs[c.name]["early_activity"] for c in diagram if (c.decay > 2) == high])
        for high in (True, False)
    )
    assert strong < 0.5 * weak
    # ... and on the paper's own network it is of the size read off it, within a factor of 2.
    for beside in results["row"].values():
        assert 0.5 < beside["here"] / beside["paper"] < 2
    for by_stratum in results["AUC"].values():
        assert 0 <= by_stratum["overall"][0] <= 1
    # Every record can be replayed to the verdict that was published.
    for name in list(runs)[:3]:
        again = replay(read_run(tmp_path / "records" / f"{name}.csv")).final
        assert again.phase == runs[name]["grokwatch"]["said at the end"]
