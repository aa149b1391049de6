"""Finds losses and accuracies among the names under which people log them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SIDES = {
    "train": {"train", "training", "trn", "tr"},
    "val": {"val", "valid", "validation", "eval", "dev"},
}
_USUAL = {"loss": {"loss"}, "accuracy": {"acc", "accuracy"}}
_ALSO = {"loss": {"nll", "ce", "xent", "crossentropy"}, "accuracy": {"acc1", "top1"}}
_PADDING = {"epoch", "step", "mean", "avg", "multiclass", "binary", "idx", "dataloader", "0"}


def find_key(keys: Iterable[str], side: str, quantity: str) -> str | None:
    """The key that holds a loss or an accuracy, or None if none or several could.

    Args:
        keys: the names there are.
        side: "train" or "val".
        quantity: "loss" or "accuracy".

    A key of exactly the two words comes before one with more; a bare "loss" may be the training
    loss, never the validation loss.

    >>> find_key(["val/loss", "val/acc_top5", "valid_acc", "lr"], "val", "accuracy")
    'valid_acc'
    >>> find_key(["ValidLoss", "trainLoss_epoch", "loss"], "train", "loss")
    'trainLoss_epoch'
    >>> find_key(["val_f1", "loss"], "val", "loss") is None
    True
    >>> find_key(["val_acc_digits", "val_acc_words"], "val", "accuracy") is None
    True
    """
    ranked: dict[int, list[str]] = {}
    for key in keys:
        rank = _rank(key, side, quantity)
        if rank is not None:
            ranked.setdefault(rank, []).append(key)
    if not ranked:
        return None
    best = min(ranked)
    if best in (0, 1):  # several are the same under more names, as val_loss and val_loss_epoch
        return min(ranked[best], key=len)
    return ranked[best][0] if len(ranked[best]) == 1 else None


def _rank(key: str, side: str, quantity: str) -> int | None:
    """0: says just that; 1: in other words; 2: has words to spare; 3: does not name the side."""
    words = set(_words(key))
    usual, also = words & _USUAL[quantity], words & _ALSO[quantity]
    sides = {name for name, known in _SIDES.items() if known & words}
    if not (usual or also) or sides - {side}:
        return None
    if words - usual - also - _SIDES[side] - _PADDING:
        return 2 if sides else None
    if not sides:
        return 3 if side == "train" else None
    return 0 if usual and not also else 1


def _words(key: str) -> list[str]:
    """The words of a key, lower case.

    >>> _words("Val/CrossEntropy_epoch"), _words("valAcc")
    (['val', 'crossentropy', 'epoch'], ['val', 'acc'])
    """
    for phrase in ("CrossEntropy", "cross_entropy", "cross-entropy"):
        key = key.replace(phrase, "crossentropy")
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key)
    return re.findall(r"[a-z0-9]+", spaced.lower())
