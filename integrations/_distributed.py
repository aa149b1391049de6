"""Several processes: rank 0 judges and writes, every rank stops at the same turn, nobody waits.

There is no collective: ranks that hold uneven data, or that end early, would leave the others
waiting for ever. The ranks share one key of the process group's own key-value store instead, and
agree on it by compare-and-swap (Herlihy 1991, "Wait-free synchronization"), which asks no other
rank to arrive.

A *turn* is a question that a rank asks (``should_stop``) after it has moved on; asking again
before the next optimiser step is the same turn. The key holds either

- ``{"free": p}``: somebody may answer "go on" up to turn p without looking again, or
- ``{"stop": s, "verdict": ...}``: every rank stops at turn s. This is final.

Before a rank answers "go on" at a turn beyond p it raises p, or finds the stop. To stop, rank 0
replaces ``free`` by a stop at a turn s > p. Compare-and-swap makes one of the two come first, so
that "go on" at turn t means that no stop at or before t exists, or ever will: **the n-th answer
is the same on every rank**. That needs no assumption on who is ahead, and by how much: a rank
that ran far ahead (gradients accumulated under ``no_sync``, no gradients exchanged at all) moves
p with it, and the stop to beyond it. A rank that has ended asks no more, and nobody asks for it.

If rank 0 fails or ends, the others never stop. A rank that loses the store goes on; had the stop
been agreed on already, that rank alone would miss it, but it has lost the process group as well.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.distributed as dist

from grokwatch.verdict import Verdict

_MAX_STRIDE = 10
_LOOK_EVERY = 50  # batches between two looks for a process group, which costs as much as a batch
_TRIES = 10_000  # every one lost means that another rank moved on; none is ever lost in practice

_numbers = itertools.count()


class Store(Protocol):
    """What is needed of a :class:`torch.distributed.Store`."""

    def compare_set(self, key: str, expected_value: str, desired_value: str) -> bytes:
        """Set the value if it is the expected one ("" = none yet); return what it is then."""


def grouped() -> bool:
    """Whether this process is one of several in an initialised process group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """The rank of this process: of the process group, else as the launcher says, else 0."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    said = os.environ.get("RANK", "")
    return int(said) if said.isdecimal() else 0


def group_store() -> Store:
    """The key-value store through which the process group was formed."""
    # The one way that has been there in every torch since 1.x; there is no public one.
    store: Store = dist.distributed_c10d._get_default_store()
    return store


def stride(turn: int) -> int:
    """Turns between two looks at the store: a stop comes at most about 2 % or 10 turns late.

    >>> [stride(turn) for turn in (1, 49, 50, 200, 10_000)]
    [1, 1, 2, 5, 10]
    """
    return min(_MAX_STRIDE, 1 + turn // 50)


class Agreement:
    """One rank's side of the agreement on the turn to stop at.

    Args:
        key: in the store; the same on every rank.

    >>> store = dist.HashStore()
    >>> first, second = Agreement("run"), Agreement("run")
    >>> second.look(store, turn=1)
    >>> first.decide(store, 1, Verdict(7, "generalised", 1.0, None, "stop_generalised", "Done."))
    >>> second.look(store, turn=2)
    >>> first.stop, second.stop, second.verdict.step
    (2, 2, 7)
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._free = 0
        self._seen = ""  # what the key held when last read
        self.stop: int | None = None
        self.verdict: Verdict | None = None

    def look(self, store: Store, turn: int) -> None:
        """Learn of a stop, or make sure that there will be none up to ``turn``."""
        if self.stop is not None or turn <= self._free:
            return
        for _ in range(_TRIES):
            if self._swap(store, {"free": turn + stride(turn) - 1}) or self._free >= turn:
                return
        raise RuntimeError(f"the store of the process group loses the key {self._key!r}.")

    def decide(self, store: Store, turn: int, verdict: Verdict) -> None:
        """Set the stop, after ``turn`` and after every turn that a rank may have passed."""
        stop = turn + stride(turn)
        for _ in range(_TRIES):
            message = {"stop": max(stop, self._free + 1), "verdict": verdict.as_dict()}
            if self._swap(store, message):
                return
        raise RuntimeError(f"the store of the process group loses the key {self._key!r}.")

    def _swap(self, store: Store, message: dict[str, Any]) -> bool:
        """Try to put the message in place of what was seen; whether it, or a stop, is there."""
        wanted = json.dumps(message)
        self._seen = store.compare_set(self._key, self._seen, wanted).decode()
        found = message if self._seen == wanted else json.loads(self._seen)
        if "stop" in found:
            self.stop, self.verdict = found["stop"], Verdict.from_dict(found["verdict"])
        else:
            self._free = max(self._free, found["free"])
        return found is message or self.stop is not None


class Ranks:
    """Who judges, and when all stop; made in the same order on every rank.

    The process group may be formed later: it is looked for until it is there.

    Args:
        fault: told if the store fails.
    """

    def __init__(self, fault: Callable[[str, Exception], None]) -> None:
        self._fault = fault
        self._agreement = Agreement(f"grokwatch/{next(_numbers)}")
        self._rank: int | None = None  # once there is a process group
        self._said: int | None = None  # until then
        self._unseen = 0  # questions left until the next look
        self._asked_at = -1
        self.turn = 0
        self.works = True

    @property
    def shared(self) -> bool:
        """Whether there are, or have been, other ranks to agree with."""
        if self._rank is None and grouped():
            self._rank = rank()
        return self._rank is not None

    def look(self) -> None:
        """Look for a process group when next asked."""
        self._unseen = 0

    @property
    def judges(self) -> bool:
        """Whether this is the process that judges and writes."""
        self._unseen -= 1
        if self._rank is None and self._unseen < 0:
            self._unseen = _LOOK_EVERY
            if not self.shared and self._said is None:
                self._said = rank()
        return (self._said if self._rank is None else self._rank) == 0

    @property
    def verdict(self) -> Verdict | None:
        """The verdict that stops, or has stopped, all ranks."""
        return self._agreement.verdict

    def should_stop(self, moved: int, wanted: Verdict | None) -> bool:
        """Whether to stop now: the n-th turn is answered alike on every rank.

        Args:
            moved: grows with every optimiser step.
            wanted: a verdict of this process that recommends stopping; counts where it judges.
        """
        if moved != self._asked_at:
            self._asked_at = moved
            self.turn += 1
        if not self.shared:
            return wanted is not None and self.judges
        agreed = self._agreement
        if self.works and agreed.stop is None and dist.is_initialized():
            try:
                if not self.judges:
                    agreed.look(group_store(), self.turn)
                elif wanted is not None:
                    agreed.decide(group_store(), self.turn, wanted)
            except Exception as error:
                self.works = False
                self._fault("stopping together with the other ranks", error)
        return agreed.stop is not None and self.turn >= agreed.stop


def whole(name: str, value: Any) -> Any:
    """The value; of a distributed tensor the local one, which must be all of it.

    Raises:
        TypeError: a tensor that is split over ranks: to read it, all of them would have to come.
    """
    placements = getattr(value, "placements", None)
    if placements is None:
        return value
    if all(placement.is_replicate() for placement in placements):
        return value.to_local()
    raise TypeError(f"{name} is split over ranks ({placements}); pass its full_tensor().")


def is_split(model: torch.nn.Module) -> bool:
    """Whether the weights are split over ranks (FSDP, tensor parallelism)."""
    if any(hasattr(parameter, "placements") for parameter in model.parameters()):
        return True
    return any(type(part).__name__ == "FullyShardedDataParallel" for part in model.modules())
