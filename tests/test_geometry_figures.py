from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from grokwatch.geometry.figures import contour_figure, series_figure, slice_figure, surface_figure
from grokwatch.geometry.landscape import Series, Slice, Surface
from grokwatch.geometry.run_figures import Panel, over_training_figure, path_figure
from grokwatch.geometry.trajectory import pca

ALPHAS = np.linspace(-1, 1, 9)


def written(figure: Figure) -> bytes:
    """The PNG; a warning on the way is an error."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=40)
    assert file.getvalue().startswith(b"\x89PNG")
    return file.getvalue()


def drawn(axes: Any, label: str) -> np.ndarray[Any, Any]:
    """Points of the curve with that label."""
    return next(line for line in axes.get_lines() if line.get_label() == label).get_xydata()


def test_a_slice_shows_losses_above_accuracies() -> None:
    loss = ALPHAS**2  # 0 in the middle, which a log axis cannot show
    found = Slice(ALPHAS, {"train_loss": loss, "val_loss": loss + 1, "val_accuracy": 1 - loss / 2})
    figure = slice_figure(found, "title", {"θ*": 0.0})
    above, below = figure.axes
    np.testing.assert_allclose(drawn(above, "val loss"), np.stack([ALPHAS, loss + 1], 1))
    assert drawn(above, "train loss")[4, 1] == 1e-12 and above.get_yscale() == "log"
    np.testing.assert_allclose(drawn(below, "val accuracy")[:, 1], 1 - loss / 2)
    assert below.get_yscale() == "linear"
    written(figure)
    assert len(slice_figure(Slice(ALPHAS, {"loss": loss})).axes) == 1


@pytest.mark.parametrize("name", ["loss", "accuracy"])
def test_planes(name: str) -> None:
    values = ALPHAS[:, None] ** 2 + np.linspace(0, 0.5, 5)[None] ** 2
    values[0, 0] = np.inf if name == "loss" else 0.0  # a diverged corner
    found = Surface(np.linspace(0, 0.5, 5), ALPHAS, {name: values})
    path = np.stack([np.linspace(0, 0.4, 4), np.linspace(-0.5, 0.5, 4)], 1)
    figure = contour_figure(found, name, path=path)
    line = figure.axes[0].get_lines()[0]
    np.testing.assert_allclose(line.get_xydata(), path)
    written(figure)
    written(surface_figure(found, name))
    written(contour_figure(Surface(ALPHAS, ALPHAS, {name: np.ones((9, 9))}), name))


def test_series_has_steps_across_and_alphas_upwards() -> None:
    steps = np.array([0, 10, 100, 1000])
    loss = (1 + steps)[:, None] * (1.0 + ALPHAS[None] ** 2)
    found = Series(steps, ALPHAS, {"train_loss": loss, "val_accuracy": 0 * loss, "val_loss": loss})
    figure = series_figure(found, milestones={"t2": 10})
    mesh = figure.axes[0].collections[0]
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(9, 4), loss.T)
    assert sum(ax.axison for ax in figure.axes[:4]) == 3
    written(figure)
    written(series_figure(found, ["val_accuracy"]))


def test_curves_over_training() -> None:
    steps = np.arange(0, 1000, 10)
    panels = [
        Panel("loss", {"a": (steps, 1.0 / (1 + steps)), "b": (steps, 0.0 * steps)}, "log"),
        Panel("ratio", {"r": (steps, np.where(steps > 500, -0.1, np.nan))}, 1e-3, {"r": "o"}),
    ]
    marks = {"t1": 20, "t2": 21, "t4": 700}
    figure = over_training_figure(panels, milestones=marks, spikes=[300], title="x")
    above, below = figure.axes
    assert drawn(above, "a")[0, 0] == 10.0  # a log axis has no step 0
    assert not len(drawn(above, "b"))
    assert drawn(below, "r")[:, 0].min() == 510.0 and below.get_yscale() == "symlog"
    assert [text.get_text() for text in above.texts] == ["t1, t2", "t4"]
    written(figure)
    linear = over_training_figure(panels, log_axis=False)
    assert drawn(linear.axes[0], "a")[0, 0] == 0.0
    written(linear)


def test_a_path_with_its_variance() -> None:
    points = np.cumsum(np.random.default_rng(0).normal(size=(12, 40)), 0)
    found = pca(list(points))
    figure = path_figure(found, range(0, 120, 10), milestones={"t2": 44})
    np.testing.assert_allclose(figure.axes[0].get_lines()[0].get_xydata(), found.path[:, :2])
    bars = [bar.get_height() for bar in figure.axes[1].patches]
    np.testing.assert_allclose(bars, np.cumsum(found.explained)[:10])
    assert figure.axes[0].texts[0].xy == pytest.approx(found.path[4, :2])
    written(figure)
    written(path_figure(pca([np.zeros(3), np.ones(3)]), [0, 1]))
