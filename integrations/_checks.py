"""What is wrong with the arguments of a watch or a callback is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from grokwatch.integrations._on_stop import OnStop, check_on_stop


def check_follow(norms_every: int, on_verdict: Any) -> None:
    """Raise for a wrong cadence, or an alert that cannot be called.

    Raises:
        TypeError: ``on_verdict`` is not callable.
        ValueError: ``norms_every`` is negative.
    """
    if norms_every < 0:
        raise ValueError(f"norms_every cannot be negative but got {norms_every}.")
    if on_verdict is not None and not callable(on_verdict):
        raise TypeError(f"on_verdict must be callable but got {on_verdict!r}.")


def check_watch(
    model: Any, norms_every: int, on_verdict: Any, on_stop: OnStop, log_dir: str | Path | None
) -> None:
    """Raise for wrong arguments of a watch.

    Raises:
        TypeError: ``model`` is no module, or an argument of the wrong type.
        ValueError: a wrong value.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module but is {type(model).__name__}.")
    check_follow(norms_every, on_verdict)
    check_on_stop(on_stop, log_dir)
