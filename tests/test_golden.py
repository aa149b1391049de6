"""Recorded real runs: every verdict change at its exact step (made by tests/golden/record.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.record import RUNS, expected

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", list(RUNS))
def test_every_verdict_change_comes_at_its_step(name: str) -> None:
    want = json.loads((GOLDEN / f"{name}.expected.json").read_text())
    assert expected(GOLDEN / f"{name}.jsonl") == want


def test_golden_runs_are_what_their_names_say() -> None:
    final = {name: expected(GOLDEN / f"{name}.jsonl")[-1] for name in RUNS}
    assert final["grokker"][1] == "generalised"
    assert final["never"][1] == "memorisation"
    assert final["immediate"][1] == "generalised"
    assert final["slingshot"][3] >= 3
