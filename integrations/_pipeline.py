"""A watch's clock, drain and outlet as one: flushed, saved, resumed and closed together."""

from __future__ import annotations

import json
from typing import Any

from grokwatch.integrations._clock import Clock
from grokwatch.integrations._curvature import Prober
from grokwatch.integrations._drain import Drain
from grokwatch.integrations._outlet import Outlet
from grokwatch.state import take


class Pipeline:
    """What a watch owns, and what must still be written when the watch itself is gone.

    Args:
        clock: numbers the rows and measures norms.
        drain: holds the rows.
        outlet: judges and writes them.
        prober: measures curvature.
    """

    def __init__(self, clock: Clock, drain: Drain, outlet: Outlet, prober: Prober) -> None:
        self.clock, self.drain, self.outlet, self.prober = clock, drain, outlet, prober

    def with_probed(self, measured: dict[str, Any]) -> dict[str, Any]:
        """A row, and norms and curvature measured since the last one."""
        if self.clock.measured or self.prober.measured:
            return {**self.clock.norms(), **self.prober.row(), **measured}
        return measured

    def flush(self) -> None:
        """Judge everything handed over so far, the last batch included."""
        try:
            probed = self.with_probed({})
            if probed:
                self.drain.now(self.clock.step, probed)
            self.drain.flush(everything=True)
        except Exception as error:
            self.outlet.fault("monitor", error)

    def close(self) -> None:
        """Remove the hooks, judge and write what is left."""
        self.clock.close()
        self.prober.close()
        self.flush()
        self.outlet.close()

    def finish(self) -> None:
        """What a watch that nobody closed still owes, at its end or the program's."""
        if not self.outlet.forked:  # else the rows and the files are the parent's
            self.close()

    def state_dict(self) -> dict[str, Any]:
        """Plain, JSON-able state; writes what the record lacks."""
        self.flush()
        return {
            "monitor": self.outlet.monitor_state(),
            "step": self.clock.step,
            "probed": self.clock.probed,
            "closed": self.drain.closed,
            "outlet": self.outlet.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: the state is of another version or other thresholds, or broken.
        """
        outlet, closed = take(state, "outlet"), take(state, "closed")
        step, probed = take(state, "step"), take(state, "probed")
        row, folder = take(outlet, "row"), take(outlet, "folder")
        self.outlet.monitor.load_state_dict(take(state, "monitor"))
        self.outlet.resume((row[0], row[1]), folder)
        self.drain.restart(closed)
        self.clock.restart(step, probed)


def plain(notes: dict[str, Any] | None, also: dict[str, Any]) -> dict[str, Any]:
    """A copy of the notes as JSON would give it back, after what is also to be noted.

    Raises:
        TypeError: something that JSON does not know.
    """
    try:
        copy: dict[str, Any] = json.loads(json.dumps(notes or {}, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"notes must be plain JSON-able Python: {error}.") from None
    return {**also, **copy}
