"""Leaving a process group in order, for the programs that tests run as ranks."""

from __future__ import annotations

import gc
from pathlib import Path

import torch.distributed as dist

# Imported while a group exists, as by the first wrapped model, it keeps that group for ever:
# as default value of its functions' arguments.
import torch.distributed.nn.functional  # noqa: F401

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
    left = [p for p in Path("/proc/self/task").glob("*/comm") if p.read_text().strip() == _THREAD]
    if left:
        raise RuntimeError(f"{len(left)} threads of the process group live on: what holds it?")
