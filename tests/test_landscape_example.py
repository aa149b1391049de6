"""examples/landscape_of_grokking.py from end to end, on a network far too small to grok."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import landscape_claims
import landscape_measure
import landscape_of_grokking
import landscape_train
import numpy as np
import pytest

FIGURES = {
    "contour", "cosines", "curvature", "dimension", "line_filter", "line_straight", "path",
    "slices_final", "slices_initial", "slices_next", "slices_random", "surface",
}  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = landscape_of_grokking.Preset(7, 0.7, 1, 16, 3e-3, 1.0, 60, 6, 6)
    monkeypatch.setitem(landscape_of_grokking.PRESETS, "small", preset)
    for name, value in (("CURVATURE_PROBES", 3), ("SLICED", 3), ("DIMENSIONS", 3)):
        monkeypatch.setattr(landscape_measure, name, value)
    monkeypatch.setattr(landscape_measure, "ALPHAS", np.linspace(-3, 3, 5))
    monkeypatch.setattr(landscape_measure, "_span", lambda c: np.linspace(c.min(), c.max(), 3))


def test_a_folder_of_figures_and_results(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["landscape_of_grokking.py", "--out", str(tmp_path)])
    assert landscape_of_grokking.main() == 1  # it did not generalise
    assert {file.stem for file in tmp_path.glob("*.png")} == FIGURES
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["claims"]) == 14
    assert results["settings"]["p"] == 7 and "t4" not in results["milestones"]
    untested = [one for one in results["claims"] if one["agrees"] is None]
    assert untested  # nothing is said of slingshots where there were none
    assert "not tested" in capsys.readouterr().out


def test_windows_hold_the_weights_around_a_slingshot(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = landscape_of_grokking.PRESETS["small"]
    problem = landscape_of_grokking.make_problem(preset, "-", 0)
    monkeypatch.setattr(landscape_train, "_note", kick(at=220))
    run = landscape_train.train(
        problem, budget=260, lr=1e-2, weight_decay=0.0, checkpoints=4, notes={}
    )
    assert run.even == [0, 65, 130, 195, 260] and set(run.even) <= run.checkpoints.keys()
    assert len(run.curves["train_loss"]) == 260 and run.validation[0] == list(range(0, 260, 10))
    assert run.spikes == [221] and run.curves["train_loss"][221] > 1.0
    (window,) = run.windows
    assert list(window) == list(range(201, 240, 3))
    heads = {step: state["head.weight"].norm().item() for step, state in window.items()}
    assert heads[222] > 2 * heads[219]


def kick(at: int) -> Callable[..., None]:
    """Notes as before, but throws the weights away at one step."""
    note, calls = landscape_train._note, []

    def kicking(run: Any, loss: Any, model: Any, trajectory: Any) -> None:
        note(run, loss, model, trajectory)
        calls.append(loss)
        if len(calls) == at + 1:
            model.head.weight.data.mul_(-5.0)

    return kicking


def test_rules_that_the_claims_are_held_to() -> None:
    run = landscape_train.Run(milestones={"t2": 10}, spikes=[100])
    quiet = np.full(200, 1e-6)
    quiet[100] = 1e-4
    run.curves = {"step_cosine_distance": quiet.tolist()}
    assert landscape_claims.constant_angle(run)["agrees"] is True
    assert landscape_claims.jumping_angle(run)["agrees"] is True
    run.spikes = []  # the same jump, but no slingshot: then nothing can be said
    assert landscape_claims.jumping_angle(run)["agrees"] is None
    run.curves = {"step_cosine_distance": np.geomspace(1e-8, 1e-4, 200).tolist()}
    assert landscape_claims.constant_angle(run)["agrees"] is False


def test_the_last_checkpoint_kept_is_one_that_generalises(small: None) -> None:
    preset = landscape_of_grokking.PRESETS["small"]
    problem = landscape_of_grokking.make_problem(preset, "-", 0)
    good = {name: value.clone() for name, value in problem.model.state_dict().items()}
    bad = {**good, "head.weight": -good["head.weight"]}
    problem.y_val = problem.model(problem.x_val).argmax(1)
    run = landscape_train.Run({0: bad, 5: bad, 7: good, 8: bad, 10: bad}, [0, 5, 10])
    landscape_train.end_generalised(run, problem)
    assert sorted(run.checkpoints) == [0, 5, 7] and run.even == [0, 5]
