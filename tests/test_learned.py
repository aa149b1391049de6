from __future__ import annotations

import json
import math

import numpy as np
import pytest

from grokwatch import Forecast, Monitor
from grokwatch.forecast.features import NAMES
from grokwatch.forecast.learned import may_stop, shipped
from grokwatch.forecast.trees import BoostedTrees, Together

WIDTH = len(NAMES)
AT = {name: i for i, name in enumerate(NAMES)}


def stump(feature, threshold, left, right, constant=0.0):
    return BoostedTrees(
        np.array([[feature]]), np.array([[threshold]]), np.array([[left, right]]), constant
    )


def parameters(**changed):
    """Stumps: a longer reach is likelier, and so are runs whose validation loss falls."""
    ever = BoostedTrees(
        feature=np.array([[WIDTH], [AT["val_loss_slope_4x"]]]),
        threshold=np.array([[0.5], [0.0]]),
        value=np.array([[-2.0, 0.0], [3.0, -3.0]]),
        constant=-1.0,
    )
    when = [stump(0, 0.0, level, level) for level in (0.1, 0.3, 0.4)]
    return {
        "format": 3,
        "features": list(NAMES),
        "ever": ever.as_dict(),
        "when": [part.as_dict() for part in when],
        "widen": [1.0, 2.0],
        "calibration": [1.0, 0.0],
        "kill_below": {"0.02": 0.05},
        "support_low": [-1e6] * WIDTH,
        "support_high": [1e6] * WIDTH,
        "horizon": 20_000,
        "classes": [16, 59],
        "comparable": [[0.0, 0.5, 1.0, 20.0], [0.5, 1.1, 9.0, 10.0]],
        **changed,
    }


def watched(forecast, rising, budget=10_000, until=1000, chance=1 / 23, ahead=0.0, **settings):
    """The last verdict on a memorised run whose validation loss rises or falls."""
    monitor = Monitor(budget=budget, chance=chance, forecast=forecast, **settings)
    for step in range(1, until, 5):
        trend = math.log(step + 1)
        row = {"val_loss": 10 + trend if rising else 10 / trend, "val_accuracy": 1 / 23 + ahead}
        accuracy = 1.0 if step > 50 else 0.1
        verdict = monitor.update(step, train_loss=0.1, train_accuracy=accuracy, **row)
    return verdict


def test_a_promising_run_gets_a_time_and_a_reason():
    verdict = watched(Forecast(parameters()), rising=False)
    assert verdict.probability == pytest.approx(1 / (1 + math.exp(-2.0)), abs=1e-6)  # -1 + 0 + 3
    now = verdict.step + 1.0
    expected = [now * 10**u - 1 for u in (0.1, 0.3, 0.3 + 2.0 * 0.1)]
    assert verdict.eta == pytest.approx(expected)
    assert "9 of 10 comparable runs generalised; expect step" in verdict.reason
    assert verdict.recommendation == "continue"


def test_no_time_lies_beyond_the_budget():
    verdict = watched(Forecast(parameters()), rising=False, budget=1200)
    assert verdict.eta[2] == pytest.approx(1200)


def test_an_unpromising_run_is_stopped_only_inside_what_the_forecast_knows():
    verdict = watched(Forecast(parameters()), rising=True)
    assert verdict.probability == pytest.approx(1 / (1 + math.exp(4.0)), abs=1e-6)
    assert (verdict.eta, verdict.recommendation) == (None, "stop_unpromising")
    assert "at a risk of at most 2%" in verdict.reason

    for why, settings in {
        "budget exceeds the 20,000 steps": {"budget": 30_000},
        "16 to 59 classes, guessing gives 0.1 here": {"chance": 0.1},
        "number of classes is not known": {"chance": None},
    }.items():
        strange = watched(Forecast(parameters()), rising=True, **settings)
        assert strange.recommendation == "continue"
        assert why in strange.reason

    narrow = parameters(support_high=[0.0] * WIDTH)
    strange = watched(Forecast(narrow), rising=True)
    assert strange.recommendation == "continue"
    assert "unlike the runs this forecast knows" in strange.reason

    for harmless in (
        {"max_kill_rate": 0.01},  # no threshold is that safe
        {"until": 90},  # not twice t2 yet
        {"budget": 1000},  # next to nothing to save
        {"ahead": 0.4},  # validation followed training: not learnt by heart
    ):
        careful = watched(Forecast(parameters()), rising=True, **harmless)
        assert careful.recommendation == "continue", harmless


def test_may_stop_needs_a_t2():
    x = np.full((2, WIDTH), np.nan)
    x[1, AT["since_t2"]], x[1, AT["val_progress_at_t2"]] = 0.5, 0.0
    assert may_stop(x, np.array([1.0, 1.0])).tolist() == [False, True]


def test_it_saves_and_loads(tmp_path):
    path = tmp_path / "forecast.json"
    forecast = Forecast(parameters())
    forecast.save(path)
    assert watched(Forecast.load(path), rising=True) == watched(forecast, rising=True)


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
            Forecast.load(path)
        assert str(path) in str(error.value)


def test_trees_refuse_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="need features of shape"):
        BoostedTrees(np.zeros((1, 2), int), np.zeros((1, 2)), np.zeros((1, 2)), 0.0)
    with pytest.raises(ValueError, match="do not fit features"):
        BoostedTrees(np.zeros((1, 1), int), np.zeros((1, 3)), np.zeros((1, 2)), 0.0)


def test_ensembles_walked_together_say_what_each_says_alone():
    rng = np.random.default_rng(0)
    parts = [
        BoostedTrees(
            rng.integers(0, 4, (n, 2**depth - 1)),
            rng.normal(size=(n, 2**depth - 1)),
            rng.normal(size=(n, 2**depth)),
            float(n),
        )
        for n, depth in ((7, 3), (1, 1), (4, 5))
    ]
    x = rng.normal(size=(50, 4))
    x[rng.random(x.shape) < 0.2] = np.nan
    alone = np.column_stack([part.log_odds(x) for part in parts])
    np.testing.assert_allclose(Together(parts).log_odds(x), alone, atol=1e-12)


def test_what_is_shipped_is_what_a_monitor_uses():
    assert shipped() is shipped()
    card = shipped().parameters["card"]
    assert card["runs_fit"] > 1000
    verdict = watched(None, rising=True)
    assert verdict == watched(shipped(), rising=True)
    assert verdict.probability is not None
