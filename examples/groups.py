"""Small finite groups as Cayley tables, for the group-composition tasks.

A Cayley table is a square integer array `table[a, b] = a∘b` over elements numbered from 0.
"""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]


def permutation_elements(degree: int) -> Array:
    """All permutations of `degree` points in lexicographic order, so that row 0 is the identity.

    Args:
        degree: Number of points moved, 1 to 6.

    Returns:
        Array of shape (degree!, degree); entry [e, i] is where element `e` sends point `i`.

    Raises:
        ValueError: If the degree is outside 1..6 (7! squared is 25 million equations).

    >>> permutation_elements(5).shape
    (120, 5)
    """
    if not 1 <= degree <= 6:
        raise ValueError(f"degree must be between 1 and 6 but got {degree}.")
    return np.array(list(permutations(range(degree))), dtype=np.int64)


def symmetric_group(degree: int) -> Array:
    """Cayley table of the symmetric group S_degree, (a∘b)(i) = a(b(i)).

    Args:
        degree: Number of points moved, 1 to 6.

    Returns:
        Table of shape (degree!, degree!).

    Raises:
        ValueError: If the degree is outside 1..6.

    >>> symmetric_group(5).size
    14400
    >>> bool((symmetric_group(3) == symmetric_group(3).T).all())
    False
    """
    elements = permutation_elements(degree)
    place_value = degree ** np.arange(degree - 1, -1, -1)
    codes = elements @ place_value  # Increasing, because the rows are in lexicographic order.
    a, b = np.divmod(np.arange(len(elements) ** 2), len(elements))
    composed = np.take_along_axis(elements[a], elements[b], axis=1) @ place_value
    return np.searchsorted(codes, composed).astype(np.int64).reshape(len(elements), -1)


def dihedral_group(sides: int) -> Array:
    """Cayley table of the symmetries of a regular polygon.

    Element `k` is the rotation by k steps for k < sides, and that rotation after a reflection
    for k >= sides.

    Args:
        sides: Number of sides, at least 1; the group has 2·sides elements.

    Returns:
        Table of shape (2·sides, 2·sides).

    Raises:
        ValueError: If there are no sides.

    >>> int(dihedral_group(4)[5, 5])  # Every reflection is its own inverse.
    0
    """
    if sides < 1:
        raise ValueError(f"sides must be at least 1 but got {sides}.")
    flip_a, turn_a = np.divmod(np.arange(2 * sides)[:, None], sides)
    flip_b, turn_b = np.divmod(np.arange(2 * sides)[None, :], sides)
    turn = (turn_a + np.where(flip_a == 1, -turn_b, turn_b)) % sides
    product: Array = (flip_a ^ flip_b) * sides + turn
    return product


def inverses(table: Array) -> Array:
    """Find the inverse of every element of a group.

    Args:
        table: Cayley table of shape (n, n).

    Returns:
        Array of shape (n,) with `table[a, inverses[a]]` the identity.

    Raises:
        ValueError: If the table has no identity, or an element without an inverse.

    >>> inverses(dihedral_group(3))
    array([0, 2, 1, 3, 4, 5])
    """
    n = len(table)
    rows, columns = (table == np.arange(n)).all(1), (table.T == np.arange(n)).all(1)
    if not (rows & columns).any():
        raise ValueError("the table is not a group: it has no identity element.")
    identity = int(np.argmax(rows & columns))
    hits = table == identity
    if not hits.any(axis=1).all():
        raise ValueError("the table is not a group: some element has no inverse.")
    inverse: Array = hits.argmax(axis=1)
    return inverse


def conjugation_table(table: Array) -> Array:
    """Turn a Cayley table into the table of a∘b∘a⁻¹.

    >>> bool((conjugation_table(symmetric_group(3))[:, 0] == 0).all())  # a∘e∘a⁻¹ = e
    True
    """
    return table[table, inverses(table)[:, None]]


def sandwich_table(table: Array) -> Array:
    """Turn a Cayley table into the table of a∘b∘a.

    >>> int(sandwich_table(dihedral_group(4))[1, 1])  # Three quarter turns.
    3
    """
    return table[table, np.arange(len(table))[:, None]]


def from_cayley_csv(path: str | Path) -> tuple[Array, Array, int]:
    """Read any finite operation from a CSV file of its table, without header.

    Args:
        path: A square file of integers 0..n-1; row a, column b holds a∘b.

    Returns:
        The pairs of shape (n², 2), the answers of shape (n²,) and the number of classes n.

    Raises:
        ValueError: If the file is not a square table of elements 0..n-1.
    """
    try:
        values = np.loadtxt(path, delimiter=",", dtype=np.float64, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path} is not a table of numbers: {error}.") from None
    if values.size == 0 or values.shape[0] != values.shape[1]:
        raise ValueError(f"{path} must hold a square table but its shape is {values.shape}.")
    if not (np.isin(values, np.arange(len(values)))).all():
        raise ValueError(f"{path} must hold only the elements 0..{len(values) - 1}.")
    table, n = values.astype(np.int64), len(values)
    pairs = np.indices((n, n), dtype=np.int64).reshape(2, -1).T
    return np.ascontiguousarray(pairs), table.reshape(-1), n
