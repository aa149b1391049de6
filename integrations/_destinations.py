"""Where a run is written to, and what makes each of its sinks."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grokwatch.sinks import Sink
from grokwatch.sinks.console import ConsoleSink
from grokwatch.sinks.jsonl import JsonlSink

log = logging.getLogger("grokwatch")

RECORD = "grokwatch.jsonl"


@dataclass
class Destinations:
    """Where a run is written to.

    Attributes:
        log_dir: folder for record and TensorBoard events; None writes nothing.
        tensorboard: whether to write TensorBoard events.
        console: whether to show a progress bar.
        settings: of the monitor, for the record.
        notes: for the record.
        others: what makes further sinks, by name.
    """

    log_dir: Path | None
    tensorboard: bool
    console: bool
    settings: dict[str, Any]
    notes: dict[str, Any]
    others: dict[str, Callable[[], Sink]] = field(default_factory=dict)

    def claim(self) -> None:
        """Take the folder, or the first numbered sibling that holds no record yet."""
        if self.log_dir is None:
            return
        first = _with_name(self.log_dir)
        number, folder = 1, self.log_dir
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                (folder / RECORD).open("x").close()  # of two processes one gets it
                break
            except FileExistsError:
                number += 1
                folder = first.with_name(f"{first.name}-{number}")
        if number > 1:
            log.info("%s holds a run already; writing to %s.", self.log_dir, folder)
        self.log_dir = folder

    def reclaim(self, name: str | None) -> None:
        """Go back to the numbered sibling called ``name`` that a saved run had been given."""
        if self.log_dir is not None and name is not None:
            first = _with_name(self.log_dir)
            if re.fullmatch(re.escape(first.name) + r"-\d+", name):
                self.log_dir = first.with_name(name)

    def makers(self, resumed: tuple[int, list[str]] | None) -> dict[str, Callable[[], Sink]]:
        """What makes each sink; ``resumed`` = last step known and what was measured at it."""
        after, row = resumed if resumed is not None else (None, None)
        folder, wanted = self.log_dir, dict(self.others)
        if self.console:
            wanted["console"] = lambda: ConsoleSink(self.settings["budget"])
        if folder is None:
            return wanted

        def tensorboard() -> Sink:
            from grokwatch.integrations.tensorboard import TensorBoardSink

            return TensorBoardSink(folder, self.settings, after)

        wanted["record"] = lambda: JsonlSink(folder / RECORD, self.settings, self.notes, after, row)
        if self.tensorboard:
            wanted["tensorboard"] = tensorboard
        return wanted


def _with_name(folder: Path) -> Path:
    """The folder by a path that ends in its name, for ``.`` and ``..`` do not."""
    return folder if folder.name not in ("", "..") else Path(os.path.abspath(folder))
