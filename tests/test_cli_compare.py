"""``grokwatch compare``: the last verdicts side by side."""

from __future__ import annotations

import json
import shutil

import pytest

from grokwatch import Verdict, replay
from tests.curves import GOLDEN
from tests.shell import run

__all__ = ["run"]  # a fixture
NAMES = ("grokker", "immediate", "never", "slingshot")


@pytest.fixture(scope="module")
def finals():
    return {name: replay(GOLDEN / f"{name}.jsonl").final for name in NAMES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name in NAMES:
        shutil.copy(GOLDEN / f"{name}.jsonl", folder)
    return folder


def order(out):
    return [line.split()[0] for line in out.splitlines()[1:]]


def test_a_folder_of_runs(run, finals, folder):
    status, out, err = run("compare", folder)
    assert (status, err) == (0, "")
    assert order(out) == list(NAMES)
    for line, final in zip(out.splitlines()[1:], finals.values(), strict=True):
        assert final.phase in line and final.recommendation in line


@pytest.mark.parametrize(
    ("sort", "want"),
    [
        ("-run", ["slingshot", "never", "immediate", "grokker"]),
        ("-spikes", "slingshot"),
        ("steps", "immediate"),
        ("-steps", "slingshot"),
    ],
)
def test_sorting(run, folder, sort, want):
    got = order(run("compare", folder, "--sort", sort)[1])
    assert got == want if isinstance(want, list) else got[0] == want


def test_what_is_not_known_comes_last(run, finals, folder):
    known = {name for name, final in finals.items() if "t4" in final.signals}
    assert 0 < len(known) < 4
    for sort in ("t4", "-t4"):
        assert set(order(run("compare", folder, "--sort", sort)[1])[: len(known)]) == known


def test_json_lines(run, finals):
    status, out, _ = run("compare", *(GOLDEN / f"{name}.jsonl" for name in NAMES), "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    for line, (name, final) in zip(lines, finals.items(), strict=True):
        about = line.pop("run")
        assert line.pop("type") == "comparison" and about["name"] == name
        assert line.pop("steps") == about["columns"]["train_loss"]["last"]
        assert Verdict.from_dict(line) == final


def test_one_that_cannot_be_read_does_not_hide_the_others(run, tmp_path):
    (tmp_path / "bad.csv").write_text("step,loss\n1,x\n")
    status, out, err = run("compare", tmp_path / "bad.csv", GOLDEN / "never.jsonl")
    assert status == 2 and order(out) == ["never"]
    assert len(err.splitlines()) == 1 and "bad.csv:2: loss should be a number" in err
    assert run("compare", tmp_path / "bad.csv")[:2] == (2, "")


def test_misuse(run, folder):
    status, out, err = run("compare", folder, "--sort", "colour")
    assert (status, out) == (2, "") and "--sort knows run, steps" in err
    assert run("compare")[0] == 2
