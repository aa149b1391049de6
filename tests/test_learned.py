from __future__ import annotations

import json
import math

import numpy as np
import pytest

from grokwatch import Monitor
from grokwatch.forecast.features import NAMES
from grokwatch.forecast.learned import LearnedForecast
from grokwatch.forecast.trees import BoostedTrees

WIDTH = len(NAMES)


def parameters(**changed):
    """Two stumps: later reaches are likelier, and so are runs whose validation loss falls."""
    falling = NAMES.index("val_loss_slope_4x")
    trees = BoostedTrees(
        feature=np.array([[WIDTH], [falling]]),
        threshold=np.array([[0.5], [0.0]]),
        value=np.array([[-2.0, 0.0], [3.0, -3.0]]),
        constant=-1.0,
    )
    return {
        "format": 1,
        "features": list(NAMES),
        "trees": trees.as_dict(),
        "calibration": [1.0, 0.0],
        "kill_below": {"0.02": 0.05},
        "support_low": [-1e6] * WIDTH,
        "support_high": [1e6] * WIDTH,
        "horizon": 20_000,
        "comparable": [[0.0, 0.5, 1.0, 20.0], [0.5, 1.1, 9.0, 10.0]],
        **changed,
    }


def watched(forecast, rising, budget=10_000, until=1000, **settings):
    """The last verdict on a memorised run whose validation loss rises or falls."""
    monitor = Monitor(budget=budget, chance=0.1, forecast=forecast, **settings)
    for step in range(1, until, 5):
        trend = math.log(step + 1)
        row = {"val_loss": 10 + trend if rising else 10 / trend, "val_accuracy": 0.1}
        accuracy = 1.0 if step > 50 else 0.1
        verdict = monitor.update(step, train_loss=0.1, train_accuracy=accuracy, **row)
    return verdict


def test_the_distribution_starts_at_nought_and_never_falls():
    cdf = LearnedForecast(parameters()).distribution(np.full(WIDTH, np.nan), reach=1.0)
    assert cdf[0] == 0.0
    assert (np.diff(cdf) >= 0.0).all()
    assert cdf[-1] == pytest.approx(1 / (1 + math.exp(-2.0)))  # -1 + 0 + 3: not measured goes left


def test_a_promising_run_gets_a_time_and_a_reason():
    verdict = watched(LearnedForecast(parameters()), rising=False)
    assert verdict.probability == pytest.approx(1 / (1 + math.exp(-2.0)), abs=1e-6)
    low, median, high = verdict.eta
    assert verdict.step < low < median < high <= 10_000
    assert "9 of 10 comparable runs generalised; expect step" in verdict.reason
    assert verdict.recommendation == "continue"


def test_an_unpromising_run_is_stopped_only_inside_what_the_forecast_knows():
    verdict = watched(LearnedForecast(parameters()), rising=True)
    assert verdict.probability == pytest.approx(1 / (1 + math.exp(4.0)), abs=1e-6)
    assert (verdict.eta, verdict.recommendation) == (None, "stop_unpromising")
    assert "inherited risk of 2%" in verdict.reason

    beyond_budget = watched(LearnedForecast(parameters()), rising=True, budget=30_000)
    assert beyond_budget.recommendation == "continue"
    assert "budget exceeds the 20,000 steps" in beyond_budget.reason

    narrow = parameters(support_high=[0.0] * WIDTH)
    strange = watched(LearnedForecast(narrow), rising=True)
    assert strange.recommendation == "continue"
    assert "unlike the runs this forecast knows" in strange.reason

    careful = watched(LearnedForecast(parameters()), rising=True, max_kill_rate=0.01)
    assert careful.recommendation == "continue"


def test_it_saves_and_loads(tmp_path):
    path = tmp_path / "forecast.json"
    forecast = LearnedForecast(parameters())
    forecast.save(path)
    assert watched(LearnedForecast.load(path), rising=True) == watched(forecast, rising=True)


def test_a_file_that_is_no_forecast_is_named(tmp_path):
    path = tmp_path / "forecast.json"
    for text, why in (
        ("{", "Expecting"),
        ("{}", "lacks 'format'"),
        (json.dumps(parameters(format=9)), "format is 9"),
        (json.dumps(parameters(features=["loss"])), "other features"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=why) as error:
            LearnedForecast.load(path)
        assert str(path) in str(error.value)


def test_trees_refuse_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="need features of shape"):
        BoostedTrees(np.zeros((1, 2), int), np.zeros((1, 2)), np.zeros((1, 2)), 0.0)
    with pytest.raises(ValueError, match="do not fit features"):
        BoostedTrees(np.zeros((1, 1), int), np.zeros((1, 3)), np.zeros((1, 2)), 0.0)
