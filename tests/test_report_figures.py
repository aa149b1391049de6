"""Figures for papers, what they show, and that thinning hides nothing."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokwatch import Run, replay
from grokwatch.report import figures
from grokwatch.report._facts import spikes, stops, strips
from grokwatch.report._style import COLOURS, PALETTE, log_ticks, spread
from grokwatch.report._thin import thin
from tests.curves import GOLDEN, recorded

ALL = ["accuracy", "loss", "probability", "eta", "transition", "spectral", "norms"]


def test_what_there_is_to_draw_is_drawn():
    assert list(figures(GOLDEN / "grokker.jsonl")) == ALL
    never = figures(recorded("never"))
    assert "transition" not in never and {"accuracy", "loss", "spectral", "norms"} <= set(never)


def test_curvature_is_drawn_where_it_was_recorded():
    run = recorded("immediate")
    steps = np.arange(1, 3001, 100)
    lowest = np.where(steps < 1500, -0.5, 0.25)
    columns = {**run.columns, "hessian_max": (steps, 10.0 / steps), "hessian_min": (steps, lowest)}
    drawn = figures(Run(columns, run.settings))
    assert list(drawn)[-1] == "curvature"
    largest, smallest, below = (
        line for line in drawn["curvature"].axes[0].lines if len(line.get_xdata()) > 2
    )
    assert np.allclose(largest.get_ydata(), 10.0 / steps)
    assert np.allclose(smallest.get_ydata(), np.abs(lowest))
    assert below.get_xdata().tolist() == steps[steps < 1500].tolist()


def test_they_are_saved_without_a_display():
    for figure in figures(recorded("grokker")).values():
        for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
            out = io.BytesIO()
            figure.savefig(out, format=kind)
            assert out.getvalue().startswith(start)


def test_the_curves_are_the_data():
    run = recorded("immediate")
    axes = figures(run)["accuracy"].axes[0]
    steps, values = run.columns["val_accuracy"]
    assert any(
        np.array_equal(line.get_xdata(), steps) and np.array_equal(line.get_ydata(), values)
        for line in axes.lines
    )


def test_a_million_steps_stay_few_points_and_keep_their_spikes():
    steps = np.arange(1, 1_000_001)
    losses = np.full(steps.shape, 1e-3, dtype=np.float32)
    losses[[400_000, 900_001]] = 5.0, 1e-6
    run = Run({"train_loss": (steps, losses)}, {"budget": 2_000_000})
    (line,) = (one for one in figures(run)["loss"].axes[0].lines if len(one.get_xdata()) > 2)
    assert len(line.get_xdata()) <= 2000
    assert {400_001.0, 900_002.0} <= set(line.get_xdata())


@given(
    y=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300),
    first=st.integers(1, 1000),
    columns=st.integers(1, 20),
)
@settings(deadline=None)
def test_thinning_keeps_the_extremes_of_every_column(y, first, columns):
    x = np.arange(first, first + len(y), dtype=float)
    values = np.array(y)
    kept_x, kept = thin(x, values, columns)
    assert np.isin(kept_x, x).all() and (np.diff(kept_x) > 0).all()
    assert np.array_equal(kept, values[np.searchsorted(x, kept_x)])
    assert len(kept) <= max(4 * columns, 1)
    if len(kept) == len(y):
        return
    wide = np.log(x[-1] / x[0]) / columns
    place = np.minimum((np.log(x / x[0]) / wide).astype(int), columns - 1)
    kept_place = place[np.searchsorted(x, kept_x)]
    slack = 1 if len(y) else 0  # rounding may put a point into a neighbouring column
    for column in np.unique(place):
        near = np.abs(kept_place - column) <= slack
        assert kept[near].max() >= values[place == column].max()
        assert kept[near].min() <= values[place == column].min()


def test_phases_begin_at_their_milestones():
    replayed = replay(GOLDEN / "grokker.jsonl")
    found = [(s.phase, s.start, s.end) for s in strips(replayed, 5.0, 6000.0)]
    assert found == [
        ("confusion", 5.0, 82.0),
        ("memorisation", 82.0, 741.0),
        ("transition", 741.0, 1201.0),
        ("generalised", 1201.0, 6000.0),
    ]


def test_spikes_and_stops_are_those_of_the_verdicts():
    replayed = replay(GOLDEN / "never.jsonl")
    assert [spike.step for spike in spikes(replayed)] == [2048, 3309, 4650]
    advice = [(v.step, v.recommendation) for v in replayed.verdicts]
    (stop,) = stops(replayed)
    first = next(step for step, what in advice if what == "stop_unpromising")
    later = [step for step, what in advice if step > first and what == "continue"]
    assert stop.verdict.step == first and stop.regretted is None
    assert (stop.recorded, stop.budget) == (6000 - first, 20_000 - first)
    assert stop.withdrawn == (later[0] if later else None)


@given(low=st.floats(1e-30, 1e20), ratio=st.floats(1.11, 1e40), most=st.integers(4, 8))
@settings(deadline=None)
def test_ticks_are_few_and_inside(low, ratio, most):
    ticks = log_ticks(low, low * ratio, most)
    assert 1 <= len(ticks) <= most + 2
    assert ticks == sorted(set(ticks))
    assert all(0.99 * low <= tick <= 1.01 * low * ratio for tick in ticks)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.floats(0.01, 0.2))
def test_labels_are_apart_and_in_order(places, gap):
    moved = spread(places, gap)
    order = np.argsort(places, kind="stable")
    assert (np.diff(np.array(moved)[order]) >= gap - 1e-9).all()
    assert max(moved) <= 1 + 1e-9


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("scheme", "paper"), [(0, "#ffffff"), (1, "#171b21")])
def test_contrast_of_text_and_curves(scheme, paper):
    shades = {role: pair[scheme] for role, pair in PALETTE.items()}
    phases = ("confusion", "memorisation", "transition", "generalised", "ungrokked", "diverged")
    text = ("ink", "muted", "training", "validation", "forecast", "third", "spike")
    for role in text:
        assert contrast(shades[role], paper) >= 4.5, role
        for phase in phases:
            assert contrast(shades[role], shades[phase]) >= 3.0, (role, phase)  # a curve, a mark
    for ground in ("past", *phases):
        assert contrast(shades["ink"], shades[ground]) >= 4.5, ground


def test_every_colour_of_a_drawing_follows_the_page():
    from grokwatch.report import html_report

    text = html_report([recorded("grokker"), recorded("never")])
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, re.S))
    assert re.findall(r"#[0-9a-fA-F]{6}\b", drawings) == []
    assert len(set(COLOURS.values())) == len(COLOURS)
