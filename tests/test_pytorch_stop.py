"""What is done before a stop, and how a stop is undone."""

from __future__ import annotations

import pytest
import torch

import grokwatch
from grokwatch.integrations._on_stop import CHECKPOINT, bare
from tests.nets import Spy, Training

LAST = 1200


def watch_of(training, folder, **settings):
    return grokwatch.watch(
        training.model,
        training.optimizer,
        budget=5000,
        log_dir=folder,
        tensorboard=False,
        **settings,
    )


def run(training, watch, until):
    """Train and validate every 10 steps, to the stop at most."""
    while training.steps < until and not watch.should_stop:
        training.run(watch, training.steps + 1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    training = Training()
    watch = watch_of(training, tmp_path_factory.mktemp("whole") / "run", stop_on=())
    spy = Spy(watch)
    with watch:
        training.run(watch, LAST)
    return training, spy


def test_a_stop_is_undone_from_its_checkpoint(tmp_path, undisturbed):
    whole, everything = undisturbed
    training = Training()
    with watch_of(training, tmp_path / "run", on_stop="checkpoint") as watch:
        spy = Spy(watch)
        run(training, watch, LAST)
        assert watch.should_stop and 300 < training.steps < LAST - 50
        written = (tmp_path / "run" / CHECKPOINT).stat().st_mtime_ns
        assert watch.should_stop  # and no second one
        assert (tmp_path / "run" / CHECKPOINT).stat().st_mtime_ns == written

    saved = torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)
    again = Training()
    again.model.load_state_dict(saved["model"])
    again.optimizer.load_state_dict(saved["optimizers"][0])
    again.steps = training.steps
    with watch_of(again, tmp_path / "run", stop_on=()) as watch:
        watch.load_state_dict(saved["watch"])
        resumed = Spy(watch)
        run(again, watch, LAST)
    assert {**spy.verdicts, **resumed.verdicts} == everything.verdicts
    assert min(resumed.verdicts) == training.steps
    for one, other in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [CHECKPOINT, "grokwatch.jsonl"]
    replayed = grokwatch.replay(tmp_path / "run").final
    assert replayed == everything.verdicts[max(everything.verdicts)]


def small_watch(folder, **settings):
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = {"budget": 5000, "chance": 0.1, "log_dir": folder, "tensorboard": False, **settings}
    return optimizer, grokwatch.watch(model, optimizer, **settings)


def generalise(optimizer, watch, steps=150):
    """Steps of a run that is good from the start; how many it took to the stop."""
    for step in range(1, steps + 1):
        optimizer.step()
        watch.train(loss=1.0 / step, accuracy=1.0)
        watch.validate(loss=0.1, accuracy=1.0)
        if watch.should_stop:
            return step
    return None


def test_a_function_is_called_once_with_the_verdict():
    called = []

    def note(verdict):
        called.append((verdict.recommendation, watch.should_stop))  # asking does not call again

    optimizer, watch = small_watch(None, on_stop=note)
    with watch:
        assert generalise(optimizer, watch) is not None
        assert watch.should_stop
    assert called == [("stop_generalised", True)]


def test_a_ground_that_does_not_count_is_no_stop(tmp_path):
    settings = {"stop_on": "stop_diverged", "on_stop": "checkpoint"}
    optimizer, watch = small_watch(tmp_path / "run", **settings)
    with watch:
        assert generalise(optimizer, watch) is None
    assert watch.verdict.recommendation == "stop_generalised"
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def fail(verdict):
    raise OSError("no space left")


@pytest.mark.parametrize("kind", ["function", "occupied", "unpicklable"])
def test_a_failure_is_told_once_and_training_goes_on(kind, tmp_path):
    on_stop = fail if kind == "function" else "checkpoint"
    optimizer, watch = small_watch(tmp_path / "run", on_stop=on_stop)
    if kind == "occupied":
        (tmp_path / "run" / CHECKPOINT).mkdir(parents=True)
    if kind == "unpicklable":
        optimizer.param_groups[0]["schedule"] = lambda: 1.0
    with pytest.warns(RuntimeWarning, match="on_stop failed and is switched off") as told:
        with watch:
            stopped = generalise(optimizer, watch)
            assert watch.should_stop
            generalise(optimizer, watch)
    assert len(told) == 1
    assert watch._outlet.monitor.last_step == stopped + 1
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"grokwatch.jsonl"} | ({CHECKPOINT} if kind == "occupied" else set())


def test_wrappers_are_seen_through():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    assert bare(model) is model
    assert bare(torch.nn.DataParallel(torch.compile(model, backend="eager"))) is model
