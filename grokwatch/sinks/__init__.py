"""Where observations and verdicts go: a record on disk, the terminal.

A sink has ``observe(step, measured)`` for every row, ``verdict(verdict, news)`` for every new
verdict (``news`` is the sentence when a person would want to hear of it), ``flush()`` for what must
not be lost from here on, and ``close()``.
"""

from __future__ import annotations

from typing import Protocol

from grokwatch.verdict import Verdict


class Sink(Protocol):
    """What a watch writes to."""

    def observe(self, step: int, measured: dict[str, float]) -> None:
        """Take one row of measurements, already rounded to float32."""

    def verdict(self, verdict: Verdict, news: str | None) -> None:
        """Take a new verdict."""

    def flush(self) -> None:
        """Write what has come so far."""

    def close(self) -> None:
        """Write what is left and let go; harmless if called twice."""
