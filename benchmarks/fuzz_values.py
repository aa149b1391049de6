"""What the fuzzers feed: numbers in every dress, and what is no number at all."""

from __future__ import annotations

import decimal
import fractions
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from grokwatch.ingest import MEASUREMENTS

EDGES = [
    0.0, -0.0, 1.0, -1.0, 0.5, 5e-324, -5e-324, 1e-310, 1e-45, 1.2e-38, 1e-12, 1e-7, 1e30, 1e38,
    3.4028234663852886e38, 3.4028235677973366e38, 1e39, 1e308, -1e308, math.inf, -math.inf,
    math.nan, 1.0000000001, 0.9999999999, 1.0000001, 100.0, 97.0, 2.0**53, -2.0**63,
]  # fmt: skip

NUMPY = [
    np.float16, np.float32, np.float64, np.longdouble, np.int8, np.int16, np.int32, np.int64,
    np.uint8, np.uint16, np.uint32, np.uint64, np.bool_,
]  # fmt: skip

_TORCH = (
    "float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool "
    "float8_e4m3fn float8_e5m2"
)
TORCH = [getattr(torch, name) for name in _TORCH.split() if hasattr(torch, name)]


class Broken:
    """Raises whatever is asked of it."""

    def _no(self, *_: Any) -> Any:
        raise ZeroDivisionError("broken")

    __float__ = __index__ = __int__ = __repr__ = __str__ = __gt__ = __lt__ = __len__ = _no


class Odd(float):
    """A float that warns of being one would be too nice: it only says something else."""

    def __repr__(self) -> str:
        return "odd" * 1000


def plain(r: random.Random) -> float:
    """Some float."""
    how = r.randrange(4)
    if how == 0:
        return r.choice(EDGES)
    if how == 1:
        return r.uniform(-2.0, 2.0)
    return math.exp(r.gauss(0.0, 4.0)) if how == 2 else r.random()


def dressed(r: random.Random, value: float) -> Any:
    """The number, or one near it, as numpy, torch or somebody else has it."""
    how = r.randrange(10)
    with np.errstate(all="ignore"):
        if how < 5:
            return value
        if how == 5:
            kind = r.choice(NUMPY)
            exact = kind in NUMPY[:4]
            made = kind(value) if exact else kind(int(_small(value)))
            return made if r.random() < 0.5 else np.array(made)
        if how in (6, 7):
            dtype = r.choice(TORCH)
            exact = dtype.is_floating_point
            tensor = torch.tensor(value if exact else int(_small(value)), dtype=dtype)
            if r.random() < 0.3:
                tensor = tensor.reshape(1)
            return tensor.requires_grad_(exact and tensor.is_floating_point() and r.random() < 0.2)
    if not math.isfinite(value):
        return value
    return r.choice([decimal.Decimal(value), fractions.Fraction(value), int(value), Odd(value)])


def _small(value: float) -> float:
    return value % 100.0 if math.isfinite(value) else 1.0


#: Where a run may stand: what its accuracies and its losses are like then.
MOODS = ("any", "guessing", "learnt", "grokked", "exploding")


def number(r: random.Random, name: str, mood: str = "any") -> Any:
    """A value that mostly makes sense for a measurement."""
    if r.random() < (0.1 if mood == "any" else 0.01):
        return dressed(r, plain(r))
    kind = MEASUREMENTS.get(name, "real")
    value = r.random() if kind == "fraction" else math.exp(r.gauss(0.0, 2.0))
    if mood != "any" and name.endswith("accuracy"):
        learnt = mood == "grokked" or (mood == "learnt" and name == "train_accuracy")
        value = 1.0 - 0.003 * r.random() if learnt else 0.02 * r.random()
    elif mood != "any" and kind == "loss":
        low = mood == "grokked" or (mood == "learnt" and name == "train_loss")
        value = math.exp(r.gauss(-8.0 if low else 1.0, 0.2)) * (30.0 if r.random() < 0.03 else 1.0)
        value *= 1e6 if mood == "exploding" else 1.0
    elif r.random() < 0.2:
        value = r.choice([0.0, 1.0, value, value])
    return value if r.random() < 0.7 else dressed(r, value)


#: What is no real number.
BAD: list[Callable[[random.Random], Any]] = [
    lambda r: "0.5",
    lambda r: b"1",
    lambda r: "x" * r.randrange(100_000),
    lambda r: True,
    lambda r: 1j,
    lambda r: np.complex64(1.0 + r.random() * 1j),
    lambda r: np.array(1j),
    lambda r: torch.tensor(1.0 + 0.0j),
    lambda r: torch.tensor(1.0 - 2.0j, dtype=torch.complex128),
    lambda r: np.ones(r.choice([0, 2, 3])),
    lambda r: torch.ones(r.choice([0, 2, 3])),
    lambda r: torch.ones(2, 2).to_sparse(),
    lambda r: torch.empty((), device="meta"),
    lambda r: np.array("0.5"),
    lambda r: np.str_("0.5"),
    lambda r: np.datetime64("2020-01-01"),
    lambda r: np.timedelta64(5, "s"),
    lambda r: np.void(b"abcd"),
    lambda r: np.array(None),
    lambda r: [],
    lambda r: [0.5],
    lambda r: {"loss": 0.5},
    lambda r: object(),
    lambda r: Broken(),
    lambda r: Broken,
    lambda r: lambda: 0.5,
    lambda r: decimal.Decimal("sNaN"),
    lambda r: range(3),
]


def bad_number(r: random.Random) -> Any:
    """Something that is no real number."""
    return r.choice(BAD)(r)


def anything(r: random.Random) -> Any:
    """Something."""
    how = r.randrange(5)
    if how == 0:
        return bad_number(r)
    if how == 1:
        return None
    if how == 2:
        return r.choice([10**400, -(10**400), 10**5000, 2**63, 2**64, -1, 0, 1, 7, 10**15])
    return dressed(r, plain(r))


def settings(r: random.Random) -> dict[str, Any]:
    """Settings of a monitor, all of them good."""
    given: dict[str, Any] = {"budget": r.choice([1, 10, 1000, 10**5, 10**7, 10**18])}
    for name, make in (
        ("chance", lambda: r.choice([0.0, 0.01, 0.1, 0.5])),
        ("learning_rate", lambda: r.choice([0.0, 1e-3, 1e300, 5e-324])),
        ("weight_decay", lambda: r.choice([0.0, 1.0, 1e308])),
        ("train_fraction", lambda: r.choice([0.0, 0.3, 1.0])),
        ("max_kill_rate", lambda: r.choice([0.0, 0.02, 1.0])),
        ("accuracy_unit", lambda: r.choice(["fraction", "percent"])),
    ):
        if r.random() < 0.4:
            given[name] = make()
    if r.random() < 0.2:
        given["memorised_at"] = r.choice([0.0, 0.5, 1.0])
        given["generalised_at"] = r.choice([0.6, 0.95, 1.0])
    return given


def step_after(r: random.Random, step: int) -> int:
    """A step, mostly later than the last."""
    how = r.random()
    if how < 0.05:
        return step
    if how < 0.08:
        return max(0, step - r.randrange(1, 100))
    if how < 0.80:
        return step + 1
    return min(10**15, step + int(math.exp(r.uniform(0.0, 12.0 if how < 0.99 else 30.0))))
