"""Leaving a process group in order, for the programs that tests run as ranks."""

from __future__ import annotations

import gc
import importlib
import time
from contextlib import suppress
from pathlib import Path

import torch.distributed as dist

# Imported while a group exists, as by the first wrapped model, it keeps that group for ever:
# as default value of its functions' arguments. Here none exists yet.
importlib.import_module("torch.distributed.nn.functional")

_THREAD = "pt_gloo_runloop"


def leave() -> None:
    """Destroy the group, and see that its threads have ended.

    As long as anything holds the group, a wrapped model say, ``destroy_process_group`` ends
    nothing: a thread of Gloo that lets go of a tensor while Python is being torn down aborts the
    process, once in some hundred runs (https://github.com/pytorch/pytorch/pull/179291). So the
    caller has dropped its model, or returned from the function that held it.

    Raises:
        RuntimeError: something still holds the group (seen where there is a ``/proc``).
    """
    if dist.is_initialized():
        gc.collect()  # Trainers and wrapped models are parts of cycles
        dist.destroy_process_group()
    until = time.monotonic() + 5
    while (left := _threads()) and time.monotonic() < until:
        time.sleep(0.01)  # one that was waited for is listed for a moment longer
    if left:
        raise RuntimeError(f"{left} threads of the process group live on: what holds it?")


def _threads() -> int:
    found = 0
    for name in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # it ended meanwhile
            found += name.read_text().strip() == _THREAD
    return found
