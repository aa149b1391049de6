"""CSV and JSON lines from anywhere: names, repairs, errors, and numbers that are float(text)."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from grokwatch import replay
from grokwatch._readers.names import ALIASES, guess, guess_step, plain
from grokwatch._readers.plain_cells import parse_plain
from grokwatch._readers.table import read_table
from grokwatch.records import RecordError, read_run

GROK = (
    "batches_per_epoch,epoch,full_train_acc,full_train_loss,fwd_time_in_epoch,learning_rate,"
    "len_train_ds,len_val_ds,step,time_per_epoch,train_accuracy,train_loss,train_perplexity,"
    "val_accuracy,val_loss,val_perplexity\n"
    ",0,1.5,4.6,,,,,8,,,,,1.0,4.7,109.9\n"
    "9.0,0,,,0.1,0.0009,4704.0,4705.0,8,0.2,1.25,4.65,104.6,,,\n"
    ",1,40.0,2.0,,,,,17,,,,,1.5,5.7,298.9\n"
    "9.0,1,,,0.1,0.001,4704.0,4705.0,17,0.2,39.5,2.1,8.2,,,\n"
)
HPARAMS = (
    "max_lr: 0.001\nmax_steps: 100000\nweight_decay: 1\ntrain_data_pct: 50.0\nmath_operator: +\n"
)


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def rows(run):
    return list(run.rows())


# -- numbers -------------------------------------------------------------------------------------

numbers = st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.sampled_from(
    [
        "0",
        "-0.0",
        "1e5",
        "1E-05",
        "5.",
        ".5",
        "-.5",
        "1e+10",
        "4.9e-324",
        "1e400",
        "0.1",
        "123456789",
    ]
)


def all_known(filled, found):
    return (np.full(found.shape, True) if filled is None else filled), found


@given(st.lists(st.lists(numbers | st.just(""), min_size=3, max_size=3), min_size=1, max_size=30))
@settings(deadline=None)
def test_the_fast_way_reads_what_float_reads(cells):
    chunk = "".join(",".join(row) + "\n" for row in cells).encode()
    found = parse_plain(chunk, 3)
    if found is None:  # all cells of all rows may be empty
        assert not any(cell for row in cells for cell in row)
        return
    filled, got = all_known(*found)
    assert filled.tolist() == [[bool(cell) for cell in row] for row in cells]
    want = [[float(cell) if cell else math.nan for cell in row] for row in cells]
    assert np.array_equal(got, np.array(want), equal_nan=True)
    assert np.array_equal(np.signbit(got[filled]), np.signbit(np.array(want)[filled]))


@given(st.text(alphabet="0123456789.-+eE,\n", max_size=14), st.integers(1, 2))
@settings(deadline=None, max_examples=400)
def test_the_fast_way_takes_nothing_that_float_refuses(text, width):
    found = parse_plain(text.encode() + b"\n", width)
    if found is not None:
        lines = [line.split(",") for line in text.split("\n")]
        assert all(len(line) == width for line in lines)
        want = [[float(cell) if cell else None for cell in line] for line in lines]
        got = [
            [float(v) if f else None for v, f in zip(values, filled, strict=True)]
            for filled, values in zip(*all_known(*found), strict=True)
        ]
        assert got == want


def test_the_fast_way_takes_no_letter_for_a_mark():
    assert parse_plain(b"1\xac\n,2\n", 2) is None  # a comma with the bit that marks a gap
    assert parse_plain(b"1,\n,\x8a", 2) is None


def test_a_long_file_with_every_kind_of_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr("grokwatch._readers.table.CHUNK", 1000)
    lines = [f"{n},{1 / n!r},{'' if n % 7 else n / 9!r}" for n in range(1, 2001)]
    lines[500] = "501,nan,"
    lines[900] = "901, 0.5 ,inf"
    lines[1200] = '1201,"0.25",'
    lines[1500] = ""
    path = write(tmp_path, "r.csv", "step,loss,mine\r\n" + "\r\n".join(lines) + "\r\n")
    table = read_table(path)
    want = {n: 1 / n for n in range(1, 2001)} | {901: 0.5, 1201: 0.25}
    del want[1501]
    steps = table.columns["step"].values
    got = dict(zip(steps.tolist(), table.columns["loss"].values.tolist(), strict=True))
    assert math.isnan(got.pop(501)) and got == {k: v for k, v in want.items() if k != 501}
    assert dict(zip(steps.tolist(), table.lines.tolist(), strict=True)) == {
        n: n + 1 for n in range(1, 2001) if n != 1501
    }
    assert len(table.columns["mine"].values) == 2000 // 7 + 1


def test_files_read_at_once_leave_the_parser_its_threads(tmp_path, monkeypatch):
    monkeypatch.setattr("grokwatch._readers.table.CHUNK", 1000)
    path = write(
        tmp_path, "r.csv", "step,loss\n" + "".join(f"{n},{1 / n!r}\n" for n in range(1, 500))
    )
    read_table(path)

    def threads():
        return [part["num_threads"] for part in threadpool_info() if part["user_api"] == "scipy"]

    before = threads()
    with ThreadPoolExecutor(8) as pool:
        tables = [*pool.map(read_table, [path] * 40)]
    assert threads() == before and len(before) == 1
    assert all(table.columns["loss"].values[-1] == 1 / 499 for table in tables)


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "want"),
    [
        (["loss", "acc"], {"train_loss": "loss", "train_accuracy": "acc"}),
        (["train/loss", "loss"], {"train_loss": "train/loss"}),
        (["loss/train", "loss/val"], {"train_loss": "loss/train", "val_loss": "loss/val"}),
        (["Test Accuracy", "valid_acc"], {"val_accuracy": "valid_acc"}),
        (["train_loss_epoch", "train_loss_step"], {"train_loss": "train_loss_step"}),
        (["eval_loss", "lr-AdamW"], {"val_loss": "eval_loss", "learning_rate": "lr-AdamW"}),
        (["grad_2.0_norm_total"], {"grad_norm": "grad_2.0_norm_total"}),
        (["perplexity", "closs"], {}),
    ],
)
def test_guesses(header, want):
    assert guess(header, {}) == want


def test_no_name_means_two_things():
    names = [alias for aliases in ALIASES.values() for alias in aliases]
    assert len(names) == len(set(names))
    assert all(plain(name) == name for name in names)


def test_the_steps_name():
    assert guess_step(["epoch", "Global Step"], {}) == "Global Step"
    assert guess_step(["_step", "train/global_step"], {}) == "train/global_step"
    assert guess_step(["epoch", "loss"], {}) is None
    assert guess_step(["step", "n"], {"step": "n"}) == "n"


def test_names_can_be_mapped(tmp_path):
    path = write(tmp_path, "r.csv", "n,valid/nll,loss,spectral\n3,0.5,2,7\n")
    with pytest.raises(RecordError, match=r"r\.csv:1: no column 'step'; found n, valid/nll, loss"):
        read_run(path)
    run = read_run(path, names={"step": "n", "val_loss": "valid/nll", "mine": "spectral"})
    assert rows(run) == [(3, {"train_loss": 2.0, "val_loss": 0.5, "mine": 7.0})]
    assert run.source["names"] == {
        "train_loss": "loss",
        "val_loss": "valid/nll",
        "mine": "spectral",
    }
    with pytest.raises(RecordError, match=r"--map val_loss=nll: there is no column 'nll'"):
        read_run(path, names={"step": "n", "val_loss": "nll"})
    with pytest.raises(RecordError, match=r"no column 'k' \(--map step=k\)"):
        read_run(path, names={"step": "k"})
    with pytest.raises(RecordError, match=r"'val/loss' is no measurement; known: step, train_loss"):
        read_run(path, names={"val/loss": "valid/nll"})


def test_columns_that_say_nothing(tmp_path):
    path = write(tmp_path, "r.csv", "step,colour\n3,0.5\n")
    with pytest.raises(RecordError, match=r"none of its columns is a measurement .*: colour\. "):
        replay(path, budget=9)


# -- repairs -------------------------------------------------------------------------------------


def test_steps_out_of_order_are_sorted_with_one_warning(tmp_path):
    path = write(tmp_path, "r.csv", "step,loss,val_loss\n5,5,\n3,3,1\n5,9,\n4,4,\n3,,1\n")
    with pytest.warns(UserWarning) as told:
        run = read_run(path)
    assert len(told) == 1
    assert "r.csv:3: steps go back (column 'loss'); they are sorted" in str(told[0].message)
    assert "1 value was logged again for the same step; the last counts" in str(told[0].message)
    assert rows(run) == [
        (3, {"train_loss": 3.0, "val_loss": 1.0}),
        (4, {"train_loss": 4.0}),
        (5, {"train_loss": 9.0}),
    ]


def test_rows_of_one_step_are_merged_in_silence(tmp_path):
    path = write(tmp_path, "r.csv", "step,loss,val_loss\n1,5,\n1,,2\n1,5,2\n1,nan,\n")
    with pytest.warns(UserWarning, match="1 value was logged again"):
        read_run(path)
    path.write_text("step,loss,val_loss\n1,5,\n1,,2\n1,5,2\n2,nan,\n2,nan,\n")
    run = read_run(path)
    assert [step for step, _ in rows(run)] == [1, 2]


def test_text_where_no_number_is_wanted_is_left_out(tmp_path):
    path = write(tmp_path, "r.csv", "step,loss,note\n1,5,\n2,4,warm up\n3,3,1\n")
    with pytest.warns(UserWarning, match=r"r\.csv:3: column 'note' holds text \('warm up'\)"):
        run = read_run(path)
    assert list(run.columns) == ["train_loss"]


def test_a_last_line_that_a_crash_tore(tmp_path):
    path = write(tmp_path, "r.csv", "step,loss,val_loss\n1,5,\n2,4,1\n3,")
    with pytest.warns(UserWarning, match=r"r\.csv:4: the last line is cut off and left out"):
        assert read_run(path).last_step == 2
    assert read_run(path, growing=True).last_step == 2
    path.write_text("step,loss,val_loss\n1,5,\n2,4,1")  # whole, only without its end
    assert read_run(path).last_step == 2
    assert read_run(path, growing=True).last_step == 1


def test_tabs_and_semicolons(tmp_path):
    for mark in ("\t", ";"):
        path = write(tmp_path, "r.csv", "step,loss\n1,5\n2,4.5\n".replace(",", mark))
        assert rows(read_run(path)) == [(1, {"train_loss": 5.0}), (2, {"train_loss": 4.5})]


# -- CSV of others -------------------------------------------------------------------------------


def test_openai_grok_by_its_documented_columns(tmp_path):
    for version, text in ((0, "step,epoch,val_perplexity\n"), (2, GROK), (10, GROK)):
        write(tmp_path, f"logs/default/version_{version}/metrics.csv", text)
    write(tmp_path, "logs/default/version_10/hparams.yaml", HPARAMS)
    run = read_run(tmp_path / "logs")
    assert run.source["format"] == "grok" and run.name == "default/version_10"
    assert run.settings == {
        "budget": 100_000,
        "learning_rate": 0.001,
        "weight_decay": 1.0,
        "train_fraction": 0.5,
    }
    assert [step for step, _ in rows(run)] == [8, 17]
    row = {n: v for n, v in rows(run)[1][1].items() if n in ("train_accuracy", "val_accuracy")}
    assert row == {
        n: float(np.float32(v)) for n, v in (("train_accuracy", 0.395), ("val_accuracy", 0.015))
    }
    assert run.columns["full_train_acc"][1][1] == np.float32(0.4)
    assert replay(run).final.step == 17


# -- JSON lines ----------------------------------------------------------------------------------


def test_one_object_a_step(tmp_path):
    lines = [
        {"iteration": 1, "train": {"loss": 2.5}, "tag": "a"},
        {"iteration": 2, "train": {"loss": "NaN"}, "eval": {"acc": 0.5}},
    ]
    path = write(tmp_path, "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    run = read_run(path)
    assert run.source == {
        "format": "rows",
        "names": {"train_loss": "train/loss", "val_accuracy": "eval/acc"},
        "basis": [],
    }
    assert rows(run)[0] == (1, {"train_loss": 2.5})
    assert math.isnan(rows(run)[1][1]["train_loss"])
    path.write_text(path.read_text() + '{"iteration": 3, "tr')
    with pytest.warns(UserWarning, match=r"log\.jsonl:3: the last line is cut off"):
        assert read_run(path).last_step == 2
    assert read_run(path, growing=True).last_step == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"step": 1, "loss": "high"}\n', ":1: loss should be a number but is 'high'"),
        ('{"step": 1, "loss": [1]}\n', r":1: loss should be a number but is \[1\]"),
        ('{"step": 1, "loss": 1}\n{"loss": 1}\n', ":2: step should be a whole number"),
        ('{"step": 1.5, "loss": 1}\n', ":1: step should be a whole number"),
        ('{"loss": 1}\n', ":1: no 'step'; found loss. Name it: --map step=NAME"),
        ('{"step": 1, "loss": 1}\n{"st\n{"step": 2, "loss": 1}\n', ":2: not a JSON object"),
        ('{"step": 1, "loss": 1}\n[1]\n{"step": 2, "loss": 1}\n', ":2: not a JSON object"),
    ],
)
def test_json_lines_that_are_broken(tmp_path, text, message):
    with pytest.raises(RecordError, match=message):
        read_run(write(tmp_path, "log.jsonl", text))
