"""Whatever breaks under a watch is told once, that part is switched off, training goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import grokwatch
from grokwatch import Verdict, replay
from grokwatch.forecast.base import Outlook
from grokwatch.records import read_run
from grokwatch.sinks.jsonl import JsonlSink
from tests.fault_programs import BUDGET, feed, make, measured
from tests.nets import Spy

ROOT = Path(__file__).parent.parent
FORKED = "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"


def program(text: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program that knows ``make`` and ``feed``, in a process of its own."""
    head = "import os, sys, time\nfrom tests.fault_programs import *\nfolder = Path(sys.argv[1])\n"
    paths = f"{ROOT}{os.pathsep}{ROOT / 'examples'}"
    return subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(text), str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def check_rows(path: Path, least: int) -> None:
    """What is on record is what was measured, from the first step on."""
    steps, values = read_run(path).columns["train_loss"]
    assert np.array_equal(steps, np.arange(1, len(steps) + 1)) and len(steps) >= least
    want = [measured(step)["loss"] for step in steps.tolist()]
    assert np.array_equal(values, np.array(want, dtype=np.float32))


# -- the disk ------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    """A file system of 256 kB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount; test_pytorch_written.py limits the size of files instead")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up(tiny):
    done = program(
        """
        with make(folder, tensorboard=True) as watch:
            for step in range(1, 12001):
                feed(watch, step)
        print(sorted(watch._outlet._off), watch._outlet.monitor.last_step)
        """,
        tiny,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['record', 'tensorboard'] 12000\n"
    assert done.stderr.count("record failed and is switched off, training goes on: OSError") == 1
    assert done.stderr.count("tensorboard failed and is switched off") == 1
    check_rows(tiny / "run", least=200)


def test_a_checkpoint_for_which_there_is_no_room(tiny):
    done = program(
        """
        model = torch.nn.Linear(400, 400)
        settings = {"budget": 9, "tensorboard": False, "on_stop": "checkpoint"}
        with grokwatch.watch(model, log_dir=folder / "run", **settings) as watch:
            for step in range(1, 100):
                watch.train(loss=float("nan"), step=step)
                watch.flush()
                watch.should_stop
        print(watch.verdict.phase, sorted(watch._outlet._off))
        """,
        tiny,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "diverged ['on_stop']\n"
    assert done.stderr.count("on_stop failed and is switched off") == 1
    assert [path.name for path in (tiny / "run").iterdir()] == ["grokwatch.jsonl"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="drops privileges")
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_folder_that_may_not_be_written(tmp_path, mode):
    done = program(
        """
        (folder / "run").mkdir()
        (folder / "run").chmod(int(os.environ["MODE"]))
        os.setuid(65534)
        with make(folder) as watch:
            for step in range(1, 1001):
                feed(watch, step)
        print(sorted(watch._outlet._off), watch._outlet.monitor.last_step)
        """,
        tmp_path,
        MODE=str(mode),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['log_dir'] 1000\n"
    assert done.stderr.count("PermissionError") == 1


@pytest.mark.parametrize("instead", ["nothing", "a file", "an empty folder"])
def test_a_folder_taken_away_under_way(tmp_path, instead):
    with pytest.warns(RuntimeWarning, match="record failed.*was removed") as told:
        with make(tmp_path) as watch:
            for step in range(1, 1501):
                feed(watch, step)
            watch.flush()
            shutil.rmtree(tmp_path / "run")
            if instead == "a file":
                (tmp_path / "run").write_text("")
            elif instead == "an empty folder":
                (tmp_path / "run").mkdir()
            for step in range(1501, 4001):
                feed(watch, step)
            state = json.loads(json.dumps(watch.state_dict()))
    assert len(told) == 1
    assert watch._outlet.monitor.last_step == 4000
    again = make(tmp_path / "elsewhere")
    again.load_state_dict(state)  # the checkpoint is whole
    assert again.verdict == watch.verdict


def test_a_name_that_cannot_be_numbered(tmp_path, monkeypatch):
    """``log_dir="."`` where there is a record already."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folders = []
    for _ in range(2):
        with grokwatch.watch(
            torch.nn.Linear(1, 1), budget=9, log_dir=".", tensorboard=False
        ) as watch:
            watch.train(loss=1.0)
            state = watch.state_dict()
        folders.append(watch.log_dir.resolve().name)
    assert folders == ["here", "here-2"]
    again = grokwatch.watch(torch.nn.Linear(1, 1), budget=9, log_dir=".", tensorboard=False)
    again.load_state_dict(state)
    again.train(loss=0.5)
    again.close()
    assert read_run(tmp_path / "here-2").last_step == 2
    assert read_run(tmp_path / "here").last_step == 1


def test_a_record_that_somebody_else_writes_to(tmp_path):
    path = tmp_path / "r.jsonl"
    first = JsonlSink(path, {"budget": 9})
    first.observe(1, {"train_loss": 1.0})
    first.flush()
    second = JsonlSink(path, {"budget": 9}, resumed_after=1)
    first.observe(2, {"train_loss": 2.0})
    with pytest.raises(RuntimeError, match="written to by somebody else"):
        first.flush()
    first.close()
    second.observe(2, {"train_loss": 3.0})
    second.close()
    assert read_run(path).columns["train_loss"][1].tolist() == [1.0, 3.0]


# -- somebody else's code ------------------------------------------------------------------------


class Bad:
    """A signal, a forecast and a policy that break at the third call."""

    name, inputs = "bad", ("train_loss",)

    def __init__(self) -> None:
        self.calls = 0

    def _call(self, *_: object) -> None:
        self.calls += 1
        if self.calls == 3:
            raise ZeroDivisionError("thought of everything but this")

    def update(self, step, name, value):
        self._call()

    def values(self):
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def outlook(self, evidence):
        self._call()
        return Outlook(None, None, "Nothing.")

    def decide(self, facts, memory):
        self._call()
        return "continue", None


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"signals": [Bad()]}, "signal 'bad' failed"),
        ({"forecast": Bad()}, "forecast failed"),
        ({"policy": Bad()}, "judging failed"),
        ({"on_verdict": Bad()._call}, None),
    ],
)
def test_what_is_broken_is_left_out_and_the_record_goes_on(tmp_path, given, part):
    told = pytest.warns(RuntimeWarning, match=part) if part else warnings_as_they_are()
    with told as warned, make(tmp_path, **given) as watch:
        for step in range(1, 1001):
            feed(watch, step)
        json.dumps(watch.state_dict(), allow_nan=False)
    if part:
        assert len(warned) == 1
        assert "ZeroDivisionError: thought of everything but this" in str(warned[0].message)
    check_rows(tmp_path / "run", least=1000)
    if part != "judging failed":
        assert watch.verdict.step == 1000


def warnings_as_they_are():
    import contextlib

    return contextlib.nullcontext()


def test_a_sink_that_breaks_in_any_of_its_methods(tmp_path):
    class Sink:
        def __init__(self, breaks: str) -> None:
            self.breaks = breaks

        def _do(self, what: str) -> None:
            if what == self.breaks:
                raise OSError(f"{what} is broken")

        def observe(self, step: int, row: dict[str, float]) -> None:
            self._do("observe")

        def verdict(self, verdict: Verdict, news: str | None) -> None:
            self._do("verdict")

        def flush(self) -> None:
            self._do("flush")

        def close(self) -> None:
            self._do("close")

    methods = ("observe", "verdict", "flush", "close", "made")
    watch = make(tmp_path)

    def broken() -> Sink:
        raise OSError("made is broken")

    for name in methods:
        make_it = broken if name == "made" else lambda name=name: Sink(name)
        watch._outlet.destinations.others[name] = make_it
    with pytest.warns(RuntimeWarning) as told:
        for step in range(1, 101):
            feed(watch, step)
        watch.state_dict()
        for step in range(101, 201):
            feed(watch, step)
        watch.close()
    said = sorted(str(w.message) for w in told)
    assert len(said) == len(methods)
    for name, sentence in zip(sorted(methods), said, strict=True):
        assert f"{name} failed and is switched off" in sentence and f"{name} is broken" in sentence
    check_rows(tmp_path / "run", least=200)


def test_a_monitor_that_cannot_be_saved_does_not_stop_a_checkpoint(tmp_path):
    class Memory:
        def decide(self, facts, memory):
            return "continue", (line for line in "not to be copied")

    with pytest.warns(RuntimeWarning, match="saving the monitor failed"):
        with make(tmp_path, policy=Memory()) as watch:
            feed(watch, 1)
            state = watch.state_dict()
    with pytest.raises(ValueError, match="should be a mapping but is NoneType"):
        make(tmp_path).load_state_dict(state)


# -- what a loop may hand over -------------------------------------------------------------------


STEPS = {
    "text": "three",
    "fraction": 2.5,
    "negative": -1,
    "a time": 10**16,
    "endless": 10**5000,
    "bool": True,
    "several": torch.ones(2),
    "backwards": 3,
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_a_wrong_step_costs_its_row(tmp_path, step):
    with make(tmp_path) as watch:
        spy = Spy(watch)
        for at in range(1, 51):
            feed(watch, at)
        watch.flush()
        with pytest.warns(RuntimeWarning, match="a row is left out.*step") as told:
            watch.train(loss=9.0, step=step)
            watch.validate(loss=9.0, step=step)
            watch.observe(grad_norm=9.0, step=step)
            watch.flush()
        assert len(told) == 1
        for at in range(51, 101):
            feed(watch, at)
    assert watch.verdict == replay(tmp_path / "run").final and watch.verdict.step == 100
    assert all(9.0 not in row.values() for _, row in spy.rows)
    check_rows(tmp_path / "run", least=100)


VALUES = {
    "endless": 10**400,
    "large": np.float64(1e308),
    "meta": torch.ones((), device="meta"),
    "complex": torch.ones((), dtype=torch.complex64),
    "text": np.array("0.5"),
    "bool": True,
}


@pytest.mark.parametrize("bad", VALUES.values(), ids=VALUES.keys())
def test_a_wrong_value_costs_its_measurement(tmp_path, bad, recwarn):
    with make(tmp_path) as watch:
        for at in range(1, 101):
            feed(watch, at)
            watch.train(step=at, grad_norm=bad)
            watch.train(step=at, grad_norm=bad)  # averaged, if they can be
    assert len(recwarn) <= 1
    assert watch.verdict.step == 100
    check_rows(tmp_path / "run", least=100)


def test_nothing_measured_does_not_hide_what_came_before(tmp_path):
    """A row of which nothing is left may not make the one before it count twice."""
    with pytest.warns(RuntimeWarning, match="val_loss of step 5 came twice"):
        with make(tmp_path) as watch:
            watch.validate(loss=0.5, margin=1.0, step=5)
            watch.validate(accuracy=float("nan"), step=6)
            watch.validate(loss=0.75, margin=1.0, step=5)
            watch.train(loss=1.0, step=7)
    assert replay(tmp_path / "run", budget=BUDGET).final == watch.verdict
    assert watch.verdict.step == 7


# -- the clock -----------------------------------------------------------------------------------

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
/* Every clock is an hour early once the file appears, and a day early from every other call on. */
static long back(void) {
    static long calls;
    return access(GONE, F_OK) == 0 ? (++calls % 2 ? 3600 : 86400) : 0;
}
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(id, now);
    now->tv_sec -= back();
    return status;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    int status = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec, now->tv_usec = precise.tv_nsec / 1000;
    return status;
}
time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}
"""


def test_clocks_that_jump_back(tmp_path):
    """All clocks of the C library, the monotonic one too, as on a machine that was moved."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and LD_PRELOAD")
    source, shim, gone = tmp_path / "shim.c", tmp_path / "shim.so", tmp_path / "gone"
    source.write_text(SHIM)
    options = ["-shared", "-fPIC", f'-DGONE="{gone}"', str(source), "-o", str(shim), "-ldl"]
    subprocess.run([compiler, *options], check=True)
    done = program(
        """
        clocks = time.time, time.monotonic, time.perf_counter
        from grokwatch.geometry.probe import CurvatureProbe
        torch.manual_seed(0)
        model, x, y = torch.nn.Linear(2, 2), torch.ones(4, 2), torch.tensor([0, 1, 0, 1])
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        probe = CurvatureProbe(batch=(x, y))
        with grokwatch.watch(
            model, optimizer, budget=BUDGET, log_dir=folder / "run", stop_on=(), curvature=probe,
        ) as watch:
            for step in range(1, 601):
                if step == 200:
                    before = [clock() for clock in clocks]
                    (folder / "gone").touch()
                    assert all(c() < b - 3000 for c, b in zip(clocks, before)), "no jump"
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                feed(watch, step)
        print(sorted(watch._outlet._off), watch._outlet.monitor.last_step)
        print(watch.verdict.signals["hessian_max"] > 0)
        """,
        tmp_path,
        LD_PRELOAD=str(shim),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[] 600\nTrue\n", done.stderr
    assert "Warning" not in done.stderr
    check_rows(tmp_path / "run", least=600)


# -- the other adapters --------------------------------------------------------------------------


def test_lightning_trains_on_without_its_disk(tmp_path):
    from tests.lightning_nets import QUIET, Net, loaders, trainer

    lightning = pytest.importorskip("grokwatch.integrations.lightning")
    import warnings

    (tmp_path / "log").write_text("no folder")
    callback = lightning.GrokWatchCallback(
        log_dir=tmp_path / "log", policy=Bad(), signals=[Bad()], on_verdict=Bad()._call
    )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit = trainer(tmp_path, [callback], max_steps=60)
        fit.fit(Net(), *loaders(20))
    assert QUIET and fit.global_step == 60
    said = [str(w.message) for w in told if "switched off" in str(w.message)]
    assert sorted(s.split(" failed")[0] for s in said) == [
        "grokwatch: judging", "grokwatch: log_dir", "the signal 'bad'",
    ]  # fmt: skip


def test_the_trainer_trains_on_without_its_disk(tmp_path):
    from tests.hf_training import make as trainer_with

    huggingface = pytest.importorskip("grokwatch.integrations.huggingface")
    (tmp_path / "log").write_text("no folder")
    callback = huggingface.GrokWatchCallback(log_dir=tmp_path / "log", policy=Bad())
    trainer = trainer_with(tmp_path / "out", callback, max_steps=20)
    with pytest.warns(RuntimeWarning, match="switched off") as told:
        trainer.train()
    said = sorted(str(w.message).split(" failed")[0] for w in told)
    assert said == ["grokwatch: judging", "grokwatch: log_dir"]
    assert trainer.state.global_step == 20
