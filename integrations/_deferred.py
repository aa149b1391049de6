"""Signals wait while a row is on its way: Ctrl-C must not leave half of it in monitor or record."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # those whose handlers are known to raise
_PATIENCE = 10.0  # seconds


class _Waiting:
    """Holds signals back, as one; ten seconds later they pass again, lest something hangs."""

    def __init__(self) -> None:
        self.holds = True
        self.handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self.caught: tuple[int, FrameType | None] | None = None
        self.since = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.holds and self.caught is None:
            self.caught, self.since = (number, frame), now
        elif not self.holds or now - self.since > _PATIENCE:
            self.handlers[number](number, frame)

    def deliver(self) -> None:
        """Let the signal that came take its usual way."""
        caught, self.caught = self.caught, None
        if caught is not None:
            self.handlers[caught[0]](*caught)


_waiting: _Waiting | None = None  # of the main thread, the only one that handles signals


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """What Python does on a signal (raise KeyboardInterrupt, say) happens when this is over.

    Signals that nobody handles in Python still end the process at once.

    >>> before = signal.signal(signal.SIGTERM, lambda *_: print("and now the signal"))
    >>> with deferred():
    ...     signal.raise_signal(signal.SIGTERM)
    ...     print("first the row")
    first the row
    and now the signal
    >>> _ = signal.signal(signal.SIGTERM, before)
    """
    global _waiting
    if _waiting is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting = _Waiting()
    try:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):  # neither the default nor ignored
                waiting.handlers[number] = handler
                signal.signal(number, waiting)
        _waiting = waiting
        yield
    finally:
        _waiting, waiting.holds = None, False
        for held, before in waiting.handlers.items():
            if signal.getsignal(held) is waiting:  # else somebody has set another
                signal.signal(held, before)
        waiting.deliver()


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Inside of :func:`deferred`: signals are as usual again, for somebody else's code."""
    waiting = _waiting
    if waiting is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting.holds = False
    try:
        waiting.deliver()
        yield
    finally:
        waiting.holds = True
