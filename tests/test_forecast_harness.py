from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks.forecast import bar, guarantee
from benchmarks.forecast.baselines import cases
from benchmarks.forecast.kill import kill_thresholds
from benchmarks.forecast.measures import (
    ece,
    matched,
    perfect_ece,
    ranking,
    recalibration,
    reliability,
    resampled,
    share_interval,
    shown,
    wins,
)
from benchmarks.forecast.replays import Trace
from benchmarks.forecast.rules import Outcomes, forecast_stops, paper_stops, patience
from benchmarks.forecast.table_stop import check


def run(identity="a", t4=None, horizon=1000, **more):
    return {"id": identity, "kind": "mlp", "t2": 10, "t4": t4, "horizon": horizon,
            "diverged": False, "r": 0.5, **more}  # fmt: skip


def trace(meta, steps, probability, may_stop=True, stop=None):
    n = len(steps)
    return Trace(
        meta=meta,
        step=np.array(steps),
        probability=np.array(probability, dtype=float),
        eta=np.full((n, 3), np.nan),
        may_stop=np.full(n, may_stop),
        stop=np.zeros(n, dtype=bool) if stop is None else np.array(stop),
        signals={},
    )


def test_the_area_counts_pairs_and_a_tie_as_half():
    score = np.array([3.0, 1.0, 1.0, 0.0, 2.0])
    label = np.array([True, True, False, False, False])
    brute = [
        1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0
        for i, j in itertools.product(np.flatnonzero(label), np.flatnonzero(~label))
    ]
    assert ranking(score, label)[0] == pytest.approx(np.mean(brute)) == pytest.approx(4.5 / 6)
    assert wins(score, label).tolist() == [[1.0, 1.0, 1.0], [0.5, 1.0, 0.0]]
    assert ranking(np.zeros(5), label) == (0.5, 0.5, 0.5)
    assert ranking(score, np.ones(5, dtype=bool)) is None


def test_the_area_agrees_with_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    label = rng.random(200) < 0.3
    score = np.round(rng.normal(size=200) + label, 1)  # with ties
    value, low, high = ranking(score, label)
    assert value == pytest.approx(roc_auc_score(label, score))
    assert low < value < high


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth = 0.7602499  # two normal laws one standard deviation apart: Phi(1 / sqrt(2))
    hits = 0
    for _ in range(60):
        label = rng.random(150) < 0.4
        _, low, high = ranking(rng.normal(size=150) + label, label)
        hits += low <= truth <= high
    assert 46 <= hits <= 60  # 54 expected; both ends beyond 99.9 %


def test_whole_clusters_are_drawn():
    drawn = resampled(["a", "a", "b", "c"], draws=50)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_matched_pairs_have_nearly_the_same_learning_rate_and_decay():
    label = np.array([True, True, False, False, False])
    lr = np.array([1e-3, 1e-2, 1.2e-3, 1e-3, 1e-2])
    wd = np.array([1.0, 0.0, 1.0, 0.1, 0.0])
    assert matched(label, lr, wd).tolist() == [[True, False, False], [False, False, True]]
    score = np.array([0.0, 0.0, 1.0, -1.0, 0.0])
    # The lower score of the first pair counts as wrong, the tie of the second as half.
    assert ranking(score, label, pairs=matched(label, lr, wd))[0] == 0.25


def test_a_share_and_its_interval():
    assert share_interval(0, 113)[1:] == pytest.approx((0.0, 1 - 0.05 ** (1 / 113)))
    assert share_interval(5, 5)[2] == 1.0
    assert share_interval(3, 10)[0] == 0.3


def test_a_perfect_forecaster_shows_the_calibration_error_that_is_simulated():
    rng = np.random.default_rng(2)
    probability = rng.beta(0.5, 1.0, 600)
    drawn = [ece(probability, rng.random(600) < probability) for _ in range(200)]
    simulated = perfect_ece(probability)
    assert np.mean(drawn) == pytest.approx(simulated.mean(), abs=0.003)
    assert np.quantile(drawn, 0.9) == pytest.approx(np.quantile(simulated, 0.9), abs=0.005)


def test_bins_of_equal_mass_see_who_says_too_much():
    label = np.arange(100) % 2 == 0
    assert ece(np.full(100, 0.8), label) == pytest.approx(0.3)
    bins = reliability(np.linspace(0, 1, 100), label, bins=4)
    assert bins[:, 2].tolist() == [25, 25, 25, 25]
    assert (np.diff(bins[:, 0]) > 0).all()


def test_recalibration_finds_slope_and_intercept():
    rng = np.random.default_rng(3)
    z = rng.normal(0, 2, 40_000)
    label = rng.random(40_000) < 1 / (1 + np.exp(-(0.5 * z - 1.0)))
    slope, intercept = recalibration(1 / (1 + np.exp(-z)), label, np.ones(40_000))
    assert (slope, intercept) == (pytest.approx(0.5, abs=0.03), pytest.approx(-1.0, abs=0.05))


def test_patience_counts_from_the_last_best_and_from_memorisation():
    steps = np.arange(0, 400, 10)
    worse = np.where(steps <= 100, 100.0 - steps, 1.0)  # the best is at step 100
    settings = patience(steps, worse, t2=150.0)
    half = len(settings) // 2
    assert settings[0] == 150.0  # 50 steps after the best
    assert settings[1] == 200.0
    assert settings[half] == 200.0  # 50 steps after memorisation
    assert np.isinf(patience(steps, worse, t2=None)[half:]).all()
    assert np.isinf(patience(steps, -1.0 * steps, t2=0.0)[:14]).all()  # always a new best


def test_stopping_is_scored_on_what_it_kills_and_what_it_saves():
    runs = Outcomes.of([run(t4=500), run(t4=300), run(), run(t2=None), run(diverged=True)])
    stops = np.array([400.0, 400.0, 250.0, np.inf, 100.0])
    killed, saved, late, never = runs.score(stops)
    assert (killed, late, never) == (1, 2, 2)
    assert saved == pytest.approx(0.375)  # the diverged one counts as neither
    assert runs.score(stops, memorising=True)[1] == pytest.approx(0.75)


def test_the_forecast_stops_after_two_low_verdicts_in_a_row():
    traces = [
        trace(run(), [10, 20, 30, 40], [0.01, 0.5, 0.01, 0.01], stop=[0, 0, 0, 1]),
        trace(run(), [10, 20, 30, 40], [0.01] * 4, may_stop=False),
        trace(run(), [10, 20, 30], [np.nan, 0.01, np.nan]),
    ]
    assert forecast_stops(traces, 0.02).tolist() == [40.0, np.inf, np.inf]
    assert np.isinf(forecast_stops(traces, None)).all()
    check([trace(run(), [10, 20], [0.01, 0.01], stop=[False, True])], 0.02)
    with pytest.raises(AssertionError, match="by the monitor"):
        check([trace(run(), [10, 20], [0.01, 0.01])], 0.02)


def test_the_papers_rule_on_its_own_law():
    fit = [
        run(t4=1000 * (50 / r) ** 2, r=r / 100)
        for r in (30, 40, 50, 60, 80)
        for _ in range(4)
    ]  # fmt: skip
    stops = paper_stops(fit, [run(r=0.5), run(r=0.3, operator="parity")], 50)
    assert stops[0] == pytest.approx(2000, abs=20)
    assert np.isinf(stops[1])
    assert np.isinf(paper_stops(fit[:4], [run()], 50)).all()  # one fraction is no law


def test_a_case_is_recent_and_has_not_generalised():
    traces = [
        trace(run("waiting", t4=900), [100, 390], [0.1, 0.2]),
        trace(run("done", t4=200), [100, 390], [0.1, 1.0]),
        trace(run("ended"), [100, 200], [0.1, 0.2]),
    ]
    found = cases(traces, lambda meta: 400.0)
    assert [(t.meta["id"], i) for t, i in found] == [("waiting", 1)]


def test_stand_ins_lead_to_the_threshold_of_their_scores():
    scores = np.concatenate([np.full(3, 0.01), np.linspace(0.1, 0.9, 297)])
    rows, twice = guarantee.stand_in(
        scores, np.full(300, "mlp"), np.arange(300).astype(str), np.arange(300)
    )
    found = kill_thresholds(rows, twice)["thresholds"]
    # Three kills of 300 are within 5 % at 90 % confidence, but not within 1 %.
    assert found.get("0.01", 0.0) <= 0.01 < found["0.05"]


def test_the_guarantee_holds_on_scores_that_are_all_alike():
    rng = np.random.default_rng(4)
    n = 600
    known = {
        "worst": rng.random(n), "kind": np.full(n, "mlp"), "base": np.arange(n),
        "group": np.arange(n) // 3, "split": np.full(n, "fit"),
    }  # fmt: skip
    for entry in guarantee.simulate(known, splits=12):
        assert entry["exceeds"] <= 0.10 + entry["noise"] + 0.3  # 12 splits of one data set
        assert entry["quantiles"] == sorted(entry["quantiles"])


def test_the_bar_says_yes_no_or_not_measured():
    found = {"if": [{"kind": "mlp", "at": "400", "full": (0.94, 0.9, 0.97)},
                    {"kind": "mlp", "at": "5 t2", "full": (0.96, 0.9, 0.98)}]}  # fmt: skip
    lines = {asked: good for _, asked, _, good in bar.bar(found, "calibrate")}
    assert lines["AUC >= 0.93 at 400, MLPs"] is True
    assert lines["AUC >= 0.97 at 5 t2, MLPs"] is False
    assert lines["after 30 runs of one's own: <= 2 % killed, >= 90 % saved"] is None
    assert len(bar.text(bar.bar(found, "calibrate"))) == 5


def test_figures_are_shown_with_their_interval():
    assert shown((0.9312, 0.9, 1.0)) == ".93 (.90-1.00)"
    assert shown((0.021, 0.0, 0.1), percent=True) == "2.1% (0.0-10.0)"
    assert shown(None) == "-"
