"""examples/power_tasks.py: pairs, groups, tables from files and lists as sequences of tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from groups import inverses, symmetric_group
from power_claims import mirror_share
from power_model import Equations
from power_tasks import GROUPS, LISTS, NAMES, task
from tasks import split


def table_of(equations: Equations, n: int) -> np.ndarray:
    """What a∘b is, read off the tokens."""
    rows = equations.whole().rest.numpy()
    table = np.full((n, n), -1)
    table[rows[:, 1], rows[:, 3]] = equations.answers[:, 0]
    return table


@pytest.mark.parametrize("name", GROUPS)
def test_groups_are_groups_of_order_near_97(name: str) -> None:
    table = GROUPS[name]()
    n = len(table)
    assert n in (96, 98)
    assert (np.sort(table, axis=0) == np.arange(n)[:, None]).all()
    assert (table[np.arange(n), inverses(table)] == table[0, 0]).all()  # element 0 is the identity
    a, b, c = np.random.default_rng(0).integers(n, size=(3, 5000))
    assert (table[table[a, b], c] == table[a, table[b, c]]).all()
    assert (task(name).mirror is not None) == (name == "z7xz14")
    assert (table_of(task(name).equations, n) == table).all()


def test_any_table_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "s4.csv"
    np.savetxt(path, symmetric_group(4), fmt="%d", delimiter=",")
    what = task("ignored", cayley=path)
    assert (table_of(what.equations, 24) == symmetric_group(4)).all()
    assert what.chance == 1 / 24 and what.mirror is None
    path.write_text("0,1\n1,2\n")
    with pytest.raises(ValueError, match=r"only the elements 0\.\.1"):
        task("ignored", cayley=path)


@pytest.mark.parametrize("name", LISTS)
def test_lists(name: str) -> None:
    what = task(name, 31)
    eos, op, *symbols = what.equations.whole().rest[100].tolist()
    three, equals, given = symbols[:3], symbols[3], symbols[4:]
    assert (eos, op, equals) == (11, 12, 13) and len(set(three)) == 3
    right = {"copy": three, "reverse": three[::-1], "sort": sorted(three)}[name]
    assert what.equations.answers[100].tolist() == right
    assert given == right[:-1]  # the last one is asked for, never shown
    assert what.chance == pytest.approx(11**-3)


def test_every_operator_has_equations_and_an_unknown_one_is_named() -> None:
    for name in NAMES:
        what = task(name, 7)
        assert 0 <= int(what.equations.answers.min())
        assert int(what.equations.answers.max()) < what.n_symbols
    with pytest.raises(ValueError, match=r"operator must be one of .* but got 'plus'"):
        task("plus")


def test_mirror_images() -> None:
    for name in ("+", "*", "x^2+y^2", "x^2+y^2+xy"):
        what = task(name, 13)
        assert what.mirror is not None
        assert (what.mirror[what.mirror] == np.arange(169)).all()
    assert all(task(name, 13).mirror is None for name in ("-", "/", "x^3+xy", "mix", "s3", "sort"))
    what = task("+", 5)
    assert what.mirror is not None
    _, val = split(25, 0.4, 3)
    train_set = set(range(25)) - set(val.tolist())
    counted = np.mean([int(what.mirror[i]) in train_set for i in val])
    assert mirror_share(what, 0.4, 3) == pytest.approx(counted)
