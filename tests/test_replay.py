"""One run by every way: the same observations give the same verdicts, bit for bit."""

from __future__ import annotations

import copy
import json

import pytest

import grokwatch
from grokwatch import Monitor, Run, replay
from grokwatch.records import RecordError, read_run, write_csv
from tests.conftest import STEPS
from tests.nets import Spy, Training


def crash(watch):
    """What was written so far stays; what was held back is lost."""
    (sink,) = watch._outlet._sinks.values()
    sink.flush()
    sink._file.write('{"type":"observations","col')  # half a line
    watch._outlet._off.add("monitor")
    watch.close()


def compare(verdicts, live):
    got = [verdict.as_dict() for verdict in verdicts]
    want = [verdict.as_dict() for verdict in live.values()]
    assert [v["step"] for v in got] == [v["step"] for v in want]
    for a, b in zip(got, want, strict=True):
        assert a == b
        assert list(a["signals"]) and json.dumps(a) == json.dumps(a | b)


# -- one run, all ways ---------------------------------------------------------------------------


def test_the_live_run_is_worth_comparing(recorded):
    verdicts = list(recorded.spy.verdicts.values())
    phases = list(dict.fromkeys(verdict.phase for verdict in verdicts))
    assert phases == ["confusion", "memorisation", "transition", "generalised"]
    assert len(verdicts) > 60
    assert any(verdict.probability not in (None, 0.0, 1.0) for verdict in verdicts)
    assert "transition_time" in verdicts[-1].signals
    assert verdicts[-1].signals["chance"] == pytest.approx(1 / 23)


def test_replayed_from_jsonl(recorded):
    run = read_run(recorded.folder)
    assert "chance" not in run.settings and len(run.columns["chance"][0]) == STEPS // 10
    assert run.settings["weight_decay"] == 1.0 and run.settings["train_fraction"] == 0.6
    assert (run.name, run.notes) == ("grokker", {"seed": 0})
    compare(replay(run).verdicts, recorded.spy.verdicts)


def test_replayed_from_csv(recorded, tmp_path):
    write_csv(read_run(recorded.folder), tmp_path / "grokker.csv")
    compare(replay(tmp_path / "grokker.csv").verdicts, recorded.spy.verdicts)


def test_updated_directly(recorded):
    rows = recorded.spy.merged()
    monitor = Monitor(budget=5000, learning_rate=3e-3, weight_decay=1.0, train_fraction=0.6)
    verdicts = {}
    for step, row in rows.items():
        verdict = monitor.update(step, **row)
        verdicts[verdict.step] = verdict
    compare(verdicts.values(), recorded.spy.verdicts)


def test_the_record_holds_what_the_monitor_saw(recorded):
    assert dict(read_run(recorded.folder).rows()) == recorded.spy.merged()


@pytest.mark.parametrize(("middle", "end"), [(85, 200), (500, 650), (1050, STEPS)])
def test_resumed_in_the_middle(recorded, tmp_path, middle, end):
    def make(training):
        watch = grokwatch.watch(
            training.model,
            training.optimizer,
            budget=5000,
            log_dir=tmp_path / "run",
            train_fraction=0.6,
            tensorboard=False,
            on_verdict=news.append,
        )
        return watch, Spy(watch)

    news = []
    training = Training()
    first, before = make(training)
    training.run(first, middle)
    saved, twin = json.dumps(first.state_dict()), training.copy()
    assert len(saved) < 64_000
    so_far = dict(before.verdicts)
    kept = len(news)
    training.run(first, middle + 60)  # work that the crash loses
    crash(first)
    del news[kept:]
    second, after = make(twin)
    second.load_state_dict(json.loads(saved))
    assert second.verdict.as_dict() == list(so_far.values())[-1].as_dict()
    twin.run(second, end)
    second.close()
    live = {step: v for step, v in recorded.spy.verdicts.items() if step <= end}
    compare({**so_far, **after.verdicts}.values(), live)
    assert news == [verdict for verdict in recorded.news if verdict.step <= end]
    assert second.log_dir == tmp_path / "run"
    compare(replay(tmp_path / "run").verdicts, live)


def test_rewound_within_one_process(recorded, tmp_path):
    training = Training()
    watch = grokwatch.watch(
        training.model,
        training.optimizer,
        budget=5000,
        log_dir=tmp_path / "run",
        train_fraction=0.6,
        tensorboard=False,
    )
    with watch:
        training.run(watch, 200)
        saved, model, optimizer = watch.state_dict(), *map(state_of, parts(training))
        training.run(watch, 300)
        watch.load_state_dict(saved)
        training.model.load_state_dict(model)
        training.optimizer.load_state_dict(optimizer)
        training.steps = 200
        training.run(watch, 400)
    upto = {step: v for step, v in recorded.spy.verdicts.items() if step <= 400}
    compare(replay(tmp_path / "run").verdicts, upto)


def parts(training):
    return training.model, training.optimizer


def state_of(part):
    return copy.deepcopy(part.state_dict())


def test_a_checkpoint_saved_before_the_validation_of_its_step(tmp_path):
    import torch

    def make():
        model = torch.nn.Linear(1, 1)
        return grokwatch.watch(model, budget=90, log_dir=tmp_path / "run", tensorboard=False)

    watch = make()
    for step in range(1, 11):
        watch.train(loss=1.0 / step)
    saved = watch.state_dict()
    watch.validate(loss=5.0)
    watch.close()
    again = make()
    again.load_state_dict(json.loads(json.dumps(saved)))
    spy = Spy(again)
    for step in range(11, 41):
        again.train(loss=1.0 / step)
    again.validate(loss=2.0)
    again.validate(loss=2.0)  # the same once more: nothing new
    again.close()
    run = read_run(tmp_path / "run")
    assert run.columns["val_loss"][0].tolist() == [40]
    assert replay(run).final.as_dict() == again.verdict.as_dict()
    assert spy.rows[-1][0] == 40


def test_steps_repeated_after_a_resume_are_ignored(tmp_path):
    import torch

    def make():
        model = torch.nn.Linear(1, 1)
        return grokwatch.watch(model, budget=90, log_dir=tmp_path / "run", tensorboard=False)

    watch = make()
    for step in range(1, 21):
        watch.train(loss=1.0 / step, step=step)
    saved = watch.state_dict()
    watch.close()
    again = make()
    again.load_state_dict(saved)
    for step in range(11, 31):
        again.train(loss=1.0 / step if step > 20 else 99.0, step=step)
    again.close()
    run = read_run(tmp_path / "run")
    assert run.columns["train_loss"][0].tolist() == list(range(1, 31))
    assert run.columns["train_loss"][1].max() == 1.0
    assert replay(run).final.as_dict() == again.verdict.as_dict()


def test_a_broken_state_is_refused():
    import torch

    watch = grokwatch.watch(torch.nn.Linear(1, 1), budget=90)
    with pytest.raises(ValueError, match="the saved state lacks 'outlet'"):
        watch.load_state_dict({})
    watch.close()


# -- replay itself -------------------------------------------------------------------------------


def test_without_a_budget_the_last_step_is_taken_with_a_warning():
    run = Run({"train_loss": ([1, 7], [1, 2])}, name="mine")
    with pytest.warns(UserWarning, match="mine: no budget is recorded; taking its last step, 7"):
        replay(run)


def test_settings_override_the_runs_own():
    run = Run({"train_accuracy": ([1, 7], [0.0, 0.5])}, {"budget": 9, "memorised_at": 0.9})
    assert "t2" not in replay(run).final.signals
    assert replay(run, memorised_at=0.5).final.signals["t2"] == 7.0
    assert replay(run, Monitor(budget=9, memorised_at=0.5)).final.signals["t2"] == 7.0
    with pytest.raises(TypeError, match="do not reach a monitor that is given"):
        replay(run, Monitor(budget=9), chance=0.5)


def test_columns_that_no_monitor_knows_are_left_out():
    class Mine:
        name, inputs = "mine", ("fourier",)
        last = 0.0

        def update(self, step, name, value):
            self.last = value

        def values(self):
            return {"mine": self.last}

        def state_dict(self):
            return {"last": self.last}

        def load_state_dict(self, state):
            self.last = state["last"]

    run = Run({"train_loss": ([1], [1]), "fourier": ([1], [5])}, {"budget": 9})
    assert "mine" not in replay(run).final.signals
    assert replay(run, Monitor(budget=9, signals=[Mine()])).final.signals["mine"] == 5.0


def test_impossible_measurements_name_file_and_step(tmp_path):
    (tmp_path / "r.csv").write_text("step,val_accuracy\n3,0.5\n4,97.0\n")
    with pytest.raises(RecordError, match=r"r\.csv, step 4: val_accuracy is a fraction .* percent"):
        replay(tmp_path / "r.csv", budget=10)
    (tmp_path / "p.csv").write_text("step,val_accuracy,chance\n3,50,.1\n4,97.0,.1\n")
    final = replay(tmp_path / "p.csv", budget=10, accuracy_unit="percent").final
    assert final.signals["val_accuracy"] == pytest.approx(0.97)
    assert final.signals["chance"] == pytest.approx(0.1)
    with pytest.raises(RecordError, match="holds no observations"):
        replay(Run({}))


def test_changes_are_the_verdicts_that_changed(recorded):
    result = replay(recorded.folder)
    changes = result.changes()
    assert [v.as_dict() for v in changes] == [v.as_dict() for v in recorded.news]
    assert result.final is result.verdicts[-1]
