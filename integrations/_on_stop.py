"""What is done before a stop, so that it can be undone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from grokwatch.integrations._distributed import is_split
from grokwatch.integrations._pipeline import Pipeline
from grokwatch.verdict import Verdict

CHECKPOINT = "grokwatch-stop.pt"

OnStop = Literal["checkpoint"] | Callable[[Verdict], object] | None


def check_on_stop(on_stop: OnStop, log_dir: object) -> None:
    """Raise one clear error if ``on_stop`` is none of what it may be."""
    if on_stop is None or callable(on_stop):
        return
    if on_stop != "checkpoint":
        raise ValueError(f"on_stop must be None, 'checkpoint' or callable but got {on_stop!r}.")
    if log_dir is None:
        raise ValueError("on_stop='checkpoint' needs a log_dir to write it to.")


class BeforeStop:
    """Does once what ``on_stop`` says.

    Args:
        on_stop: checked by :func:`check_on_stop`.
        model: to save.
        optimizers: to save.
        pipeline: of the watch, to save; tells of failures.
    """

    def __init__(
        self,
        on_stop: OnStop,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        pipeline: Pipeline,
    ) -> None:
        self._on_stop, self._model, self._optimizers = on_stop, model, optimizers
        self._pipeline = pipeline

    def __call__(self, verdict: Verdict, writes: bool) -> None:
        """Do it, unless it has been done; ``writes`` says whether this process writes files."""
        wanted, self._on_stop = self._on_stop, None
        outlet = self._pipeline.outlet
        try:
            if callable(wanted):
                wanted(verdict)
            elif wanted is not None and writes:
                state, folder = self._pipeline.state_dict(), outlet.destinations.log_dir
                if folder is None:
                    raise OSError("there is no folder to write the checkpoint to.")
                save_checkpoint(folder, self._model, self._optimizers, state)
        except Exception as error:
            outlet.fault("on_stop", error)


def save_checkpoint(
    folder: Path,
    model: torch.nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    watch_state: dict[str, Any],
) -> Path:
    """Write model, optimizers and the watch's state; whole or not at all.

    Wrappers (DDP, ``torch.compile``) are seen through: the keys are those of the bare model.

    Args:
        folder: to write to; made if missing.
        model: whose ``state_dict`` is saved.
        optimizers: whose ``state_dict`` are saved, as a list.
        watch_state: of ``Watch.state_dict``.

    Raises:
        NotImplementedError: weights that are split over processes, which one cannot save alone.

    >>> import tempfile
    >>> model = torch.nn.Linear(1, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = torch.load(save_checkpoint(Path(folder), model, [], {}), weights_only=True)
    >>> sorted(saved), list(saved["model"])
    (['model', 'optimizers', 'watch'], ['weight', 'bias'])
    """
    if is_split(model):
        raise NotImplementedError(
            "the weights are split over several processes; pass on_stop a function that saves "
            "them, it is called on every rank."
        )
    kept = {
        "model": bare(model).state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "watch": watch_state,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT
    unfinished = path.with_name(f"{CHECKPOINT}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            torch.save(kept, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def bare(model: torch.nn.Module) -> torch.nn.Module:
    """The user's own module inside of DDP and ``torch.compile``."""
    while True:
        if isinstance(model, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), torch.nn.Module):
            model = inner
        else:
            return model
