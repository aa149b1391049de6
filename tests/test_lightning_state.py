"""What a callback keeps, and stops with a checkpoint of it."""

from __future__ import annotations

import json
import pickle

import pytest
import torch

from grokwatch.integrations._callback import next_check
from grokwatch.replay import replay
from tests.lightning_nets import (
    GrokWatchCallback,
    Net,
    loaders,
    pl,
    spy_on,
    trainer,
)
from tests.lightning_runs import MARKS, follow, rows_with, validated_alike

# -- stopping --------------------------------------------------------------------------------------

pytestmark = MARKS


def test_a_stop_can_be_undone(tmp_path, caplog):
    early = {"budget": 1000, "generalised_at": 0.1}
    callback = GrokWatchCallback(stop=True, **early)
    spies, fit, _ = follow(tmp_path, callback, max_steps=800)
    assert callback.verdict.recommendation == "stop_generalised"
    stopped, formed = fit.global_step, callback.verdict.step
    assert formed <= stopped <= next_check(formed) and "stopping at step" in caplog.text
    (path,) = callback.log_dir.glob(f"grokwatch-stop-step={stopped}.ckpt")
    state = torch.load(path, weights_only=True)["callbacks"][callback.state_key]
    json.dumps(state, allow_nan=False)

    again = GrokWatchCallback(**early)
    resumed = spy_on(again)
    fit = trainer(tmp_path, [again], max_steps=700)
    fit.fit(Net(returns=True), *loaders(20), ckpt_path=path)
    assert stopped < fit.global_step == 700 and again.log_dir == callback.log_dir

    whole, _, _ = follow(tmp_path / "whole", GrokWatchCallback(**early), max_steps=700)
    verdicts = {**spies[0].verdicts, **resumed[0].verdicts}
    assert {v.step: v for v in replay(again.log_dir).verdicts} == verdicts
    if validated_alike(again.log_dir, whole[0]):
        assert verdicts == whole[0].verdicts


def test_without_a_checkpoint_there_is_no_stop(tmp_path, monkeypatch):
    net = Net()
    net.poison_at = 30
    callback = GrokWatchCallback(stop=True)
    (tmp_path / "file").write_text("")
    fit = trainer(tmp_path, [callback], max_steps=60)
    callback._log_dir = None
    fit._default_root_dir = str(tmp_path / "file")  # no folder: nothing can be written there
    with pytest.warns(RuntimeWarning, match="on_stop failed|log_dir failed"):
        fit.fit(net, *loaders(20))
    assert fit.global_step == 60


def test_what_is_done_before_a_stop_may_be_a_function(tmp_path):
    net, told = Net(), []
    net.poison_at = 30
    callback = GrokWatchCallback(stop=True, on_stop=told.append)
    _, fit, _ = follow(tmp_path, callback, net, max_steps=500)
    assert [verdict.step for verdict in told] == [fit.global_step]
    assert not list(tmp_path.rglob("*.ckpt"))


# -- state -----------------------------------------------------------------------------------------


def test_a_second_fit_goes_on(tmp_path):
    callback = GrokWatchCallback(budget=500)
    spies, fit, net = follow(tmp_path, callback, max_steps=100)
    fit.fit_loop.epoch_loop.max_steps = 200
    fit.fit(net, *loaders())
    assert len(spies) == 2 and fit.global_step == 200
    steps = list(spies[0].merged()) + list(spies[1].merged())
    assert steps == list(range(1, 201))
    assert {v.step: v for v in replay(callback.log_dir).verdicts} == {
        **spies[0].verdicts,
        **spies[1].verdicts,
    }


def test_a_checkpoint_without_our_state(tmp_path):
    fit = trainer(tmp_path, [], max_steps=30)
    fit.fit(Net(), *loaders(10))
    fit.save_checkpoint(tmp_path / "bare.ckpt")
    callback = GrokWatchCallback(on_error="raise")
    spies = spy_on(callback)
    fit = trainer(tmp_path, [callback], max_steps=60)
    fit.fit(Net(), *loaders(10), ckpt_path=tmp_path / "bare.ckpt")
    assert list(rows_with(spies[0], "train_loss")) == list(range(31, 61))


def test_a_broken_state_is_told_and_begins_anew(tmp_path):
    callback = GrokWatchCallback()
    with pytest.warns(RuntimeWarning, match="saved state failed .* lacks 'monitor'"):
        callback.load_state_dict({"of": "another version"})
    follow(tmp_path, callback, max_steps=20)
    assert callback.verdict.step == 20


def test_it_can_be_sent_to_another_process():
    callback = pickle.loads(pickle.dumps(GrokWatchCallback(stop=True, budget=7)))
    assert callback.verdict.phase == "unknown" and callback.state_dict() == {}


def test_another_trainer_begins_anew(tmp_path):
    callback = GrokWatchCallback()
    follow(tmp_path / "a", callback, max_steps=60)
    assert callback.verdict.step > 20
    follow(tmp_path / "b", callback, max_steps=20)
    assert callback.verdict.step == 20 and callback._follower.settings["budget"] == 20
    assert callback.log_dir == tmp_path / "b" / "grokwatch"


def test_several_instances(tmp_path):
    callbacks = [GrokWatchCallback(), GrokWatchCallback(name="loss only", val_loss="val_loss")]
    logger = pl.loggers.CSVLogger(tmp_path)
    fit = trainer(tmp_path, callbacks, max_steps=40, logger=logger)
    fit.fit(Net(), *loaders())
    assert callbacks[1].log_dir == callbacks[0].log_dir / "loss only"
    keys = set((callbacks[0].log_dir / "metrics.csv").read_text().splitlines()[0].split(","))
    assert {"grokwatch/phase", "loss only/phase"} <= keys
    with pytest.raises(RuntimeError, match="state_key"):
        trainer(tmp_path, [GrokWatchCallback(), GrokWatchCallback()])
