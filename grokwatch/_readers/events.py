"""TensorBoard event files: every point of every scalar, no reservoir."""

from __future__ import annotations

import struct
import warnings
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from grokwatch._bounds import inside
from grokwatch._readers.hparams import settings_from
from grokwatch._readers.names import plain
from grokwatch._readers.tidy import Logged, Options, folder_name, make_run
from grokwatch._run import SETTINGS, RecordError, Run

PATTERN = "*tfevents*"
ROOT = "grokwatch/"
_THINNED = (
    "grokwatch thins training curves in TensorBoard (about 40 points each time the step grows "
    "e-fold): replay grokwatch.jsonl of the same run for the verdicts that were given live"
)


def read_events(folder: Path, options: Options) -> list[Run]:
    """Read the event files of one folder (or one event file) as one run.

    Of grokwatch's own tags (``grokwatch/train_loss``) exactly these are taken; otherwise tags are
    guessed. A restart that purges later steps is honoured, as in TensorBoard.

    Raises:
        RecordError: no event file, or one that is none.
    """
    files = [folder] if folder.is_file() else inside(sorted(folder.glob(PATTERN)), folder)
    if not files:
        raise RecordError(f"{folder}: no TensorBoard event file ({PATTERN}).")
    scalars = _Scalars()
    for file in files:
        for event in _events(file):
            scalars.take(event)
    found = scalars.columns
    own = {tag: tag.removeprefix(ROOT) for tag in found if _is_own(tag)}
    basis = []
    if own and not options.names:
        if f"{ROOT}forecast/phase" in found:
            basis.append(_THINNED)
        found = {own[tag]: found[tag] for tag in own}
    columns = {
        tag: (np.array(steps), np.array(values), np.zeros(len(steps), dtype=np.int64))
        for tag, (steps, values) in found.items()
    }
    home = (folder.parent if folder.is_file() else folder).resolve()
    logged = Logged(folder, folder_name(home), columns, scalars.settings, basis=basis)
    return [make_run(logged, options, "tensorboard")]


def _is_own(tag: str) -> bool:
    return tag.startswith(ROOT) and "/" not in tag.removeprefix(ROOT)


class _Scalars:
    """Collects scalars by tag."""

    def __init__(self) -> None:
        self.columns: dict[str, tuple[array[int], array[float]]] = {}
        self.settings: dict[str, Any] = {}

    def take(self, event: Any) -> None:
        kind = event.WhichOneof("what")
        if kind == "summary":
            step = event.step
            for value in event.summary.value:
                which = value.WhichOneof("value")
                if which == "simple_value":
                    self._add(value.tag, step, value.simple_value)
                elif which == "tensor":
                    self._add_tensor(value, step)
                if value.tag == "_hparams_/session_start_info":
                    self.settings = _hparams(value)
        elif kind == "session_log" and event.session_log.status == 1:  # START: later steps are void
            self._purge(event.step)

    def _add(self, tag: str, step: int, value: float) -> None:
        column = self.columns.get(tag)
        if column is None:
            column = self.columns[tag] = (array("q"), array("d"))
        column[0].append(step)
        column[1].append(value)

    def _add_tensor(self, value: Any, step: int) -> None:
        from tensorboard.util.tensor_util import make_ndarray

        if value.tensor.dtype not in (1, 2, 19):  # float, double, half
            return
        # Of one number, else a few bytes could ask for any amount of memory.
        if any(dimension.size != 1 for dimension in value.tensor.tensor_shape.dim):
            return
        try:
            numbers = make_ndarray(value.tensor)
        except (ValueError, TypeError):  # its content does not fit its shape
            return
        if numbers.size == 1:
            self._add(value.tag, step, float(numbers.reshape(())))

    def _purge(self, step: int) -> None:
        for tag, (steps, values) in self.columns.items():
            keep = np.array(steps) < step
            if not keep.all():
                kept = np.array(steps)[keep], np.array(values)[keep]
                self.columns[tag] = (array("q", kept[0].tolist()), array("d", kept[1].tolist()))


def _events(path: Path) -> Iterator[Any]:
    """The events of one file; what a crash or a writer at work cut off at the end is left out."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    size = path.stat().st_size
    with path.open("rb") as file:
        position = 0
        while len(head := file.read(12)) == 12:
            length, check = struct.unpack("<QI", head)
            whole = position + 16 + length <= size
            if not whole and masked_crc32c(head[:8]) != check:
                _broken(path, position)
                return
            if not whole:
                return
            data = file.read(length)
            file.seek(4, 1)
            position += 16 + length
            if len(data) < length:
                return
            try:
                event = Event.FromString(data)
            except DecodeError:
                _broken(path, position)
                return
            yield event


def _broken(path: Path, position: int) -> None:
    if position == 0:
        raise RecordError(f"{path}: not a TensorBoard event file.")
    warnings.warn(
        f"{path}: broken at byte {position}; what follows is left out.", UserWarning, stacklevel=5
    )


def _hparams(value: Any) -> dict[str, Any]:
    """Settings from the hyper-parameters, exactly where their names are ours."""
    from google.protobuf.message import DecodeError
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    try:
        data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
    except DecodeError:
        return {}
    numbers = {
        name: number.number_value
        for name, number in data.session_start_info.hparams.items()
        if number.WhichOneof("kind") == "number_value"
    }
    found = settings_from({plain(name): number for name, number in numbers.items()})
    for name in SETTINGS:
        if name in numbers and name != "budget":
            found[name] = numbers[name]
    return found
