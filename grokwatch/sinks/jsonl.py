"""Writes a run as JSONL that :func:`grokwatch.records.read_run` reads back bit for bit."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grokwatch._jsonl import FORMAT, pack_steps, short
from grokwatch._run import SETTINGS
from grokwatch._version import __version__
from grokwatch.sinks._lock import locked
from grokwatch.verdict import Verdict

_ROWS = 1000  # rows in a chunk; a crash loses at most these, or the last _SECONDS
_SECONDS = 10.0


class JsonlSink:
    """Appends observations in column chunks and verdict changes to a file.

    Args:
        path: the file; its folder is made if missing.
        settings: budget, chance, ...; what of it a record keeps is in ``records.SETTINGS``.
        notes: anything else worth keeping.
        resumed_after: the last step known to the run that goes on; None = a new run. What an
            earlier process wrote after it is taken back.
        resumed_row: what had been measured at that step; None = everything on record.
    """

    def __init__(
        self,
        path: str | Path,
        settings: dict[str, Any],
        notes: dict[str, Any] | None = None,
        resumed_after: int | None = None,
        resumed_row: Sequence[str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        resumed = resumed_after is not None and self.path.exists()
        self._file = self.path.open("a" if resumed else "w", encoding="utf-8")
        self._size = os.fstat(self._file.fileno()).st_size  # of what this sink has written
        self._rows: list[tuple[int, dict[str, float]]] = []
        self._flushed = time.monotonic()
        line: dict[str, Any]
        if resumed:
            known = {} if resumed_row is None else {"known": sorted(resumed_row)}
            line = {"type": "resumed", "step": resumed_after, **known}
        else:
            kept = {k: _plain(settings[k]) for k in SETTINGS if settings.get(k) is not None}
            head = {"type": "run", "format": FORMAT, "grokwatch": __version__, "settings": kept}
            line = {**head, "notes": notes or {}}
        try:
            self._write(line, new_line=resumed)
        except BaseException:
            self._let_go()
            raise

    def observe(self, step: int, measured: dict[str, float]) -> None:
        """See :class:`grokwatch.sinks.Sink`."""
        self._rows.append((step, measured))  # whole or not at all, wherever a Ctrl-C falls
        if len(self._rows) >= _ROWS or time.monotonic() - self._flushed > _SECONDS:
            self.flush()

    def verdict(self, verdict: Verdict, news: str | None) -> None:
        """See :class:`grokwatch.sinks.Sink`; only news is written."""
        if news is not None:
            self.flush()
            self._write({"type": "verdict", **verdict.as_dict()})

    def flush(self) -> None:
        """Write the chunk begun."""
        self._flushed = time.monotonic()
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        found: dict[str, tuple[list[int], list[float]]] = {}
        for step, measured in rows:
            for name, value in measured.items():
                steps, values = found.setdefault(name, ([], []))
                steps.append(step)
                values.append(value)
        columns = {
            name: {"steps": pack_steps(steps), "values": short(values)}
            for name, (steps, values) in found.items()
        }
        self._write({"type": "observations", "columns": columns})

    def _write(self, line: dict[str, Any], new_line: bool = False) -> None:
        # After a crash the file may end in half a line: begin a new one, the reader skips the torn.
        text = json.dumps(line, separators=(",", ":"), allow_nan=False)
        with locked(self._file.fileno()) as before:
            if before.st_nlink == 0:
                raise FileNotFoundError(f"{self.path} was removed while the run went on")
            if before.st_size != self._size:
                raise RuntimeError(
                    f"{self.path} was written to by somebody else; of two that write one record "
                    f"the later goes on"
                )
            self._file.write(("\n" if new_line else "") + text + "\n")
            self._file.flush()
            self._size = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """See :class:`grokwatch.sinks.Sink`."""
        if not self._file.closed:
            try:
                self.flush()
            finally:
                self._let_go()

    def _let_go(self) -> None:
        # Closing would try once more to write what could not be written.
        with contextlib.suppress(OSError):
            self._file.close()


def _plain(number: Any) -> int | float:
    """A number that JSON knows, from one that may be numpy's."""
    return number if isinstance(number, int) else float(number)
