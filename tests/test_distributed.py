"""Several processes: one writer, one decision, nobody waits for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

import grokwatch
from grokwatch import Verdict
from grokwatch.integrations._distributed import Agreement, Ranks, rank, stride
from grokwatch.records import read_run
from tests import ddp

STOP = Verdict(7, "generalised", 1.0, (5.0, 6.0, 7.0), "stop_generalised", "Done.", {"t4": 6.0})

HANGS_AFTER = 240  # seconds; alone on the machine a launch takes 15


def launch(arguments: list[str], folder: Path) -> list[dict]:
    """Run the ranks and return what each saw; every process is ended if they hang."""
    root = Path(__file__).parent.parent
    hidden = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    process = subprocess.Popen(
        [sys.executable, *arguments, str(folder)],
        env={**kept, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=HANGS_AFTER)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"the ranks hang: {process.communicate()[0]}")
    assert process.returncode == 0, output
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def spawned(tmp_path_factory):
    """Two gloo processes that know their rank from the process group alone."""
    folder = tmp_path_factory.mktemp("spawned")
    return folder, launch([ddp.__file__, "spawn"], folder)


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Two processes of torchrun."""
    folder = tmp_path_factory.mktemp("launched")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return folder, launch([*torchrun, ddp.__file__, "launched"], folder)


def both(run, scenario: str) -> tuple[dict, dict]:
    first, second = run[1]
    return first[scenario], second[scenario]


# -- real processes ------------------------------------------------------------------------------


def test_ddp_stops_both_ranks_at_the_same_step(spawned):
    first, second = both(spawned, "even")
    assert first["stopped"] == second["stopped"] > 140
    decided = second["verdict"]["step"]
    assert first["stopped"] == decided + stride(decided)  # gradients keep the ranks in step
    assert first["again"] and second["again"]
    assert second["judged"] == "continue"  # rank 1 has judged nothing, and yet
    assert second["verdict"]["recommendation"] == "stop_generalised"


def test_one_record_one_event_file_one_checkpoint(spawned):
    folder, (first, _) = spawned[0] / "even", spawned[1]
    stopped = first["even"]["stopped"]
    names = sorted(path.name.split(".")[0] for path in folder.iterdir())
    assert names == ["events", "grokwatch", "grokwatch-stop"]
    assert not folder.with_name("even-2").exists()
    run = read_run(folder)
    assert run.last_step == stopped
    steps, norms = run.columns["weight_norm"]
    assert steps[-1] == stopped and len(steps) == stopped
    assert norms[-1] == pytest.approx(first["even"]["weight_norm"], rel=1e-6)
    saved = torch.load(folder / "grokwatch-stop.pt", weights_only=True)
    assert list(saved["model"]) == ["0.weight", "0.bias", "2.weight", "2.bias"]  # no "module."
    assert saved["watch"]["step"] == stopped


def test_accumulated_gradients(spawned):
    first, second = both(spawned, "accumulating")
    assert first["stopped"] == second["stopped"] > 110
    assert first["called"] == second["called"] == ["stop_generalised"]  # on every rank, once


def test_uneven_data(spawned):
    first, second = both(spawned, "join")
    assert first["stopped"] > 140 and second["stopped"] is None  # rank 1 had ended long before
    first, second = both(spawned, "join_epochs")
    assert first["stopped"] == second["stopped"] is not None


def test_two_watches_do_not_collide(spawned):
    first, second = both(spawned, "two_watches")
    assert first["stopped"] == second["stopped"] is not None
    assert first["never"] is second["never"] is False


def test_ranks_far_apart_stop_at_the_same_turn(spawned):
    first, second = both(spawned, "apart")
    assert second["early"] is None
    assert first["stopped"] == second["stopped"] > 333


def test_a_rank_that_ends_early_keeps_nobody(spawned):
    first, second = both(spawned, "ends_early")
    assert first["stopped"] > 160 and second["stopped"] is None


def test_a_monitor_that_fails_stops_nobody(spawned):
    first, second = both(spawned, "broken_monitor")
    assert first["stopped"] is second["stopped"] is None
    assert len(first["told"]) == 1 and "judging failed" in first["told"][0]
    assert second["told"] == []


def test_what_is_split_over_ranks_is_left_alone(spawned):
    first, second = both(spawned, "split_weights")
    if "skipped" in first:
        pytest.skip(first["skipped"])
    assert len(first["told"]) == 2
    assert "norms failed" in first["told"][0] and "weights are split" in first["told"][0]
    assert "grad_norm" in first["told"][1] and "full_tensor()" in first["told"][1]
    assert first["signals"] == ["train_loss"] and first["step"] == 3
    assert second["told"] == []


def test_a_store_that_is_lost_is_told_once_and_training_goes_on(spawned):
    for seen in both(spawned, "lost_store"):
        assert seen["stopped"] == [None, None]
        assert len(seen["told"]) == 1
        assert "stopping together with the other ranks failed" in seen["told"][0]


def test_torchrun_with_a_watch_older_than_the_process_group(launched):
    assert both(launched, "before") == (9, 0)
    assert read_run(launched[0] / "before").last_step == 9
    assert not (launched[0] / "before-2").exists()


def test_accelerate(launched):
    first, second = both(launched, "accelerate")
    assert first["stopped"] == second["stopped"] > 110
    assert first["step"] == second["step"] == first["stopped"]  # optimiser steps, not batches
    assert first["loaded"] == second["loaded"] == first["stopped"]
    assert second["verdict"]["recommendation"] == "stop_generalised"
    assert first["learning_rate"] == 0.01
    folder = launched[0] / "run"
    assert sorted(p.name.split(".")[0] for p in folder.iterdir()) == ["events", "grokwatch"]
    steps, _ = read_run(folder).columns["weight_norm"]
    assert len(steps) == first["stopped"]


# -- the agreement -------------------------------------------------------------------------------


class Busy:
    """A real store on which others act between two calls of one rank, as on a real network."""

    def __init__(self, plan: list[int]) -> None:
        self._store, self.plan = dist.HashStore(), plan
        self.others: list = []

    def compare_set(self, key, expected, desired):
        for _ in range(self.plan.pop() if self.plan and self.others else 0):
            self.others[0]()
        return self._store.compare_set(key, expected, desired)


@given(
    ranks=st.integers(2, 4),
    schedule=st.lists(st.integers(0, 3), max_size=300),
    decides_at=st.integers(1, 60),
    plan=st.lists(st.integers(0, 12), max_size=20),
)
def test_the_nth_answer_is_the_same_on_every_rank(ranks, schedule, decides_at, plan):
    store = Busy(plan)
    agreements = [Agreement("run") for _ in range(ranks)]
    answers: list[list[bool]] = [[] for _ in range(ranks)]

    def ask(who: int) -> None:
        agreement, turn = agreements[who], len(answers[who]) + 1
        if who > 0:
            agreement.look(store, turn)
        elif turn >= decides_at and agreement.stop is None:
            agreement.decide(store, turn, STOP)
        answers[who].append(agreement.stop is not None and turn >= agreement.stop)

    def last() -> None:
        busy, store.others = store.others, []
        ask(ranks - 1)
        store.others = busy

    for who in [s % ranks for s in schedule]:
        store.others = [last] if who < ranks - 1 else []
        ask(who)
    store.others = []
    longest = max(map(len, answers)) + decides_at + 30
    for who in range(ranks):  # rank 0 first: it may have to decide yet
        while len(answers[who]) < longest:
            ask(who)
    assert all(answer == answers[0] for answer in answers)
    stop = answers[0].index(True) + 1
    assert stop > decides_at and all(answers[0][stop - 1 :])
    assert all(agreement.verdict == STOP for agreement in agreements)


@pytest.mark.parametrize("decides_at", [1, 2, 49, 50, 51, 120, 1000])
@pytest.mark.parametrize("first", [0, 1])
def test_ranks_in_step_stop_at_a_turn_that_does_not_depend_on_who_is_first(decides_at, first):
    store, ranks = dist.HashStore(), [Agreement("run"), Agreement("run")]
    for turn in range(1, decides_at + 1):
        for who in (first, 1 - first):
            if who == 1:
                ranks[1].look(store, turn)
            elif turn == decides_at:
                ranks[0].decide(store, turn, STOP)
    assert ranks[0].stop == decides_at + stride(decides_at)


@pytest.mark.parametrize("kind", ["hash", "file", "tcp", "prefix"])
def test_every_kind_of_store(kind, tmp_path):
    if kind == "tcp":
        store = dist.TCPStore("127.0.0.1", 0, 1, True, timedelta(seconds=30))
    elif kind == "file":
        store = dist.FileStore(str(tmp_path / "store"), 1)
    else:
        store = dist.HashStore()
    if kind == "prefix":
        store = dist.PrefixStore("a", dist.PrefixStore("b", store))
    first, second, third = Agreement("run"), Agreement("run"), Agreement("other")
    second.look(store, 200)
    third.look(store, 1)
    first.decide(store, 3, STOP)
    for turn in range(201, 220):
        second.look(store, turn)
        third.look(store, turn)
    assert first.stop == second.stop == 200 + stride(200)
    assert second.verdict == STOP and third.stop is None


def test_looks_are_rare():
    asked = []

    class Counted(Busy):
        def compare_set(self, key, expected, desired):
            asked.append(key)
            return super().compare_set(key, expected, desired)

    store, agreement = Counted([]), Agreement("run")
    for turn in range(1, 10_001):
        agreement.look(store, turn)
    assert len(asked) < 10_000 / 10 + 150


def test_a_store_that_forgets_is_an_error(monkeypatch):
    monkeypatch.setattr("grokwatch.integrations._distributed._TRIES", 20)
    store, agreement = dist.HashStore(), Agreement("run")
    agreement.look(store, 1)
    store.delete_key("run")
    with pytest.raises(RuntimeError, match="loses the key 'run'"):
        agreement.look(store, 2)


# -- ranks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "known"), [(None, 0), ("", 0), ("0", 0), ("3", 3), ("rank", 0), ("-1", 0)]
)
def test_the_rank_that_the_launcher_says(said, known, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    if said is not None:
        monkeypatch.setenv("RANK", said)
    assert rank() == known


def test_a_process_alone_decides_for_itself(monkeypatch):
    ranks = Ranks(pytest.fail)
    assert [ranks.should_stop(1, None), ranks.should_stop(1, STOP)] == [False, True]
    assert not ranks.should_stop(2, None)
    monkeypatch.setenv("RANK", "1")
    assert not Ranks(pytest.fail).should_stop(1, STOP)


def test_asking_again_before_the_next_step_is_the_same_turn():
    ranks = Ranks(pytest.fail)
    turns = [ranks.should_stop(moved, None) or ranks.turn for moved in (0, 0, 1, 1, 1, 3, 4, 4)]
    assert turns == [1, 1, 2, 2, 2, 3, 4, 4]


def test_a_group_of_one_needs_no_agreement():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with grokwatch.watch(torch.nn.Linear(1, 1), budget=500, chance=0.5) as watch:
            for step in range(1, 200):
                watch.train(loss=1.0 / step, accuracy=1.0)
                watch.validate(loss=0.1, accuracy=1.0)
                if watch.should_stop:
                    break
    finally:
        dist.destroy_process_group()
    assert watch.verdict.recommendation == "stop_generalised" and step == watch.verdict.step
