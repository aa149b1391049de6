"""A lock around one write: what two processes write to one file stays whole lines."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

fcntl: Any
try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_TRIES, _PAUSE = 20, 0.005  # seconds; a lock that somebody keeps must not hold a training up


@contextlib.contextmanager
def locked(descriptor: int) -> Iterator[os.stat_result]:
    """Hold the lock of an open file, where it can be had; gives what the file is by then.

    It is held for one write only: a child process that inherits the file cannot keep it.
    """
    held = fcntl is not None and _taken(descriptor)
    try:
        yield os.fstat(descriptor)
    finally:
        if held:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)


def _taken(descriptor: int) -> bool:
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_PAUSE)
        except OSError:  # some network file systems have no locks
            return False
    return False
