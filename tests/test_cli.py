"""The command line: exit status, one clear line on standard error, JSON lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from grokwatch import Verdict, cli
from grokwatch.records import read_run, write_csv
from tests.shell import run

__all__ = ["run"]  # a fixture

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def quiet(tmp_path):
    """A record that recommends nothing."""
    (tmp_path / "quiet.csv").write_text("step,train_loss\n1,2.0\n2,1.0\n")
    (tmp_path / "quiet.json").write_text('{"budget": 100}')
    return tmp_path / "quiet.csv"


def test_a_quiet_run_is_status_0(run, quiet):
    status, out, err = run("replay", quiet)
    assert (status, err) == (0, "")
    assert "quiet" in out and "confusion" in out and "at step 2: continue" in out


def test_a_run_that_generalised_is_status_3(run, recorded, tmp_path):
    status, out, err = run("replay", recorded.folder)
    assert (status, err) == (3, "")
    assert "stop_generalised" in out
    assert run("replay", recorded.folder, "--stop-on", "stop_diverged,stop_unpromising")[0] == 0
    write_csv(read_run(recorded.folder), tmp_path / "again.csv")
    assert run("replay", tmp_path / "again.csv")[0] == 3


def test_json_lines(run, recorded):
    status, out, err = run("replay", recorded.folder, "--json")
    assert (status, err) == (3, "")
    about, *changes, final = [json.loads(line) for line in out.splitlines()]
    assert about["type"] == "run" and about["columns"]["train_loss"]["every"] == 1
    assert final.pop("type") == "final" and final["phase"] == "generalised"
    assert {change.pop("type") for change in changes} == {"change"}
    assert [Verdict.from_dict(change) for change in changes] == recorded.news
    assert final == list(recorded.spy.verdicts.values())[-1].as_dict()


def test_options(run, tmp_path):
    (tmp_path / "p.csv").write_text("step,train_accuracy,val_accuracy\n1,10,10\n2,100,20\n")
    arguments = ("--budget", 50, "--chance", 0.1, "--accuracy-unit", "percent", "--json")
    status, out, _ = run("replay", tmp_path / "p.csv", *arguments)
    final = json.loads(out.splitlines()[-1])
    assert status == 0 and final["signals"]["t2"] == 2.0 and final["phase"] == "transition"


def test_a_missing_budget_is_told_on_one_line(run, tmp_path):
    (tmp_path / "r.csv").write_text("step,train_loss\n1,2.0\n")
    status, _, err = run("replay", tmp_path / "r.csv")
    assert status == 0
    assert len(err.splitlines()) == 1 and "no budget is recorded" in err


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, (), "no such file"),
        ("step,loss\n1,x\n", (), "r.csv:2: loss should be a number but is 'x'"),
        ("step,val_accuracy\n4,97\n", ("--budget", "9"), "r.csv, step 4: val_accuracy is a"),
        ("step,val_accuracy\n4,97\n", ("--budget", "9"), "or pass --accuracy-unit percent."),
        ("step,train_loss\n", (), "holds no observations"),
        ("step,train_loss\n1,1\n", ("--budget", "0"), "budget must be at least 1"),
        ("step,train_loss\n1,1\n", ("--budget", "9", "--chance", "7"), "chance must lie in"),
        ("step,train_loss\n1,1\n", ("--budget", "9", "--accuracy-unit", "%"), "accuracy_unit must"),
        ("step,train_loss\n1,1\n", ("--stop-on", "boredom"), "stop_on knows"),
        ("step,train_loss\n1,1\n", ("--budget", "many"), "--budget"),
        ("step,train_loss\n1,1\n", ("--colour", "red"), "--colour"),
    ],
)
def test_bad_input_is_status_2_and_one_line(run, tmp_path, content, arguments, message):
    path = tmp_path / "r.csv"
    if content is not None:
        path.write_text(content)
    status, out, err = run("replay", path, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("grokwatch: ") and len(err.splitlines()) == 1
    assert message in err


@pytest.mark.parametrize("arguments", [("nonsense",), ("replay",)])
def test_bad_usage_is_status_2_and_one_line(run, arguments):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "") and len(err.splitlines()) == 1


def test_help_and_version(run):
    assert "replay" in run()[1]
    assert run("--version")[:2] == (0, f"grokwatch {__import__('grokwatch').__version__}\n")
    assert run("replay", "--help")[0] == 0


def test_columns_are_guessed_or_mapped_and_told(run, tmp_path):
    (tmp_path / "r.csv").write_text("n,valid/nll,Train Loss\n1,3,4\n9,2,1\n")
    arguments = ("replay", tmp_path / "r.csv", "--budget", 50)
    status, _, err = run(*arguments)
    assert status == 2 and "r.csv:1: no column 'step'; found n, valid/nll, Train Loss" in err
    mapped = ("--map", "step=n", "--map", "val_loss=valid/nll")
    status, out, err = run(*arguments, *mapped)
    assert (status, err) == (0, "")
    assert "read as csv: train_loss from 'Train Loss' (2 points, every ~8)" in " ".join(out.split())
    about = json.loads(run(*arguments, *mapped, "--json")[1].splitlines()[0])
    assert about == {
        "type": "run",
        "name": "r",
        "format": "csv",
        "settings": {},
        "columns": {
            "train_loss": {"points": 2, "first": 1, "last": 9, "every": 8},
            "val_loss": {"points": 2, "first": 1, "last": 9, "every": 8},
        },
        "names": {"train_loss": "Train Loss", "val_loss": "valid/nll"},
        "basis": [],
    }
    for wrong, message in (("val_loss", "OURS=THEIRS"), ("val_loss=nll", "no column 'nll'")):
        status, out, err = run(*arguments, "--map", "step=n", "--map", wrong)
        assert (status, out) == (2, "") and message in err and len(err.splitlines()) == 1


def test_the_format_can_be_told(run, tmp_path):
    (tmp_path / "log.txt").write_text('{"step": 1, "loss": 3}\n')
    assert "cannot read .txt; known: .jsonl" in run("replay", tmp_path / "log.txt")[2]
    assert run("replay", tmp_path / "log.txt", "--format", "rows", "--budget", 9)[0] == 0
    status, _, err = run("replay", tmp_path / "log.txt", "--format", "excel")
    assert status == 2 and "unknown format 'excel'" in err


def test_a_forecast_that_is_none(run, quiet, tmp_path):
    for text in ("{", "[]", "{}", None):
        path = tmp_path / ("forecast.json" if text is not None else "none.json")
        if text is not None:
            path.write_text(text)
        status, out, err = run("replay", quiet, "--forecast", path)
        assert (status, out, len(err.splitlines())) == (2, "", 1) and str(path) in err


@pytest.mark.parametrize("name", ["<script>alert(1)<", "\x1b[31mred", "a\nb", "[bold]", "ünï"])
def test_hostile_names(run, tmp_path, name):
    path = tmp_path / f"{name}.csv"
    path.write_text("step,train_loss,[red]\x1b[5m\n1,2.0,1\n2,1.0,1\n")
    status, out, err = run("replay", path, "--budget", 10)
    assert status == 0 and "\x1b" not in out + err and err == ""
    assert name.replace("\x1b", "?").replace("\n", "?") in out
    status, out, err = run("replay", tmp_path / f"{name}.none")
    assert status == 2 and "\x1b" not in err and len(err.splitlines()) == 1
    about = json.loads(run("replay", path, "--budget", 10, "--json")[1].splitlines()[0])
    assert about["name"] == name


def test_help_has_examples_and_a_pipe_may_close(run, quiet):
    for command in ("replay", "watch", "compare"):
        status, out, _ = run(command, "--help")
        assert status == 0 and f"grokwatch {command} " in out and "For example" in out
    program = f"{sys.executable} -m grokwatch replay '{quiet}' --json | true"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, shell=True, env=environment, capture_output=True, timeout=60)
    assert done.stderr == b""


def test_shell_completion():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "_GROKWATCH_COMPLETE": "complete_bash",
                   "COMP_WORDS": "grokwatch re", "COMP_CWORD": "1"}  # fmt: skip
    program = "import sys; sys.argv = ['grokwatch']; from grokwatch.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "replay" in done.stdout.split()


def test_names_with_brackets_are_not_markup(run, quiet):
    path = quiet.rename(quiet.with_name("run[bold].csv"))
    status, out, _ = run("replay", path, "--budget", 10)
    assert status == 0 and "run[bold]" in out


def test_what_a_package_tells_the_writers_of_another_is_not_told(run, monkeypatch):
    def app(**_):
        warnings.warn("'oldName' deprecated", DeprecationWarning, stacklevel=1)
        warnings.warn("a gap", stacklevel=1)

    monkeypatch.setattr(cli, "app", app)
    assert run() == (0, "", "grokwatch: a gap\n")


def test_as_a_module(quiet):
    quiet_typer = "error,ignore::DeprecationWarning:typer"  # old ones warn of a new click
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": quiet_typer}

    def module(*arguments):
        command = [sys.executable, "-m", "grokwatch", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)

    done = module("--help")
    assert done.returncode == 0 and "replay" in done.stdout and done.stderr == ""
    done = module("replay", quiet.with_name("none.csv"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_command_line_does_not_load_torch(quiet):
    program = "import sys, grokwatch.cli; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", program], env=environment).returncode == 0
