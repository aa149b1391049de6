"""Arbitrary measurements and files: a small share of what benchmarks/fuzz*.py have gone through."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import grokwatch
from benchmarks.fuzz import example
from benchmarks.fuzz_readers import FORMATS, SAMPLES, Reader, mutated, seeds
from grokwatch import Monitor
from grokwatch.ingest import LAST_STEP, check_measurement, check_step
from grokwatch.records import RecordError, read_runs


@given(st.integers(0, 2**32), st.integers(0, 2**32))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_any_stream_through_monitor_and_watch(seed, number):
    """Every eighth number is a watch's; a failure is repeated with --seed and --only."""
    example(seed, number)


def test_an_example_is_always_the_same():
    assert [example(5, n) for n in range(24)] == [example(5, n) for n in range(24)]


@pytest.mark.parametrize("format", FORMATS)
def test_any_file_is_read_or_refused(tmp_path, format):
    reader, r = Reader(tmp_path), random.Random(format)
    number = FORMATS.index(format)
    pool = [data for data in seeds() if data[0] == number]
    for data in pool:
        reader(data)
    assert reader.read > 0
    for _ in range(60):
        reader(bytes([number]) + mutated(r, pool)[1:])
    assert reader.refused > 5


@pytest.mark.parametrize("format", FORMATS)
def test_the_samples_are_what_they_are_called(tmp_path, format):
    name, content = SAMPLES[format]
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # some are cut off, on purpose
        assert read_runs(tmp_path / name)[0].source["format"] == format


# -- what the fuzzers found ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [np.complex64(1.0), np.array(1j), torch.tensor(1.0 + 0.0j), np.array("0.5")], ids=repr
)
def test_what_python_would_make_a_number_of(value):
    with pytest.raises(TypeError, match="train_loss must be one real number"):
        check_measurement("train_loss", value)


def test_an_object_that_breaks_when_it_is_looked_at():
    class Broken:
        def _no(self, *_):
            raise ZeroDivisionError

        __float__ = __index__ = __repr__ = _no

    with pytest.raises(TypeError, match="train_loss must be one real number, but got a Broken"):
        check_measurement("train_loss", Broken())
    with pytest.raises(TypeError, match=r"step must be an integer.*got a Broken"):
        check_step(Broken())


@pytest.mark.parametrize("step", [10**5000, -(10**5000)], ids=["above", "below"])
def test_a_step_of_more_digits_than_python_prints(step):
    with pytest.raises(ValueError, match=r"but got an? int"):
        check_step(step)


@pytest.mark.filterwarnings("ignore:grokwatch")
def test_a_step_beyond_the_last_is_not_remembered():
    with grokwatch.watch(torch.nn.Linear(1, 1), budget=100) as watch:
        watch.train(0.5, step=LAST_STEP)
        watch.train(0.25)  # its own count goes on, too far
        watch.train(0.75, step=LAST_STEP)  # contradicts the first, which counts
        watch.flush()
        assert watch._outlet.works("judging")
        assert watch.verdict.signals["train_loss"] == 0.5


def test_errors_stay_short():
    with pytest.raises(TypeError) as told:
        check_measurement("train_loss", "x" * 10**6)
    assert len(str(told.value)) < 200


def test_a_learning_rate_without_end():
    """It could not have been written to a record."""
    with pytest.raises(ValueError, match="learning_rate cannot be infinite"):
        Monitor(budget=9, learning_rate=float("inf"))
    with pytest.raises(ValueError, match="weight_decay cannot be infinite"):
        grokwatch.watch(torch.nn.Linear(1, 1), budget=9, weight_decay=float("inf"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"\r\n1,2\n3,4\n"),  # a header of nothing
        ("a.csv", b"x" * 5000 + b"," + b"y" * 5000 + b"\n1,2\n"),
        ("a.jsonl", b'{"step": 1, "loss": ' + b"1" * 400 + b"}\n"),
        ("a.jsonl", 600 * b'{"a":' + b"1" + 600 * b"}" + b"\n"),
        ("a.jsonl", b'{"step": ' + 500 * b"[" + 500 * b"]" + b"}\n"),
        ("trainer_state.json", b'{"log_history": [{"step": 1, "loss": ' + b"1" * 400 + b"}]}"),
    ],
)
def test_files_that_broke_a_reader(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    try:
        runs = read_runs(tmp_path / name)
    except RecordError as error:
        assert len(str(error)) < 2000
    else:
        assert runs[0].columns["train_loss"][1].tolist() == [float("inf")]
