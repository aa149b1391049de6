from __future__ import annotations

import json
import math
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokwatch.history import GRID, History, LogBins, Window, log_grid, next_on_grid
from tests.curves import ACCURACIES, LOSSES


def batch_bins(steps, values):
    """Group by the grid interval that a step lies in; mean step and mean value of each group."""
    edges = np.array(GRID)
    place = np.searchsorted(edges, steps, side="right")
    rows = [row for row in zip(place, steps, values, strict=True) if math.isfinite(row[2])]
    groups = [list(rows) for _, rows in groupby(rows, key=lambda row: row[0])]
    return (
        [math.fsum(step for _, step, _ in group) / len(group) for group in groups],
        [math.fsum(value for _, _, value in group) / len(group) for group in groups],
    )


def test_grid_is_even_in_log_time():
    grid = np.array(log_grid(25, 15))
    assert grid[0] == 0
    assert (np.diff(grid) > 0).all()
    late = grid[grid >= 1000]
    np.testing.assert_allclose(np.diff(np.log10(late)), 1 / 25, atol=1e-3)
    assert np.count_nonzero(grid <= 10**7) <= 161


@given(st.integers(0, 10**14))
def test_next_on_grid_is_the_first_after(step):
    after = next_on_grid(step)
    assert after > step
    assert not any(step < edge < after for edge in GRID)


@pytest.mark.parametrize("curve", [*LOSSES.values(), *ACCURACIES.values()],
                         ids=[*LOSSES, *ACCURACIES])  # fmt: skip
def test_bins_equal_grouping_at_every_prefix(curve):
    steps, values = curve
    bins = LogBins()
    whole_steps, whole_values = batch_bins(steps, values)
    for n, (step, value) in enumerate(zip(steps, values, strict=True), start=1):
        bins.add(step, value)
        got_steps, got_values = bins.points()
        # All bins but the open one are those of the whole curve; that one is grouped anew.
        start = np.searchsorted(steps, GRID[np.searchsorted(GRID, step, side="right") - 1])
        open_steps, open_values = batch_bins(steps[start:n], values[start:n])
        closed = len(got_steps) - 1
        np.testing.assert_allclose(got_steps, whole_steps[:closed] + open_steps, rtol=1e-9)
        np.testing.assert_allclose(got_values, whole_values[:closed] + open_values, rtol=1e-9)
    assert bins.count == len(values)
    assert bins.last == (steps[-1], values[-1])


def test_bins_leave_out_what_is_not_finite():
    bins = LogBins()
    bins.extend([1, 2, 3, 4], [1.0, math.nan, math.inf, 4.0])
    assert [part.tolist() for part in bins.points()] == [[1, 4], [1, 4]]
    assert (bins.count, bins.last) == (2, (4, 4.0))


rows = st.lists(
    st.tuples(st.integers(0, 40), st.floats(-1e6, 1e6, width=32) | st.just(math.nan)), max_size=60
)


@settings(deadline=None)
@given(rows, st.integers(0, 60), st.integers(0, 60))
def test_bins_do_not_depend_on_grouping_or_saving(rows, first, second):
    steps = np.cumsum([gap for gap, _ in rows]).tolist()
    values = [value for _, value in rows]
    one_by_one, grouped = LogBins(), LogBins()
    for step, value in zip(steps, values, strict=True):
        one_by_one.add(step, value)
    cuts = sorted((min(first, len(rows)), min(second, len(rows))))
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        grouped.extend(steps[start:stop], values[start:stop])
        saved = json.loads(json.dumps(grouped.state_dict(), allow_nan=False))
        grouped = LogBins()
        grouped.load_state_dict(saved)
    assert json.dumps(grouped.state_dict()) == json.dumps(one_by_one.state_dict())


@settings(deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(0, 30), max_size=8))
def test_window_is_the_tail(size, chunks):
    window, seen = Window(size), []
    for chunk in chunks:
        new = list(range(len(seen), len(seen) + chunk))
        window.extend(new, [step / 2 for step in new])
        seen += new
        assert window.steps.tolist() == seen[-size:]
        assert window.values.tolist() == [step / 2 for step in seen[-size:]]
        assert len(window) == min(size, len(seen))
    other = Window(size)
    other.load_state_dict(json.loads(json.dumps(window.state_dict())))
    assert other.state_dict() == window.state_dict()


def test_window_without_room():
    with pytest.raises(ValueError, match="a size of at least 1 but got 0"):
        Window(0)


def test_history_of_what_never_arrived_is_empty():
    history = History()
    assert history["val_loss"].count == 0
    assert history["val_loss"].points()[0].size == 0
    assert history.state_dict() == {}


def test_history_comes_back_whole():
    history = History()
    for name, (steps, values) in LOSSES.items():
        history.extend(name, steps, values)
    other = History()
    other.load_state_dict(json.loads(json.dumps(history.state_dict())))
    assert json.dumps(other.state_dict()) == json.dumps(history.state_dict())
    assert other["falling"].last == history["falling"].last


def test_a_long_run_stays_small():
    bins = LogBins()
    for step in np.unique(np.geomspace(1, 10**7, 20_000).astype(int)).tolist():
        bins.add(step, 1.0)
    assert len(bins.points()[0]) <= 160
