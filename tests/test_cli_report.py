"""``grokwatch report``: what it writes, its exit status, and what it refuses."""

from __future__ import annotations

import json

import pytest

from tests.curves import GOLDEN
from tests.shell import run

__all__ = ["run"]  # a fixture


@pytest.fixture
def quiet(tmp_path):
    """A record that recommends nothing."""
    (tmp_path / "quiet.csv").write_text("step,train_loss\n1,2.0\n2,1.0\n")
    (tmp_path / "quiet.json").write_text('{"budget": 100}')
    return tmp_path / "quiet.csv"


def test_one_run(run, tmp_path, quiet):
    page = tmp_path / "page.html"
    status, out, err = run("report", quiet, "-o", page)
    assert (status, err) == (0, "")
    assert out == f"{page}: 1 run, {page.stat().st_size / 1e6:.2f} MB\n"
    assert "<h1>quiet</h1>" in page.read_text(encoding="utf-8")


def test_status_3_for_the_only_run_as_replay(run, tmp_path):
    page = tmp_path / "page.html"
    assert run("report", GOLDEN / "immediate.jsonl", "-o", page)[0] == 3
    arguments = ("report", GOLDEN / "immediate.jsonl", "-o", page, "--stop-on", "stop_diverged")
    assert run(*arguments)[0] == 0


def test_several_runs_figures_and_json(run, tmp_path, quiet):
    page, folder = tmp_path / "page.html", tmp_path / "a" / "figures"
    status, out, err = run(
        "report", GOLDEN / "immediate.jsonl", quiet, "-o", page, "--figures", folder, "--json"
    )
    assert (status, err) == (0, "")
    *runs, written = [json.loads(line) for line in out.splitlines()]
    assert [(line["type"], line["run"]["name"]) for line in runs] == [
        ("comparison", "immediate"),
        ("comparison", "quiet"),
    ]
    assert written["type"] == "report" and written["path"] == str(page)
    assert sorted(written["figures"]) == sorted(str(path) for path in folder.iterdir())
    names = {path.name for path in folder.iterdir()}
    assert {"quiet-loss.png", "quiet-loss.svg", "immediate-accuracy.svg"} <= names


def test_a_run_that_cannot_be_read_is_told_and_the_page_has_the_others(run, tmp_path, quiet):
    (tmp_path / "bad.csv").write_text("step,loss\n1,x\n")
    page = tmp_path / "page.html"
    status, _, err = run("report", tmp_path / "bad.csv", quiet, "-o", page)
    assert status == 2 and "bad.csv:2: loss should be a number" in err
    assert len(err.splitlines()) == 1 and "<h1>quiet</h1>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.csv",), "no such file"),
        (("quiet.csv", "-o", "."), "is a folder"),
        (("quiet.csv", "-o", "missing/page.html"), "there is no folder missing"),
        (("quiet.csv", "--budget", "0"), "budget must be at least 1"),
        (("quiet.csv", "--map", "x"), "OURS=THEIRS"),
    ],
)
def test_bad_input_is_status_2_one_line_and_no_page(
    run, tmp_path, quiet, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("report", *arguments)
    assert (status, out) == (2, "") and message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "report.html").exists()


def test_a_hostile_file_name(run, tmp_path):
    folder = tmp_path / "<img src=x>[red]"
    folder.mkdir()
    (folder / "$x^<b>.csv").write_text("step,train_loss\n1,2.0\n2,1.0\n")
    page = tmp_path / "page.html"
    arguments = ("report", folder / "$x^<b>.csv", "-o", page, "--figures", tmp_path / "figures")
    status, _, _ = run(*arguments, "--budget", 9)
    assert status == 0 and "<h1>$x^&lt;b&gt;</h1>" in page.read_text(encoding="utf-8")
    assert (tmp_path / "figures" / "loss.png").stat().st_size > 1000
