from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one is no fault
hypothesis.settings.load_profile("any machine")

STEPS = 1300


@dataclass
class Recorded:
    """A real run that generalised, what a watch saw of it, and where it was written."""

    folder: Path
    spy: Any
    news: list[Any]


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    import grokwatch
    from tests.nets import Spy, Training

    folder = tmp_path_factory.mktemp("runs") / "grokker"
    training, news = Training(), []
    with grokwatch.watch(
        training.model,
        training.optimizer,
        budget=5000,
        log_dir=folder,
        train_fraction=0.6,
        on_verdict=news.append,
        notes={"seed": 0},
    ) as watch:
        spy = Spy(watch)
        training.run(watch, STEPS)
    assert watch.verdict.phase == "generalised"
    return Recorded(folder, spy, news)
