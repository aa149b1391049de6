"""Curvature beside DistributedDataParallel, in two real processes."""

from __future__ import annotations

import numpy as np
import pytest

from grokwatch.records import read_run
from tests import curvature_ddp
from tests.test_distributed import launch


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return folder, launch([curvature_ddp.__file__], folder)


@pytest.mark.parametrize("kind", ["batch", "caught"])
def test_both_ranks_are_trained_to_the_same_bits_and_stop_in_step(ranks, kind):
    for seen in ranks[1]:
        assert seen[kind]["bits"] == seen["off"]["bits"]
        assert seen[kind]["stopped"] == seen["off"]["stopped"] is not None
        assert seen[kind]["recommendation"] == "stop_generalised"
    first, second = ranks[1]
    assert first["off"]["stopped"] == second["off"]["stopped"]
    assert first["off"]["bits"] != second["off"]["bits"]  # each has statistics of its own


@pytest.mark.parametrize("kind", ["batch", "caught"])
def test_the_first_rank_alone_measures(ranks, kind):
    folder, (first, second) = ranks
    run = read_run(folder / kind / "grokwatch.jsonl")
    steps, values = run.columns["hessian_max"]
    assert len(steps) >= first[kind]["stopped"] // 3 - 1 and (values > 0).all()
    assert np.float32(first[kind]["hessian_max"]) in values.astype(np.float32)
    assert not second["caught"]["batch"]  # what it never needs it does not keep
    assert "hessian_max" not in read_run(folder / "off" / "grokwatch.jsonl").columns
