"""The tasks of Power et al. 2022 and Arn 2023 as sequences of tokens: pairs, groups, lists.

A pair is `<eos> a op b = c`, a list `<eos> op x y z = u v w`. Symbols are numbered from 0; the
three signs follow. The closing <eos> of the paper's sequences is left out: it is always the same,
so it is learnt at once and then only halves the loss that is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from groups import Array, dihedral_group, symmetric_group
from power_model import Equations
from tasks import OPERATORS, equations, from_cayley_csv

LIST_LENGTH = 3
LISTS: dict[str, Callable[[Array], Array]] = {
    "copy": lambda rows: rows,
    "reverse": lambda rows: rows[:, ::-1],
    "sort": lambda rows: np.sort(rows, axis=1),
}


class Task(NamedTuple):
    """All equations of an operation.

    Attributes:
        equations: of n sequences.
        n_symbols: different operands.
        mirror: index of b∘a for each a∘b if the operation is commutative, otherwise None.
    """

    equations: Equations
    n_symbols: int
    mirror: Array | None

    @property
    def n_tokens(self) -> int:
        """Symbols and the signs <eos>, operator, equals."""
        return self.n_symbols + 3

    @property
    def chance(self) -> float:
        """Share of right answers from guessing each symbol."""
        return float(1 / self.n_symbols ** self.equations.answers.shape[1])


def cyclic_group(order: int) -> Array:
    """Cayley table of the integers mod ``order``.

    >>> cyclic_group(3).tolist()
    [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    """
    a = np.arange(order, dtype=np.int64)
    return (a[:, None] + a) % order


def product_group(left: Array, right: Array) -> Array:
    """Cayley table of the direct product of two groups; (a, b) has the number a·|right| + b.

    >>> product_group(cyclic_group(2), cyclic_group(2)).tolist()
    [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
    """
    n = len(right)
    a, b = np.divmod(np.arange(len(left) * n), n)
    return left[a[:, None], a] * n + right[b[:, None], b]


GROUPS: dict[str, Callable[[], Array]] = {  # of order near 97, as those of Arn 2023
    "d48": lambda: dihedral_group(48),
    "s4xz4": lambda: product_group(symmetric_group(4), cyclic_group(4)),
    "z7xz14": lambda: product_group(cyclic_group(7), cyclic_group(14)),
}
NAMES = (*OPERATORS, *GROUPS, *LISTS)


def task(operator: str, p: int = 97, cayley: Path | None = None) -> Task:
    """All equations of one operation.

    Args:
        operator: one of ``NAMES``: arithmetic mod p, S5 and its variants, a group of order near 97
            (dihedral, S4 x Z4, Z7 x Z14), or an operation on lists of three different symbols.
        p: modulus; for lists, about p² of them are made. The groups have their own size.
        cayley: CSV file of the table of any operation, instead of ``operator``.

    Raises:
        ValueError: if the operator is unknown, p does not suit it, or the file holds no table.

    >>> task("/").equations.answers.shape, task("+", 7).mirror is not None
    (torch.Size([9312, 1]), True)
    >>> [len(task(name, 31).equations.which) for name in ("d48", "s4xz4", "z7xz14", "sort")]
    [9216, 9216, 9604, 990]
    """
    if cayley is not None:
        return _of_pairs(*from_cayley_csv(cayley))
    if operator in GROUPS:
        table = GROUPS[operator]()
        pairs = np.indices(table.shape, dtype=np.int64).reshape(2, -1).T
        return _of_pairs(np.ascontiguousarray(pairs), table.reshape(-1), len(table))
    if operator in LISTS:
        return _of_lists(LISTS[operator], p)
    if operator not in OPERATORS:
        raise ValueError(f"operator must be one of {', '.join(NAMES)} but got {operator!r}.")
    return _of_pairs(*equations(operator, p))


def _of_pairs(pairs: Array, answers: Array, n: int) -> Task:
    eos, op, equals = n, n + 1, n + 2
    a, b = torch.from_numpy(pairs).unbind(1)
    known = torch.arange(n)
    prefixes = torch.stack([torch.full_like(known, eos), known, torch.full_like(known, op)], dim=1)
    rest = torch.stack([b, torch.full_like(b, equals)], dim=1)
    found = Equations(prefixes, a, rest, torch.from_numpy(answers)[:, None])
    return Task(found, n, _mirror(pairs, answers, n))


def _mirror(pairs: Array, answers: Array, n: int) -> Array | None:
    """Where b∘a stands; None unless it is always there and equal."""
    place = np.full((n, n), -1)
    place[pairs[:, 0], pairs[:, 1]] = np.arange(len(pairs))
    mirror: Array = place[pairs[:, 1], pairs[:, 0]]
    return mirror if (mirror >= 0).all() and (answers[mirror] == answers).all() else None


def _of_lists(operation: Callable[[Array], Array], p: int) -> Task:
    n = LIST_LENGTH
    while n * (n - 1) * (n - 2) < p * p:
        n += 1
    rows = np.array(list(permutations(range(n), LIST_LENGTH)), dtype=np.int64)
    answers = torch.from_numpy(operation(rows).copy())
    equals = torch.full((len(rows), 1), n + 2)
    rest = torch.cat([torch.from_numpy(rows), equals, answers[:, :-1]], dim=1)
    return Task(
        Equations(
            torch.tensor([[n, n + 1]]), torch.zeros(len(rows), dtype=torch.int64), rest, answers
        ),
        n,
        None,
    )
