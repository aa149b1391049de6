"""Worked example of a signal of one's own: Fourier concentration of an embedding.

Networks that have learnt modular addition embed the numbers on a few circles (Nanda et al. 2023,
arXiv:2301.05217): most of the embedding's power over Z_p then lies in a few frequencies. The
tensor work is a function; what it returns is observed like any other measurement, so that it is
recorded and replays::

    watch = grokwatch.watch(model, optimizer, budget=..., signals=[FourierConcentration()])
    ...
    watch.observe(embedding_fourier=fourier_concentration(model.embedding.weight[:p]))
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from grokwatch.state import take


def fourier_concentration(embedding: npt.ArrayLike, frequencies: int = 4) -> float:
    """Share of the embedding's non-constant power that lies in its strongest frequencies.

    Args:
        embedding: shape (p, d), one row for each residue; array or CPU tensor.
        frequencies: how many of the (p - 1) / 2 frequencies count.

    Returns:
        Between about ``2 * frequencies / p`` (random) and 1 (a few circles).

    Raises:
        ValueError: not a matrix with at least 3 rows.

    >>> angle = 2 * np.pi * 3 * np.arange(11) / 11
    >>> round(fourier_concentration(np.stack([np.cos(angle), np.sin(angle)], axis=1), 1), 12)
    1.0
    """
    detached = embedding.detach() if hasattr(embedding, "detach") else embedding
    matrix = np.asarray(detached, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] < 3:
        raise ValueError(f"embedding must have shape (p, d) with p >= 3 but has {matrix.shape}.")
    spectrum = np.fft.rfft(matrix, axis=0)[1:]
    power = np.sort((spectrum.real**2 + spectrum.imag**2).sum(axis=1))[::-1]
    total = float(power.sum())
    return float(power[:frequencies].sum()) / total if total > 0 else 0.0


class FourierConcentration:
    """Follows ``embedding_fourier``: the latest value and its rise above the first one.

    >>> signal = FourierConcentration()
    >>> signal.update(0, "embedding_fourier", 0.25)
    >>> signal.update(100, "embedding_fourier", 0.75)
    >>> signal.values()
    {'fourier_concentration': 0.75, 'fourier_rise': 0.5}
    """

    name = "fourier"
    inputs = ("embedding_fourier",)

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._first: float | None = None
        self._last: float | None = None

    def update(self, step: int, name: str, value: float) -> None:
        """Take one concentration; NaN and inf are left out."""
        if value - value != 0.0:
            return
        self._first = value if self._first is None else self._first
        self._last = value

    def values(self) -> dict[str, float]:
        """``fourier_concentration`` and ``fourier_rise``."""
        if self._first is None or self._last is None:
            return {}
        return {"fourier_concentration": self._last, "fourier_rise": self._last - self._first}

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state."""
        return {"first": self._first, "last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._first, self._last = take(state, "first"), take(state, "last")
