"""Trainings with Lightning that tests follow."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.version import Version

from grokwatch.records import read_run
from tests.lightning_nets import (
    NETS,
    PACKAGES,
    QUIET,
    loaders,
    pl,
    spy_on,
    trainer,
)

MARKS = [pytest.mark.filterwarnings(text) for text in QUIET]
ROOT = Path(__file__).parent.parent
both = pytest.mark.parametrize("package", PACKAGES)


def follow(folder, callback, net=None, count=20, parts=1, package="lightning", **more):
    """Train; the spies on the callback's monitors, and trainer and module."""
    spies = spy_on(callback)
    net = NETS[package](returns=True) if net is None else net
    fit = trainer(folder, [callback], package, **more)
    fit.fit(net, *loaders(count, parts))
    return spies, fit, net


def rows_with(spy, name):
    return {step: row[name] for step, row in spy.merged().items() if name in row}


def validated_alike(record, spy):
    """Whether a resumed trainer validated at the steps of an unbroken one; it trained the same.

    Lightning 2.2, resumed within an epoch, validates a batch later.
    """
    run = read_run(record)
    steps, losses = run.columns["train_loss"]
    assert dict(zip(steps.tolist(), losses.tolist(), strict=True)) == rows_with(spy, "train_loss")
    alike = run.columns["val_loss"][0].tolist() == list(rows_with(spy, "val_loss"))
    assert alike or Version(pl.__version__) < Version("2.3")
    return alike
