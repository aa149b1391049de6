"""The command line: exit status, one clear line on standard error, JSON lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grokwatch import Verdict, cli
from grokwatch.records import read_run, write_csv

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: status, standard output, standard error."""
    import warnings

    shown = warnings.showwarning

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["grokwatch", *map(str, arguments)])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as end:
            warnings.simplefilter("default")
            cli.main()
        return end.value.code, *capsys.readouterr()

    yield run
    warnings.showwarning = shown


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
    *changes, final = [json.loads(line) for line in out.splitlines()]
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
        ("step,a\n1,x\n", (), "r.csv:2: a should be a number but is 'x'"),
        ("step,val_accuracy\n4,97\n", ("--budget", "9"), "r.csv, step 4: val_accuracy is a"),
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


def test_names_with_brackets_are_not_markup(run, quiet):
    path = quiet.rename(quiet.with_name("run[bold].csv"))
    status, out, _ = run("replay", path, "--budget", 10)
    assert status == 0 and "run[bold]" in out


def test_as_a_module(quiet):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}

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
