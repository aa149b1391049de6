"""Recorded runs: in memory, as CSV, and the errors of the readers."""

from __future__ import annotations

import json
import os
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import grokwatch
from grokwatch._run import RunBuilder
from grokwatch.records import SETTINGS, RecordError, Run, read_run, write_csv

FULL = "step,train_loss,val_loss,notes_of_mine\n1,0.5,,\n2,0.25,0.75,3\n"
JSONL = '{"type":"run","format":1,"settings":{"budget":9},"notes":{"seed":3}}\n'


def observations(**columns):
    packed = {name: {"steps": steps, "values": values} for name, (steps, values) in columns.items()}
    return json.dumps({"type": "observations", "columns": packed}) + "\n"


def same(a: Run, b: Run) -> bool:
    return a.columns.keys() == b.columns.keys() and all(
        np.array_equal(a.columns[n][0], b.columns[n][0])
        and np.array_equal(a.columns[n][1], b.columns[n][1], equal_nan=True)
        for n in a.columns
    )


# -- Run -----------------------------------------------------------------------------------------


def test_rows_come_in_step_order_and_in_the_monitors_order():
    run = Run(
        {
            "zeta": ([4], [9.0]),
            "val_loss": ([2, 4], [0.75, 0.5]),
            "train_loss": ([1, 2], [0.5, 0.25]),
        }
    )
    assert [(step, list(row)) for step, row in run.rows()] == [
        (1, ["train_loss"]),
        (2, ["train_loss", "val_loss"]),
        (4, ["val_loss", "zeta"]),
    ]
    assert run.last_step == 4
    assert Run({}).last_step == -1 and list(Run({}).rows()) == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": ([1, 1], [0, 0])}, "do not ascend"),
        ({"a": ([-1, 1], [0, 0])}, "do not ascend"),
        ({"a": ([1.5, 2.0], [0, 0])}, "not integers"),
        ({"a": ([1, 2], [0])}, "must be"),
        ({"a": ([[1, 2]], [[0, 0]])}, "must be"),
    ],
)
def test_a_run_that_cannot_be(columns, message):
    with pytest.raises(RecordError, match=message):
        Run(columns)


def test_a_run_does_not_change_what_it_is_given():
    mine = {"a": ([1, 2], [0.1, 1e300])}
    run = Run(mine)
    assert mine == {"a": ([1, 2], [0.1, 1e300])}
    assert run.columns["a"][1].tolist() == [float(np.float32(0.1)), float("inf")]


def test_settings_are_those_of_the_monitor():
    values = {"budget": 9, "max_kill_rate": 0.5}
    grokwatch.Monitor(**{name: values.get(name, 0.25 if name == "chance" else 0.5)
                         for name in SETTINGS})  # fmt: skip
    with pytest.raises(RecordError, match=r"unknown settings \['colour'\]"):
        Run({}, {"colour": 1})


def test_rewinding():
    builder = RunBuilder()
    builder.add("a", [1, 2, 3, 4], [1.0] * 4)
    builder.add("b", [3, 9], [1.0] * 2)
    builder.rewind(3, known=["a"])
    columns = builder.run("", {}, {}).columns
    assert (columns["a"][0].tolist(), columns["b"][0].tolist()) == ([1, 2, 3], [])


# -- CSV -----------------------------------------------------------------------------------------


def test_csv_with_sidecar(tmp_path):
    (tmp_path / "run.csv").write_text("\ufeff" + FULL + "\n")  # a BOM and an empty line
    (tmp_path / "run.json").write_text('{"budget": 9, "chance": 0.5, "seed": 3}')
    run = read_run(tmp_path / "run.csv")
    assert (run.name, run.settings, run.notes) == ("run", {"budget": 9, "chance": 0.5}, {"seed": 3})
    assert list(run.rows()) == [
        (1, {"train_loss": 0.5}),
        (2, {"train_loss": 0.25, "val_loss": 0.75, "notes_of_mine": 3.0}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"run\.csv:1: no column 'step'; found none"),
        ("train_loss\n1\n", r"run\.csv:1: no column 'step'; found train_loss\. Name it: --map"),
        ("step,a,a\n", r"run\.csv:1: a column name occurs twice"),
        ("step,a\n1,2,3\n", r"run\.csv:2: 3 cells, but the header has 2"),
        ("step,a\n1,2\n1.5,2\n", r"run\.csv:3: step should be a whole number but is '1\.5'"),
        ("step,a\n1,2\n,2\n", r"run\.csv:3: step is missing"),
        ("step,a\n1,2\nnan,2\n", r"run\.csv:3: step must lie in 0\.\."),
        ("step,a\n1,2\nten,2\n", r"run\.csv:3: step should be a whole number but is 'ten'"),
        ("step,a\n-1,2\n", r"run\.csv:2: step must lie in 0\.\."),
        (f"step,a\n{10**30},2\n", r"run\.csv:2: step must lie in 0\.\."),
        ("step,val_loss\n1,2\n2,high\n", r"run\.csv:3: val_loss should be a number but is 'high'"),
        ('step,loss\n1,"2\n3"\n4,x"\n', r"run\.csv:3: loss should be a number"),
        ('step,loss\n1,"2"3\n', r"run\.csv:2: ',' expected"),
        ("step,a\n1," + "9" * 200_000, r"run\.csv:2: a cell holds a text of more than 131,072"),
        ('step,loss\n1,"2\n3,4\n', r"run\.csv:3: a cell begins with a quote but none ends it"),
        ("step,loss\n1,1_0\n", r"run\.csv:2: loss should be a number but is '1_0'"),
    ],
)
def test_csv_errors_name_file_and_line(tmp_path, text, message):
    (tmp_path / "run.csv").write_text(text)
    with pytest.raises(RecordError, match=message):
        read_run(tmp_path / "run.csv")


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000])
def test_a_broken_sidecar_is_named(tmp_path, text):
    (tmp_path / "run.csv").write_text(FULL)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RecordError, match=r"run\.json(:1)?: (not JSON|must hold one object)"):
        read_run(tmp_path / "run.csv")


def test_lines_that_end_in_a_lone_carriage_return(tmp_path):
    (tmp_path / "run.csv").write_bytes(b"step,loss\r1,2\r")
    with pytest.raises(RecordError, match=r"run\.csv:1: a line ends in a lone carriage return"):
        read_run(tmp_path / "run.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"budget": "many"}', "budget must be a whole number .* but got 'many'"),
        ('{"budget": 9, "chance": 7}', r"chance must lie in 0\.\.1 but got 7"),
    ],
)
def test_settings_that_cannot_be_are_blamed_on_the_run(tmp_path, text, message):
    (tmp_path / "run.csv").write_text(FULL)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RecordError, match=rf"run\.csv: its settings cannot be: {message}"):
        grokwatch.replay(tmp_path / "run.csv")


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run.csv")
    with pytest.raises(RecordError, match=r"run\.csv: neither a file nor a folder"):
        read_run(tmp_path / "run.csv")


def test_files_that_are_none(tmp_path):
    (tmp_path / "run.parquet").write_bytes(b"PAR1")
    (tmp_path / "bin.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("none.csv", "no such file"),
        ("empty", "no recorded run in this folder"),
        ("run.parquet", "cannot read .parquet"),
        ("bin.csv", "not a text file"),
    ):
        with pytest.raises(RecordError, match=message):
            read_run(tmp_path / name)


finite = st.floats(width=32, allow_nan=True, allow_infinity=True)
columns = st.dictionaries(
    st.sampled_from(["train_loss", "val_loss", "val_margin", "my_signal"]),
    st.dictionaries(st.integers(0, 2**40), finite, max_size=30),
)


@given(columns)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=60,
    deadline=None,
)
def test_csv_round_trip_is_exact(tmp_path, drawn):
    run = Run(
        {
            name: (np.array(sorted(c), dtype=int), [c[step] for step in sorted(c)])
            for name, c in drawn.items()
            if c
        },
        {"budget": 7},
        notes={"seed": 1},
    )
    write_csv(run, tmp_path / "r.csv")
    again = read_run(tmp_path / "r.csv")
    assert same(run, again)
    assert (again.settings, again.notes) == (run.settings, run.notes)


# -- JSONL ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"r\.jsonl:1: empty"),
        ('{"type":"run"', r"r\.jsonl:1: not a line"),
        ("hello\nworld\n", r"r\.jsonl:1: not a line"),
        ('{"type":"other"}\n', r"r\.jsonl:1: a record begins with"),
        ('{"type":"run","format":2,"settings":{}}\n', r"r\.jsonl:1: format 2; known: 1"),
        ('{"type":"run","format":1}\n', r"r\.jsonl:1: a broken run line"),
        (JSONL + "[1,2]\n" + observations(a=([1], [1])), r"r\.jsonl:2: not a line"),
        (JSONL + "[" * 100_000 + "\n" + JSONL, r"r\.jsonl:2: not a line"),
        (JSONL + observations(a=([2, 1], [0, 0])), r":2: .*step 1 comes after step 2"),
        (JSONL + observations(a=([2], [0])) * 2, r":3: .*step 2 comes after step 2"),
        (JSONL + observations(a=([1], [0, 0])), r":2: .*1 steps and 2 values"),
        (JSONL + observations(a=([1.5], [0])), r":2: a broken observations line"),
        (JSONL + observations(a=([2**70], [0])), r":2: a broken observations line"),
        (JSONL + observations(a=([1], ["high"])), r":2: a broken observations line"),
        (JSONL + observations(a=({"from": 1, "every": 0, "count": 1}, [0])), ":2: a broken"),
        (JSONL + observations(a=({"from": 1, "every": 1, "count": 10**12}, [0])), ":2: a broken"),
        (JSONL + '{"type":"resumed","step":"x"}\n', ":2: a broken resumed line"),
    ],
)
def test_jsonl_errors_name_file_and_line(tmp_path, text, message):
    (tmp_path / "r.jsonl").write_text(text)
    with pytest.raises(RecordError, match=message):
        read_run(tmp_path / "r.jsonl")


def test_lines_of_a_later_kind_are_skipped(tmp_path):
    (tmp_path / "r.jsonl").write_text(
        JSONL + '{"type":"verdict","phase":"x"}\n\n{"type":"new"}\n' + observations(a=([3], [1]))
    )
    run = read_run(tmp_path / "r.jsonl")
    assert (run.last_step, run.settings, run.notes) == (3, {"budget": 9}, {"seed": 3})


def test_a_torn_line_counts_only_where_a_crash_leaves_one(tmp_path):
    whole, torn = observations(a=([1, 2], [1, 2])), observations(a=([3], [3]))[:30]
    path = tmp_path / "r.jsonl"
    path.write_text(JSONL + whole + torn)
    assert read_run(path).last_step == 2
    path.write_text(
        JSONL + whole + torn + '\n{"type":"resumed","step":1}\n' + observations(a=([2], [9]))
    )
    assert list(read_run(path).rows()) == [(1, {"a": 1.0}), (2, {"a": 9.0})]
    path.write_text(JSONL + whole + torn + "\n" + observations(a=([4], [9])))
    with pytest.raises(RecordError, match=r"r\.jsonl:3: not a line"):
        read_run(path)


@given(st.binary(max_size=300))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=150,
    deadline=None,
)
def test_any_bytes_are_read_or_refused(tmp_path, noise):
    for name in ("fuzz.jsonl", "fuzz.csv"):
        for head in (b"", JSONL.encode() if name.endswith("l") else b"step,a\n1,2\n"):
            (tmp_path / name).write_bytes(head + noise)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # something was repaired
                    read_run(tmp_path / name)
            except RecordError as error:
                assert name in str(error)
