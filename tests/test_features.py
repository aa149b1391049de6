from __future__ import annotations

import math

import numpy as np
import pytest

from grokwatch import Monitor
from grokwatch.forecast.base import Outlook
from grokwatch.forecast.features import NAMES, TOLD, features

AT = {name: i for i, name in enumerate(NAMES)}
LAST = 1905  # the last step of the grid below 2000


class Recorder:
    def __init__(self):
        self.seen = {}

    def outlook(self, evidence):
        self.seen[evidence.step] = features(evidence)
        return Outlook(None, None, "recording")


def last_features(
    loss=1.0, margin=1.0, classes=23, every=1, budget=20_000, base=0.0, without=(), **settings
):
    """Features at the end of a run that memorises at 60 and whose validation starts to improve."""
    recorder = Recorder()
    chance = 1 / classes
    monitor = Monitor(budget=budget, chance=chance, forecast=recorder, **settings)
    for step in range(0, 2001):
        row = {
            "train_loss": loss * math.exp(-step / 100),
            "train_accuracy": min(1.0, step / 60),
            "weight_norm": 5 * (1 + step) ** -0.1,
        }
        if step % every == 0:
            turn = math.log2((step + 1) / 500)
            row["val_loss"] = loss * (6.0 - 0.8 * turn if step > 500 else 4.0 + 2 * step / 500)
            row["val_margin"] = margin * (-7.0 + 0.9 * max(turn, 0.0))
            row["val_accuracy"] = chance + (1 - chance) * 0.2 * max(turn, 0.0)
        monitor.update(step, **{k: v for k, v in row.items() if k not in without})
    return recorder.seen[LAST]


def same(a, b, tolerance):
    np.testing.assert_allclose(a, b, atol=tolerance, rtol=0)


def test_the_base_of_the_loss_and_the_size_of_the_margin_do_not_matter():
    same(last_features(), last_features(loss=1 / math.log(2), margin=3.0), 1e-5)


def test_the_number_of_classes_does_not_matter():
    same(last_features(classes=17), last_features(classes=97), 1e-4)


def test_the_cadence_of_validation_hardly_matters():
    often, rarely = last_features(every=5), last_features(every=40)
    counts = [AT["log_validations"], AT["since_val_loss_peak"]]
    often[counts] = rarely[counts] = 0.0
    ok = ~np.isnan(rarely)
    assert not np.isnan(often[ok]).any()
    assert np.abs(often[ok] - rarely[ok]).max() < 0.4


def test_what_is_not_measured_is_nan_and_changes_nothing_else():
    whole, less = last_features(), last_features(without=("val_margin", "weight_norm"))
    gone = np.isnan(less) & ~np.isnan(whole)
    assert {NAMES[i] for i in np.flatnonzero(gone)} == {
        name for name in NAMES
        if ("margin" in name and AT[name] is not None) or "weight_norm" in name
    }  # fmt: skip
    same(whole[~gone], less[~gone], 0.0)


def test_what_is_told_enters_as_told():
    untold = last_features()
    assert all(math.isnan(untold[AT[name]]) for name in TOLD)
    told = last_features(learning_rate=1e-2, weight_decay=0.5, train_fraction=0.4)
    assert told[AT["decay_clock"]] == pytest.approx(math.log10((LAST + 1) * 5e-3), abs=1e-4)
    assert told[AT["train_fraction"]] == 0.4
    none = last_features(learning_rate=1e-2, weight_decay=0.0)
    assert none[AT["decay_clock"]] == -6.0


def test_doublings_say_when_a_straight_line_arrives():
    # The margin rises by 0.9 a doubling and stands at -5.3.
    found = last_features()
    now = -7 + 0.9 * math.log2((LAST + 1) / 500)
    assert found[AT["margin_doublings_2x"]] == pytest.approx(-now / 0.9, rel=0.03)
    assert found[AT["val_progress"]] == pytest.approx(0.2 * math.log2((LAST + 1) / 500), abs=1e-4)
    assert found[AT["since_t2"]] == pytest.approx(math.log10((LAST + 1) / 61), abs=1e-3)
