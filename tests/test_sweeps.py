"""A forecast that learns from a sweep's own trials."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from scipy.stats import binomtest

from grokwatch import Forecast, Monitor, Run
from grokwatch._sweep_record import KEPT, Trial
from grokwatch._sweep_report import clopper_pearson
from grokwatch._sweep_rules import first_stop, loosened, weights_of
from grokwatch.forecast.learned import low_enough, shipped
from grokwatch.forecast.prior import OwnPrior
from grokwatch.sweeps import SweepForecast, shuffled
from grokwatch.verdict import Verdict
from tests.test_own_forecast import BUDGET, CLASSES, finished, sweep

SETTINGS = {"budget": BUDGET, "chance": 1 / CLASSES}


def verdict(step, recommendation="stop_unpromising"):
    return Verdict(step, "memorisation", 0.01, None, recommendation, "Test.")


def learnt(runs=None, **options):
    found = SweepForecast(**{**SETTINGS, **options})
    for run in sweep() if runs is None else runs:
        found.add(run, name=run.name)
    return found


@pytest.fixture(scope="module")
def after_sixteen():
    return learnt(refit_every=2)


def test_control_arm_is_a_share_that_every_worker_finds():
    names = [f"trial-{i}" for i in range(4000)]
    first, again = SweepForecast(control_fraction=0.1), SweepForecast(control_fraction=0.1)
    arm = [name for name in names if first.is_control(name)]
    assert arm == [name for name in names if again.is_control(name)]
    assert binomtest(len(arm), len(names), 0.1).pvalue > 1e-3
    other = SweepForecast(control_fraction=0.1, seed=1)
    assert sum(map(other.is_control, arm)) < len(arm) / 2
    larger = SweepForecast(control_fraction=0.5)
    assert all(larger.is_control(name) for name in arm)
    nobody, everybody = SweepForecast(control_fraction=0.0), SweepForecast(control_fraction=1.0)
    assert not any(map(nobody.is_control, names)) and all(map(everybody.is_control, names))


def test_it_learns_what_a_fit_of_the_same_runs_learns(after_sixteen):
    assert after_sixteen.version >= 1
    own = after_sixteen.forecast.parameters["own"]
    fitted = Forecast.fit(sweep()).parameters["own"]  # all verdicts, double precision
    assert own["runs"] == fitted["runs"] == 16
    assert own["weight"] == pytest.approx(fitted["weight"], abs=0.05)
    assert own["intercept"] == pytest.approx(fitted["intercept"], abs=0.1)
    assert own["memorised_by"] == fitted["memorised_by"]
    parameters = after_sixteen.forecast.parameters
    assert parameters["kill_below"] == shipped().parameters["kill_below"]
    assert "own_made" not in parameters["card"]  # nothing of the day it was made


def test_refits_get_rarer_and_wait_for_both_outcomes():
    found = SweepForecast(**SETTINGS, refit_every=10)
    changes = [found.add(finished(f"bad-{i}", seed=i), name=f"bad-{i}") for i in range(12)]
    assert not any(changes) and found.forecast is None and found.version == 0
    more = [found.add(finished(f"good-{i}", 700, seed=i), name=f"good-{i}") for i in range(2)]
    assert more == [False, True] and found.version == 1
    assert [found.add(finished(f"b-{i}", seed=i), name=f"b-{i}") for i in range(10)][-1]
    found._fitted = 200
    later = [found.add(finished(f"c-{i}", seed=i), name=f"c-{i}") for i in range(20)]
    assert later == [False] * 19 + [True]


def test_same_arrivals_same_forecast_also_through_a_saved_state(after_sixteen):
    again = learnt(refit_every=2)
    assert again.forecast.parameters == after_sixteen.forecast.parameters
    half = learnt(sweep()[:9], refit_every=2)
    state = json.loads(json.dumps(half.state_dict()))
    resumed = SweepForecast(**SETTINGS, refit_every=2)
    resumed.load_state_dict(state)
    assert resumed.report() == half.report()
    assert resumed.state_dict() == half.state_dict()
    for run in sweep()[9:]:
        resumed.add(run, name=run.name)
    assert resumed.version == after_sixteen.version
    assert resumed.forecast.parameters == after_sixteen.forecast.parameters
    assert resumed.state_dict() == after_sixteen.state_dict()
    loaded = SweepForecast(**SETTINGS, refit_every=2)
    loaded.load_state_dict(json.loads(json.dumps(after_sixteen.state_dict())))
    assert loaded.forecast.parameters == after_sixteen.forecast.parameters


def test_a_state_is_small_and_checked(after_sixteen):
    size = [len(json.dumps(x.state_dict())) for x in (learnt(sweep()[:8]), after_sixteen)]
    rows = KEPT * (8 + 4 + 12) * 4 / 3
    assert (size[1] - 12_000 - size[0]) / 8 < rows + 300  # a refit adds the same once
    state = after_sixteen.state_dict()
    with pytest.raises(ValueError, match="its control arm would be another"):
        SweepForecast(**SETTINGS, refit_every=2, seed=1).load_state_dict(state)
    other = SweepForecast(**SETTINGS, refit_every=2)
    with pytest.raises(ValueError, match="version 99"):
        other.load_state_dict({**state, "version": 99})
    with pytest.raises(ValueError, match="'trials'"):
        other.load_state_dict({key: value for key, value in state.items() if key != "trials"})
    with pytest.raises(ValueError, match="do not fit together"):
        other.load_state_dict({**state, "trials": {**state["trials"], "names": ["one"]}})
    assert other.report().runs == 0 and other.version == 0


def test_a_name_that_comes_again_replaces():
    found = learnt(sweep()[:8])
    assert found.report().generalised == 8
    found.add(finished("good-0", seed=3), name="good-0")
    report = found.report()
    assert (report.runs, report.generalised) == (8, 7)


def test_what_cannot_be_learnt_from_is_told_once_and_counted():
    found = SweepForecast(**SETTINGS)
    blind = Run({"train_loss": ([1, 2], [1.0, 0.5])}, {}, "blind")
    with pytest.warns(RuntimeWarning, match="blind-1: has no validation accuracy"):
        assert found.add(blind, name="blind-1") is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.add(blind, name="blind-2")
        found.add(Run({}, {}, "empty"), name="empty")
        found.add(blind, name="blind-1")
    report = found.report()
    assert (report.runs, report.left_out, report.finished) == (3, 3, 0)
    assert "3 trials that cannot be learnt from" in str(report)
    found.add(finished("blind-1", 700), name="blind-1")  # restarted, and measured this time
    assert (found.report().runs, found.report().left_out) == (3, 2)
    nothing = SweepForecast(chance=0.1)
    with pytest.warns(RuntimeWarning, match="what its budget is"):
        run = finished("free", 700)
        del run.settings["budget"]
        nothing.add(run, name="free")


def test_report_counts_steps_and_the_control_arm():
    found = SweepForecast(**SETTINGS, control_fraction=0.5)
    arm = [f"t{i}" for i in range(60) if found.is_control(f"t{i}")]
    rest = [f"t{i}" for i in range(60) if not found.is_control(f"t{i}")]
    found.add(finished("x", 700), name=arm[0])
    found.add(finished("x", 900), name=arm[1], would_stop=verdict(500))  # would be lost
    found.add(finished("x", 700), name=arm[2], would_stop=verdict(3000))  # had generalised
    found.add(finished("x"), name=arm[3], would_stop=verdict(400))
    found.add(finished("x", until=401), name=rest[0], stopped=verdict(400))
    found.add(finished("x", 800), name=rest[1], stopped=verdict(900, "stop_generalised"))
    found.add(finished("x"), name=rest[2])
    report = found.report()
    assert (report.runs, report.finished, report.stopped, report.generalised) == (7, 6, 1, 4)
    assert (report.control, report.control_generalised, report.killed_in_control) == (4, 3, 1)
    assert report.kill_rate == pytest.approx(1 / 3)
    assert report.kill_interval == pytest.approx(tuple(binomtest(1, 3).proportion_ci(0.9)))
    assert report.steps_saved == BUDGET - 400
    assert report.share_saved == pytest.approx(
        report.steps_saved / (report.steps_saved + report.steps_spent)
    )
    assert "4 trials, 3 generalised, 1 of these would have been stopped" in str(report)
    assert json.loads(json.dumps(report.as_dict()))["stopped"] == 1
    assert SweepForecast().report().share_saved == 0.0


@pytest.mark.parametrize(("hits", "of"), [(0, 10), (3, 10), (10, 10), (1, 114)])
def test_interval_is_clopper_and_pearsons(hits, of):
    assert clopper_pearson(hits, of) == pytest.approx(tuple(binomtest(hits, of).proportion_ci(0.9)))


def test_control_runs_stand_for_those_that_were_stopped():
    found = SweepForecast(**SETTINGS, control_fraction=0.5)
    arm = [f"t{i}" for i in range(60) if found.is_control(f"t{i}")]
    rest = [f"t{i}" for i in range(60) if not found.is_control(f"t{i}")]
    for name in rest[:6]:
        found.add(finished("x", until=401), name=name, stopped=verdict(400))
    for name in arm[:3]:
        found.add(finished("x"), name=name, would_stop=verdict(400))
    found.add(finished("x", 700), name=arm[3])
    weights = weights_of(list(found._trials.values()), 0.5)
    assert weights.tolist() == [1.0] * 6 + [3.0] * 3 + [1.0]
    few = SweepForecast(**SETTINGS, control_fraction=0.5)
    for name in rest[:20]:
        few.add(finished("x", until=401), name=name, stopped=verdict(400))
    few.add(finished("x"), name=arm[0], would_stop=verdict(400))
    assert weights_of(list(few._trials.values()), 0.5)[-1] == 4.0  # twice 1 / .5 at the most


def test_stopped_runs_tell_only_what_was_seen_of_them():
    cut = [finished(f"s-{i}", until=401, decay=0.01, seed=i) for i in range(8)]
    found, ended = learnt(refit_every=24, control_fraction=0.0), learnt(refit_every=24)
    for run in cut:
        found.add(run, name=run.name, stopped=verdict(400))
        ended.add(finished(run.name, decay=0.01, seed=int(run.name[2:])), name=run.name)
    assert found.version == ended.version == 1
    assert {t.seen.outcome for t in list(found._trials.values())[16:]} == {"cut short"}
    low, high = (s.forecast.parameters["own"]["intercept"] for s in (ended, found))
    assert low < high - 0.02
    late = finished("late", until=3900)  # past nine tenths of its budget, and yet stopped
    found.add(late, name="late", stopped=verdict(3800))
    assert found._trials["late"].seen.outcome == "cut short"


def test_a_sweep_that_would_lose_nothing_need_not_wait(after_sixteen):
    parameters = after_sixteen.forecast.parameters
    assert parameters["own"]["waits"] is False and parameters["own"]["estimated"] is False
    assert "without waiting" in after_sixteen.report().rule
    trials = list(after_sixteen._trials.values())
    ones = np.ones(len(trials))
    adapted = {**parameters, "own": {**parameters["own"], "waits": True}}

    def moved(lowest):
        return [Trial(t.seen, lowest if t.generalised else t.lowest, False, None, None)
                for t in trials]  # fmt: skip

    assert loosened(adapted, moved(-9.0), ones, 0.02, True) == adapted  # all would be lost
    assert loosened(adapted, moved(9.0), ones, 0.02, False)["own"]["waits"] is False
    few = [t for t in moved(9.0) if not t.generalised] + [t for t in moved(9.0) if t.generalised][
        :2
    ]
    assert loosened(adapted, few, ones[: len(few)], 0.02, True) == adapted


def test_thresholds_rise_only_when_asked_and_only_with_the_evidence(after_sixteen):
    parameters = after_sixteen.forecast.parameters
    base = shipped().parameters["kill_below"]
    (good,) = [t for t in after_sixteen._trials.values() if t.generalised][:1]

    def after(count, lowest=9.0, lost=0, estimate=True):
        trials = [Trial(good.seen, -9.0 if i < lost else lowest, False, None, None)
                  for i in range(count)]  # fmt: skip
        return loosened(parameters, trials, np.ones(count), 0.02, estimate)

    assert after(29)["kill_below"] == base  # .05 counts as one kill in twenty: 1 / 49 > .02
    assert after(200, estimate=False)["kill_below"] == base
    raised = after(30)
    assert raised["kill_below"]["0.02"] == base["0.05"] and raised["own"]["estimated"]
    assert after(30, lost=1)["kill_below"] == base
    assert after(80, lowest=-3.0)["kill_below"]["0.02"] == base["0.05"]  # .1 would lose them all
    assert after(80)["kill_below"]["0.02"] == base["0.1"]
    assert Forecast.fit(sweep(), base=Forecast(raised)).parameters["kill_below"] == base
    monitor = Monitor(**SETTINGS, forecast=Forecast(raised))
    said = monitor.extend(finished("new", seed=3, decay=0.01).columns)
    stops = [v for v in said if v.recommendation == "stop_unpromising"]
    assert "threshold estimated in the sweep" in stops[0].reason
    assert "an estimated risk of 2 %" in stops[0].reason.replace("2%", "2 %")


def test_first_stop_is_where_low_enough_turns():
    prior = OwnPrior(30, (), (), (), slope=0.8, intercept=-1.0)
    for extra in (-3.0, 0.0, 0.3, 3.0):
        turn = float(first_stop(prior, np.array([extra]), 0.02)[0])
        for odds, expected in ((turn - 1e-6, True), (turn + 1e-6, False)):
            own = 1 / (1 + np.exp(-(0.8 * odds - 1.0 + extra)))
            assert bool(low_enough(own, 1 / (1 + np.exp(-odds)), 0.02)) is expected


def test_it_stops_before_the_training_set_is_learnt_where_the_shipped_one_waits(after_sixteen):
    record = finished("new", seed=3, t2=2500, decay=0.01)
    stops = {}
    for name, forecast in (("shipped", None), ("sweep", after_sixteen.forecast)):
        said = Monitor(**record.settings, forecast=forecast).extend(record.columns)
        stops[name] = [v.step for v in said if v.recommendation == "stop_unpromising"]
    assert stops["sweep"] and stops["sweep"][0] < 2500
    assert not stops["shipped"] or stops["shipped"][0] > 2500


def test_it_begins_with_the_forecast_given(after_sixteen):
    found = SweepForecast(after_sixteen.forecast, **SETTINGS)
    assert found.forecast is after_sixteen.forecast and found.version == 0
    state = found.state_dict()
    found.load_state_dict(state)
    assert found.forecast is after_sixteen.forecast
    for run in sweep():  # what it had learnt before is forgotten
        found.add(run, name=run.name)
    assert found.forecast.parameters["own"]["base"].keys() <= shipped().parameters.keys()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"control_fraction": 1.5}, "control_fraction must lie in 0..1 but got 1.5"),
        ({"refit_every": 0}, "refit_every must be at least 1"),
        ({"thresholds": "bold"}, "'inherited' or 'sweep' but got 'bold'"),
        ({"chance": 2.0}, "chance must lie in 0..1"),
    ],
)
def test_wrong_settings_are_told(wrong, told):
    with pytest.raises(ValueError, match=told):
        SweepForecast(**wrong)


def test_launch_order_is_random_and_repeatable():
    order = shuffled(range(100), 3)
    assert sorted(order) == list(range(100)) and order == shuffled(range(100), 3)
    assert order != shuffled(range(100), 4) and order != list(range(100))
