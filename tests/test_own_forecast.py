"""Learning from one's own finished runs."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from scipy.optimize import minimize

from grokwatch import Forecast, Monitor, Run
from grokwatch.forecast import own as package
from grokwatch.forecast._own_record import replay_all
from grokwatch.forecast.base import Settings
from grokwatch.forecast.features import NAMES
from grokwatch.forecast.learned import BY_HEART, may_give_up, shipped
from grokwatch.forecast.own import fit_odds, fit_times
from grokwatch.forecast.prior import OwnPrior
from grokwatch.records import write_csv
from tests.shell import run as run  # a fixture

BUDGET, CLASSES = 4000, 23
STEPS = np.unique(np.geomspace(1, BUDGET, 120).astype(int))


def finished(
    name, t4=None, budget=BUDGET, until=None, lr=0.01, decay=1.0, seed=0, classes=CLASSES, t2=60
):
    """A run that learns by heart at t2 and, with a t4, generalises; numbers as a trainer logs."""
    rng = np.random.default_rng(seed)
    end = until or (budget if t4 is None else min(int(3 * t4), budget))
    steps = STEPS[STEPS < end]
    train = np.where(steps < t2, 1.0 / classes, 1.0)
    rise = (
        np.zeros(len(steps))
        if t4 is None
        else 1.0 / (1.0 + np.exp(-8.0 * np.log((steps + 1) / (0.7 * t4))))
    )
    accuracy = np.clip(1 / classes + (1 - 1 / classes) * rise, 0, 1)
    losses = (3.0 + np.log1p(steps)) * (1.0 - 0.99 * rise) * np.exp(rng.normal(0, 0.01, len(steps)))
    columns = {
        "train_loss": (steps, np.where(steps < t2, 3.0, 0.01)),
        "train_accuracy": (steps, train),
        "val_loss": (steps, losses),
        "val_accuracy": (steps, accuracy),
    }
    settings = {"budget": budget, "chance": 1 / classes, "learning_rate": lr,
                "weight_decay": decay, "train_fraction": 0.5}  # fmt: skip
    return Run(columns, settings, name)


def sweep(good=8, bad=8, **more):
    """Strong decay generalises, weak decay does not."""
    runs = [
        finished(f"good-{i}", 600 + 100 * i, decay=1.0 + 0.1 * i, seed=i, **more)
        for i in range(good)
    ]
    return runs + [
        finished(f"bad-{i}", decay=0.01 + 0.001 * i, seed=99 + i, **more) for i in range(bad)
    ]


@pytest.fixture(scope="module")
def fitted():
    return Forecast.fit(sweep())


def write(runs, folder):
    folder.mkdir()
    for record in runs:
        write_csv(record, folder / f"{record.name}.csv")
    return folder


def watched(forecast, record):
    monitor = Monitor(**record.settings, forecast=forecast)
    return monitor, monitor.extend(record.columns)


def test_odds_are_the_most_probable_ones():
    rng = np.random.default_rng(0)
    z, h = rng.normal(size=200), rng.normal(size=(200, 2))
    answer = (rng.random(200) < 1 / (1 + np.exp(-(0.6 * z + 1.0 + h @ [0.5, 0.0])))).astype(float)
    weight = rng.random(200)
    found = fit_odds(z, h, answer, weight)
    at = np.array([found.slope, found.intercept, *found.weight])

    def loss(p):  # written out, and minimised by another method
        odds = p[0] * z + p[1] + h @ p[2:]
        likelihood = weight @ np.where(answer, np.log1p(np.exp(-odds)), np.log1p(np.exp(odds)))
        spread = np.array([package.PRIOR_A, package.PRIOR_B, package.PRIOR_C, package.PRIOR_C])
        return likelihood + 0.5 * np.sum(((p - [1, 0, 0, 0]) / spread) ** 2)

    best = minimize(loss, [1, 0, 0, 0], method="Nelder-Mead", options={"xatol": 1e-8,
                    "fatol": 1e-12, "maxiter": 4000}).x  # fmt: skip
    np.testing.assert_allclose(at, best, atol=1e-4)
    assert loss(at) < loss(np.array([1.0, 0.0, 0.0, 0.0]))


def test_rows_of_one_run_weigh_as_one():
    z, h = np.array([1.0, -1.0]), np.zeros((2, 1))
    once = fit_odds(z, h, np.array([1.0, 0.0]), np.ones(2))
    often = fit_odds(
        np.repeat(z, 50), np.repeat(h, 50, 0), np.repeat([1.0, 0.0], 50), np.full(100, 0.02)
    )
    assert often.slope == pytest.approx(once.slope, abs=1e-5)


def test_times_move_part_of_the_way():
    quantiles = np.tile([0.2, 0.3, 0.5], (40, 1))
    shift, widen = fit_times(quantiles, np.full(40, 0.4), np.ones(40))  # 40 runs
    assert shift == pytest.approx(0.05)  # as much as the shipped forecast counts: half way
    assert widen == [1.0, 1.0]  # all of them lie inside the interval
    _, widen = fit_times(quantiles, np.tile([0.2, 0.7], 20), np.ones(40))
    assert widen[0] == 1.0 and widen[1] > 1.2
    assert fit_times(np.zeros((0, 3)), np.zeros(0), np.zeros(0)) == (0.0, [1.0, 1.0])


def test_hyper_parameters_count_in_standard_deviations():
    prior = OwnPrior(30, (-2.0, -2.0, 0.5), (0.5, 1.0, 0.0), (1.0, 10.0, 100.0))
    told = Settings(budget=9, learning_rate=0.01, weight_decay=10.0, train_fraction=0.9)
    assert prior.log_odds(told) == pytest.approx(2.0)  # one decade is two deviations
    assert prior.log_odds(Settings(budget=9)) == 0.0  # nothing told: the mean
    assert prior.log_odds(Settings(budget=9, learning_rate=1e-9)) == -30.0  # three at the most
    assert OwnPrior.from_dict(json.loads(json.dumps(prior.as_dict()))) == prior
    p = 1 / (1 + math.exp(-(0.5 * -3.0 + 1.0 + 2.0)))
    before = OwnPrior(30, (), (), (), slope=0.5, intercept=1.0).shipped(p, 2.0)
    assert before == pytest.approx(1 / (1 + math.exp(3.0)))


def test_it_learns_what_the_hyper_parameters_tell(fitted):
    own = fitted.parameters["own"]
    assert own["weight"][own["terms"].index("log_decay_rate")] > 0.1
    strong, weak = (
        watched(fitted, finished("new", decay=decay, until=300))[1][-1].probability
        for decay in (1.2, 0.01)
    )
    assert strong > weak + 0.05
    assert 0.0 < weak < strong < 1.0


def test_same_runs_same_forecast(fitted, tmp_path):
    assert Forecast.fit(sweep()).parameters == fitted.parameters
    again = Forecast.fit(
        [write(sweep(), tmp_path / "runs")]
    ).parameters  # read back in another order
    assert again["own"]["weight"] == pytest.approx(fitted.parameters["own"]["weight"], abs=1e-4)
    fitted.save(tmp_path / "mine.json")
    loaded = Forecast.load(tmp_path / "mine.json")
    record = finished("new", 1500, seed=5)
    assert watched(loaded, record)[1] == watched(fitted, record)[1]


def test_thresholds_are_inherited_and_the_card_says_so(fitted):
    base = shipped().parameters
    assert fitted.parameters["kill_below"] == base["kill_below"]
    card = fitted.parameters["card"]
    assert "inherited threshold" in card["own_thresholds"]
    assert card["own_runs"] == 16
    counts = {"generalised": 8, "never": 8, "diverged": 0, "cut short": 0}
    assert card["own_outcomes"] == counts
    always = Forecast({**fitted.parameters, "kill_below": {"0.02": 1.0}})
    _, verdicts = watched(always, finished("new", seed=3))
    stops = [v for v in verdicts if v.recommendation == "stop_unpromising"]
    assert stops and "adapted to 16 own runs, inherited threshold" in stops[0].reason


def test_what_the_shipped_forecast_would_stop_is_still_stopped(fitted):
    own = {**fitted.parameters["own"], "intercept": 20.0}
    slope, intercept = fitted.parameters["calibration"]
    hopeful = {**fitted.parameters, "own": own, "calibration": [slope, intercept + 20.0
               - fitted.parameters["own"]["intercept"]], "kill_below": {"0.02": 0.999}}  # fmt: skip
    verdict = watched(Forecast(hopeful), finished("new", seed=3, until=1000))[1][-1]
    assert verdict.probability > 0.999
    assert verdict.recommendation == "stop_unpromising"


def test_own_runs_stretch_a_threshold_by_half_at_most(fitted):
    record = finished("new", seed=3)
    own = {**fitted.parameters["own"], "slope": 1.0, "intercept": -20.0, "weight": [0.0] * 3}
    slope, intercept = shipped().parameters["calibration"]
    gloomy = {**fitted.parameters, "own": own, "calibration": [slope, intercept - 20.0]}
    said = watched(shipped(), record)[1]
    ripe = [v.probability for v in said if 200 < v.step <= 3600]
    for stretched, stops in ((1.2, True), (1.6, False)):
        # Two verdicts in a row are below a threshold that is reached only if it is stretched.
        lowest = min(max(pair) for pair in itertools.pairwise(ripe)) / stretched
        changed = {"kill_below": {"0.02": lowest}}
        adapted = watched(Forecast({**gloomy, **changed}), record)[1]
        assert any(v.recommendation == "stop_unpromising" for v in adapted) is stops
        alone = watched(Forecast({**shipped().parameters, **changed}), record)[1]
        assert not any(v.recommendation == "stop_unpromising" for v in alone)


def test_support_widens_to_the_runs_given():
    runs = sweep(classes=97)
    wide = Forecast.fit(runs).parameters
    base = shipped().parameters
    assert wide["classes"] == [base["classes"][0], 97]
    assert wide["horizon"] == base["horizon"]
    assert all(a <= b for a, b in zip(wide["support_low"], base["support_low"], strict=True))
    assert all(a >= b for a, b in zip(wide["support_high"], base["support_high"], strict=True))


def test_fitting_again_starts_from_what_was_shipped(fitted):
    assert Forecast.fit(sweep(), base=fitted).parameters == fitted.parameters
    assert package.shipped_parameters(fitted.parameters) == shipped().parameters


def test_runs_cut_short_tell_only_what_was_seen(fitted):
    short = [finished(f"short-{i}", until=400, decay=0.01, seed=i) for i in range(8)]
    usable = replay_all([*sweep(), *short], {})
    assert [r.outcome for r in usable[16:]] == ["cut short"] * 8
    assert {r.known_to for r in usable[16:]} == {r.last for r in usable[16:]}
    with_them = Forecast.fit([*sweep(), *short]).parameters
    assert with_them["card"]["own_outcomes"]["cut short"] == 8
    # "Not by step 399" is hardly news; "not by the budget" would be.
    ended = Forecast.fit([*sweep(), *(finished(f"bad-{i}", decay=0.01, seed=i) for i in range(8))])
    drop = [p["own"]["intercept"] - fitted.parameters["own"]["intercept"]
            for p in (with_them, ended.parameters)]  # fmt: skip
    assert drop[1] < drop[0] - 0.02


def test_a_run_ended_as_soon_as_it_generalises_did_generalise():
    (found,) = replay_all([finished("brief", 600, until=640)], {})
    assert found.outcome == "generalised"
    assert 560 < found.t4 < 640 and found.steps.max() < found.t4


def test_weights_count_as_so_many_runs():
    runs = sweep(8, 8)
    twice = Forecast.fit([*runs, *runs[8:]]).parameters["own"]
    weighed = Forecast.fit(runs, weights=[1.0] * 8 + [2.0] * 8).parameters["own"]
    assert weighed["intercept"] == pytest.approx(twice["intercept"], abs=0.1)
    with pytest.raises(ValueError, match="16 numbers >= 0"):
        Forecast.fit(runs, weights=[1.0])
    with pytest.raises(ValueError, match="16 numbers >= 0"):
        Forecast.fit(runs, weights=[-1.0] * 16)


def test_it_refuses_what_it_cannot_learn_from():
    with pytest.raises(ValueError, match=r"too few finished runs.*2 that generalised, 3 that"):
        Forecast.fit(sweep(2, 3))
    with pytest.raises(ValueError, match=r"only one outcome.*1 that generalised, 12 that did not"):
        Forecast.fit(sweep(1, 12))
    with pytest.raises(ValueError, match=r"too few finished runs.*20 cut short"):
        Forecast.fit([finished(f"{i}", until=300, seed=i) for i in range(20)])
    blind = Run({"train_loss": ([1, 2], [1.0, 0.5])}, {"budget": 10}, "blind")
    with pytest.raises(ValueError, match=r"12 of no use .blind: has no validation accuracy"):
        Forecast.fit([blind] * 12)
    with pytest.raises(ValueError, match="too few"):
        Forecast.fit([])


def test_useless_runs_are_left_out_and_named(fitted):
    blind = Run({"train_loss": ([1, 2], [1.0, 0.5])}, {"budget": 10}, "blind")
    with pytest.warns(UserWarning, match="1 of 17 runs are left out: blind: has no validation"):
        assert Forecast.fit([blind, *sweep()]).parameters == fitted.parameters


def test_without_a_budget_the_longest_run_sets_it(fitted):
    runs = sweep()
    for record in runs:
        del record.settings["budget"]
    with pytest.warns(UserWarning, match="16 of 16 runs record no budget"):
        found = replay_all(runs, {})
    assert {r.budget for r in found} == {max(r.last_step for r in runs)}
    assert Forecast.fit(runs, budget=BUDGET).parameters == fitted.parameters


def test_a_run_that_never_learns_its_training_set_is_late():
    x = np.full((3, len(NAMES)), np.nan)
    x[:, NAMES.index("log_step")] = np.log10([1001.0, 999.0, 1001.0])
    x[:, NAMES.index("val_progress_best")] = [0.0, 0.0, BY_HEART]
    assert may_give_up(x, np.ones(3), 1000).tolist() == [True, False, False]
    x[:, NAMES.index("since_t2")] = 0.1
    assert not may_give_up(x, np.ones(3), 1000).any()
    assert Forecast.fit(sweep()).parameters["own"]["memorised_by"] == 2 * 60 + 2


def test_command_line(run, tmp_path):
    write(sweep(), tmp_path / "runs")
    status, out, err = run("fit", tmp_path / "runs", "-o", tmp_path / "mine.json")
    assert (status, err) == (0, "")
    assert "16 runs: 8 generalised, 8 never" in out and "inherited" in out
    assert Forecast.load(tmp_path / "mine.json").parameters["own"]["runs"] == 16
    status, out, _ = run("fit", tmp_path / "runs", "-o", tmp_path / "mine.json", "--json")
    told = json.loads(out)
    assert (status, told["type"], told["outcomes"]["never"]) == (0, "fit", 8)
    path = tmp_path / "runs" / "bad-0.csv"
    status, out, _ = run("replay", path, "--forecast", tmp_path / "mine.json", "--json")
    assert status in (0, 3)
    assert json.loads(out.splitlines()[-1])["probability"] is not None

    status, out, err = run("fit", path, "-o", tmp_path / "none.json")
    assert status == 2 and err.count("\n") == 1 and "too few finished runs" in err
    assert not (tmp_path / "none.json").exists()
