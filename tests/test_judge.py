from __future__ import annotations

import json
import math

import pytest

from grokwatch import Monitor
from grokwatch.forecast.base import Outlook


class Says:
    """A forecast that always gives the same answer, or raises it."""

    def __init__(self, answer):
        self.answer = answer

    def outlook(self, evidence):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Outlook(math.nan, None, ""), "probability must lie in 0..1 but is nan"),
        (Outlook(0.5, (1.0, 2.0, math.inf), ""), "eta must be finite and ascending"),
        (Outlook(0.5, (3.0, 2.0, 4.0), ""), "eta must be finite and ascending"),
        (RuntimeError("no model"), "RuntimeError: no model"),
    ],
)
def test_a_broken_forecast_is_told_once_and_left_out(answer, told):
    monitor = Monitor(budget=100, chance=0.1, forecast=Says(answer))
    with pytest.warns(RuntimeWarning, match=told.replace("(", r"\(")) as warned:
        for step in range(50):
            verdict = monitor.update(step, train_loss=1.0, train_accuracy=0.1, val_accuracy=0.1)
    assert len(warned) == 1
    assert (verdict.probability, verdict.eta, verdict.recommendation) == (None, None, "continue")
    assert "failed earlier" in verdict.reason

    resumed = Monitor(budget=100, chance=0.1, forecast=Says(answer))
    resumed.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    row = {"train_loss": 1.0, "train_accuracy": 0.1, "val_accuracy": 0.1}
    assert resumed.update(60, **row) == monitor.update(60, **row)


def test_a_sound_forecast_reaches_the_verdict():
    said = Outlook(0.25, (10.0, 20.0, 30.0), "Because.", unpromising=True)
    monitor = Monitor(budget=100, chance=0.1, forecast=Says(said))
    row = {"train_loss": 1.0, "train_accuracy": 0.1, "val_accuracy": 0.1}
    first = monitor.update(1, **row)
    assert (first.probability, first.eta, first.reason) == (0.25, (10.0, 20.0, 30.0), "Because.")
    assert first.recommendation == "continue"  # one bad verdict is not confirmed yet
    assert monitor.update(2, **row).recommendation == "stop_unpromising"
