"""The algorithmic tasks of the grokking papers: equations a∘b = c, and a parity hidden among bits.

Operators and sizes follow Power et al. 2022 (arXiv:2201.02177); the hidden parity follows
Miller et al. 2024 (arXiv:2310.17247). Only numpy is needed, so any trainer can build on this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from groups import (
    Array,
    conjugation_table,
    dihedral_group,
    from_cayley_csv,
    sandwich_table,
    symmetric_group,
)

__all__ = ["OPERATORS", "Operator", "concealed_parity", "equations", "from_cayley_csv", "split"]


@dataclass(frozen=True)
class Operator:
    """One binary operator on elements numbered from 0.

    Attributes:
        symbol: Its key in `OPERATORS`.
        apply: `apply(a, b, p)` on integer arrays; for arithmetic the answer is later taken mod p.
        n_elements: `n_elements(p)`, the number of operands and of classes.
        needs_prime: Whether p must be prime, because the operator divides.
        skips_zero: Whether the equations with b = 0 are left out.
    """

    symbol: str
    apply: Callable[[Array, Array, int], Array]
    n_elements: Callable[[int], int] = lambda p: p
    needs_prime: bool = False
    skips_zero: bool = False


def _divide(a: Array, b: Array, p: int) -> Array:
    inverse = np.array([0] + [pow(x, -1, p) for x in range(1, p)], dtype=np.int64)
    return a * inverse[b]


def _mix(a: Array, b: Array, p: int) -> Array:
    return np.where(b % 2 == 1, _divide(a, b, p), a - b)


def _from_table(symbol: str, table: Callable[[int], Array], degree: int | None = None) -> Operator:
    """Make an operator of a family of Cayley tables; the degree, if not fixed, is p."""
    return Operator(
        symbol,
        apply=lambda a, b, p: table(degree or p)[a, b],
        n_elements=lambda p: len(table(degree or p)),
    )


_ARITHMETIC = [
    Operator("+", lambda a, b, p: a + b),
    Operator("-", lambda a, b, p: a - b),
    Operator("*", lambda a, b, p: a * b),
    Operator("/", _divide, needs_prime=True, skips_zero=True),
    Operator("a^2+b", lambda a, b, p: a**2 + b),
    Operator("a^3+b", lambda a, b, p: a**3 + b),
    Operator("x^2+y^2", lambda x, y, p: x**2 + y**2),
    Operator("x^2+y^2+xy", lambda x, y, p: x**2 + y**2 + x * y),
    Operator("x^2+y^2+xy+x", lambda x, y, p: x**2 + y**2 + x * y + x),
    Operator("x^3+xy", lambda x, y, p: x**3 + x * y),
    Operator("x^3+xy^2+y", lambda x, y, p: x**3 + x * y**2 + y),
    Operator("mix", _mix, needs_prime=True),
]

_GROUPS = [_from_table("dihedral", dihedral_group)]
for _degree in (3, 4, 5):
    _GROUPS += [
        _from_table(f"s{_degree}", symmetric_group, _degree),
        _from_table(
            f"s{_degree}_conjugate", lambda n: conjugation_table(symmetric_group(n)), _degree
        ),
        _from_table(f"s{_degree}_aba", lambda n: sandwich_table(symmetric_group(n)), _degree),
    ]

OPERATORS: dict[str, Operator] = {operator.symbol: operator for operator in _ARITHMETIC + _GROUPS}


def equations(operator: str, p: int = 97) -> tuple[Array, Array, int]:
    """List every equation a∘b = c of an operator.

    Args:
        operator: A key of `OPERATORS`.
        p: The modulus of an arithmetic operator; the number of sides for "dihedral" (2p
            elements). The s3, s4 and s5 families ignore it. It should be prime, and for "/"
            and "mix" it must be.

    Returns:
        The pairs (a, b) of shape (n, 2), the answers of shape (n,), both int64, and the number
        of classes.

    Raises:
        ValueError: If the operator is unknown, p is not positive, or p is not prime where the
            operator divides.

    >>> pairs, answers, n_classes = equations("*", 7)
    >>> int(answers[(pairs == (3, 5)).all(axis=1)][0])  # 15 mod 7
    1
    >>> [len(equations(symbol, 97)[0]) for symbol in ("+", "/", "mix")]
    [9409, 9312, 9409]
    >>> len(equations("s5_conjugate")[0]), equations("s5")[2]
    (14400, 120)
    >>> equations("/", 6)
    Traceback (most recent call last):
    ValueError: operator '/' divides, so p must be prime but got 6.
    """
    if operator not in OPERATORS:
        raise ValueError(f"unknown operator {operator!r}; known are {', '.join(OPERATORS)}.")
    if p < 1:
        raise ValueError(f"p must be at least 1 but got {p}.")
    chosen = OPERATORS[operator]
    if chosen.needs_prime and not _is_prime(p):
        raise ValueError(f"operator {operator!r} divides, so p must be prime but got {p}.")
    n = chosen.n_elements(p)
    a, b = np.indices((n, n), dtype=np.int64).reshape(2, -1)
    if chosen.skips_zero:
        a, b = a[b != 0], b[b != 0]
    return np.stack([a, b], axis=1), chosen.apply(a, b, p) % n, n


def _is_prime(p: int) -> bool:
    return p >= 2 and all(p % d for d in range(2, int(p**0.5) + 1))


def concealed_parity(
    n_samples: int, k: int = 3, n_bits: int = 30, seed: int = 0
) -> tuple[Array, Array]:
    """Draw random bit strings whose label is the parity of their first k bits.

    Args:
        n_samples: Number of strings.
        k: Number of bits the label depends on.
        n_bits: Length of a string, so that n_bits - k bits are irrelevant.
        seed: Seed of the draw.

    Returns:
        The bits of shape (n_samples, n_bits) and the labels 0 or 1 of shape (n_samples,).

    Raises:
        ValueError: If k is not between 1 and n_bits, or n_samples is negative.

    >>> bits, labels = concealed_parity(4, k=2, n_bits=5, seed=0)
    >>> bool(((bits[:, 0] ^ bits[:, 1]) == labels).all())
    True
    """
    if not 1 <= k <= n_bits:
        raise ValueError(f"k must be between 1 and n_bits = {n_bits} but got {k}.")
    if n_samples < 0:
        raise ValueError(f"n_samples cannot be negative but got {n_samples}.")
    bits = np.random.default_rng(seed).integers(0, 2, size=(n_samples, n_bits), dtype=np.int64)
    return bits, bits[:, :k].sum(axis=1) % 2


def split(n: int, train_fraction: float, seed: int = 0) -> tuple[Array, Array]:
    """Split the indices 0..n-1 at random, the same way for the same seed.

    Args:
        n: Number of examples.
        train_fraction: Share of them to train on, strictly between 0 and 1.
        seed: Seed of the shuffle.

    Returns:
        The sorted training indices and the sorted validation indices.

    Raises:
        ValueError: If the fraction is outside (0, 1).

    >>> train, validation = split(10, 0.3, seed=1)
    >>> len(train), len(validation), len(set(train) | set(validation))
    (3, 7, 10)
    """
    if not 0 < train_fraction < 1:
        raise ValueError(f"train_fraction must be between 0 and 1 but got {train_fraction}.")
    order = np.random.default_rng(seed).permutation(n)
    n_train = round(n * train_fraction)
    return np.sort(order[:n_train]), np.sort(order[n_train:])
