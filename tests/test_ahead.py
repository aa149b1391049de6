"""A file that is judged while it is read: what reading it first would give, or nothing."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from weakref import ref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from grokwatch import Monitor, _ahead
from grokwatch._readers.tidy import Options
from grokwatch.cli import app
from grokwatch.records import RecordError, Run, read_run, write_csv
from grokwatch.replay import Replay, replay
from tests.test_replay_bulk import Counts

pytest.importorskip("pyarrow")
worth_it = _ahead.worth_it


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    """Every file is large enough, and read in many chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ahead, "worth_it", lambda size: True)
        patch.setattr(_ahead, "_FIRST", 40)
        patch.setattr(_ahead, "_CHUNK", 200)
        yield


def ahead(path: Path, names: dict[str, str] | None = None, **settings) -> Replay | None:
    found = _ahead.judge_ahead(path, settings, Options(names or {}))
    return None if found is None else Replay(*found)


def afterwards(path: Path, names: dict[str, str] | None = None, **settings) -> Replay:
    return replay(read_run(path, names=names), source=str(path), **settings)


def same(one: Replay, other: Replay) -> bool:
    verdicts = [[v.as_dict() for v in found.verdicts] for found in (one, other)]
    a, b = one.run, other.run
    return (
        verdicts[0] == verdicts[1]
        and (a.settings, a.name, a.notes, a.source) == (b.settings, b.name, b.notes, b.source)
        and [*a.columns] == [*b.columns]
        and all(np.array_equal(a.columns[n][0], b.columns[n][0]) for n in a.columns)
        and all(np.array_equal(a.columns[n][1], b.columns[n][1], True) for n in a.columns)
    )


def run_of(rows: int) -> Run:
    """A run that groks, with validation at every seventh step and a column of its own."""
    step = np.arange(rows)
    learnt, late = (1 / (1 + np.exp(-(step - rows * at) / (rows * 0.02))) for at in (0.05, 0.6))
    noise = np.random.default_rng(0).normal(0, 0.1, rows)
    columns = {"train_loss": (step, 3 * (1 - learnt) + 1e-3 * np.exp(noise))}
    columns["train_accuracy"] = (step, learnt)
    columns["val_loss"] = (step[::7], 4 * (1 - late[::7]) + 0.01)
    columns["val_accuracy"] = (step[::7], 0.02 + 0.97 * late[::7])
    columns["mine"] = (step[-20:], noise[-20:])
    return Run(columns, {"budget": rows, "chance": 0.02}, notes={"seed": 3})


@pytest.mark.parametrize("rows", [1, 2, 30, 3000])
def test_a_run_judged_ahead(tmp_path, rows):
    path = tmp_path / "run.csv"
    write_csv(run_of(rows), path)
    found = ahead(path)
    assert found is not None and same(found, afterwards(path))
    assert same(found, replay(path))
    if rows == 3000:
        assert found.final.phase == "generalised" and len(found.verdicts) > 50
        told = {"budget": 500, "memorised_at": 0.9, "accuracy_unit": "fraction"}
        assert same(ahead(path, **told), afterwards(path, **told))
        at, _ = found.run.columns["train_loss"]
        assert found.run.columns["train_accuracy"][0] is at  # shared, as it was


def test_by_other_names(tmp_path):
    path = tmp_path / "log.csv"
    lines = [f"{n}\t{n / 7}\t\t{'' if n % 3 else 1 / n}\t{n}" for n in range(1, 60)]
    path.write_text("Iteration\tloss\tempty\tvalid/nll\tepoch\n" + "\n".join(lines) + "\n")
    names = {"val_loss": "valid/nll"}
    found = ahead(path, names, budget=100)
    assert found is not None and same(found, afterwards(path, names, budget=100))
    assert found.run.source["names"] == {"train_loss": "loss", "val_loss": "valid/nll"}
    assert [*found.run.columns] == ["train_loss", "val_loss", "epoch"]


PLAIN = [f"{n},{1 / n!r},{n / 60 if n % 2 else ''}" for n in range(1, 60)]


@pytest.mark.parametrize(
    ("line", "header"),
    [
        ("30,nan(1),", None),  # a number to Arrow, not to float
        ("nan,0.5,", None),
        ("30,high,", None),
        ('30,"0.5",', None),
        ("30,1_000,", None),
        ("30,0.5", None),  # a cell too few
        ("30,0.5,,", None),
        ("", None),
        ("29,0.5,", None),  # the step before again
        ("7,0.5,", None),
        ("30.5,0.5,", None),
        ("-1,0.5,", None),
        (",0.5,", None),
        ("1e300,0.5,", None),
        ("30,0.5,1.5", None),  # no accuracy
        ("30,0.5,\r", None),
        ("30,0.5,\u0663", None),  # a digit to float
        (None, "step;loss;acc"),
        (None, "step,loss,loss"),
        (None, "stage,loss,acc"),
        (None, "step,mine,yours"),
        (None, "step,epoch,acc"),  # Lightning's
    ],
)
def test_what_is_left_to_others(tmp_path, line, header):
    lines = list(PLAIN) if line is None else [*PLAIN[:29], line, *PLAIN[30:]]
    path = tmp_path / "run.csv"
    path.write_text((header or "step,loss,acc") + "\n" + "\n".join(lines) + "\n", newline="")
    assert ahead(path, budget=100) is None
    outcomes = []
    for read in (replay, afterwards):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is repaired is told by both
            try:
                outcomes.append([v.as_dict() for v in read(path, budget=100).verdicts])
            except RecordError as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_a_loss_that_is_no_number_is_one_of_the_measurements(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("step,loss\n" + "".join(f"{n},{1 / n}\n" for n in range(1, 60)) + "60,nan\n")
    found = ahead(path, budget=100)
    assert found is not None and same(found, afterwards(path, budget=100))
    assert np.isnan(found.run.columns["train_loss"][1][-1])


def test_signals_of_ones_own_are_told_once(tmp_path):
    path = tmp_path / "run.csv"
    write_csv(run_of(300), path)
    with path.open("a") as file:
        file.write("299,9,,,,\n")  # noticed at the very end
    assert ahead(path, signals=[Counts()]) is None
    with pytest.warns(UserWarning, match="logged again"):
        assert replay(path, signals=[Counts()]).final.signals["seen"] == 300


def test_what_was_judged_in_vain_is_let_go(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("step,loss\n" + "".join(f"{n},{1 / n}\n" for n in range(1, 300)) + "300,odd\n")
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ahead, "Monitor", lambda **told: made.append(ref(m := Monitor(**told))) or m)
        assert ahead(path, budget=500) is None
    assert len(made) == 1 and made[0]() is None


def test_what_is_not_told_or_not_ended(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("step,loss\n1,0.5\n2,0.25\n")
    assert ahead(path) is None  # the budget would be the last step
    assert ahead(path, budget=9) is not None
    for names in ({"val_loss": "valid"}, {"val_loss": "step"}, {"valid/loss": "loss"}):
        assert ahead(path, names, budget=9) is None
    assert ahead(path, budget=-1) is None
    path.write_text("step,loss\n1,0.5\n2,0.25")  # it may be going on
    assert ahead(path, budget=9) is None
    path.write_bytes(
        b"step,loss\n" + b"1,0.5555555555555555555555555555555555555\n\xef\xbb\xbf2,1\n"
    )
    assert ahead(path, budget=9) is None
    assert ahead(tmp_path, budget=9) is None and ahead(tmp_path / "none", budget=9) is None
    path.write_text("step,loss\n")
    assert ahead(path, budget=9) is None


cells = st.floats().map(repr) | st.floats(0, 1).map(repr) | st.just("")
odd = st.text(alphabet="0123456789.-+eE_ naifINty()x", max_size=8)


@given(st.lists(st.tuples(cells | odd, cells), min_size=1, max_size=30))
def test_any_cells_are_read_as_float_reads_them(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "run.csv"
    lines = [f"{step},{loss},{norm}\n" for step, (loss, norm) in enumerate(rows)]
    path.write_text("step,loss,mine\n" + "".join(lines))
    found = ahead(path, budget=100)
    if found is not None:
        assert same(found, afterwards(path, budget=100))


def test_the_command_tells_the_same(tmp_path, monkeypatch):
    path = tmp_path / "run.csv"
    write_csv(run_of(2000), path)
    calls = []
    judge = _ahead.judge_ahead
    monkeypatch.setattr(
        "grokwatch._cli_replay.judge_ahead", lambda *a: calls.append(judge(*a)) or calls[-1]
    )
    at_once = CliRunner().invoke(app, ["replay", str(path), "--json"])
    monkeypatch.setattr(_ahead, "worth_it", lambda size: False)
    in_turn = CliRunner().invoke(app, ["replay", str(path), "--json"])
    assert calls[0] is not None and calls[1] is None
    assert at_once.exit_code == in_turn.exit_code == 3
    assert at_once.stdout == in_turn.stdout
    assert json.loads(at_once.stdout.splitlines()[-1])["type"] == "final"


def test_where_it_pays(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", object())
    assert [worth_it(size) for size in (10_000, 10_000_000)] == [False, True]
    monkeypatch.delitem(sys.modules, "pyarrow")
    assert [worth_it(size) for size in (10_000_000, 300_000_000)] == [False, True]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not worth_it(300_000_000)
