"""Loss and accuracy of every training step, taken where the model hands them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from grokwatch.integrations._callback import Follower
from grokwatch.integrations._evaluate import accuracy as accuracy_of


class Batches:
    """Collects what a model's forward passes in training mode say about one optimiser step.

    The Trainer shows a callback only the mean loss since the last log, and that with NaN filtered
    out. The numbers stay on their device.

    Args:
        follower: told of what fails.
        processes: how many processes the number of items in a batch is counted over.
        accuracy: whether to take the accuracy from logits and labels.
    """

    def __init__(self, follower: Follower, processes: int = 1, accuracy: bool = True) -> None:
        self._follower, self._processes, self._wants_accuracy = follower, processes, accuracy
        self._handle: Any = None
        self._reset()

    def _reset(self) -> None:
        self._loss: torch.Tensor | None = None
        self._passes = 0
        self._shared = False  # the losses of a step add up, instead of being means each
        self._accuracy: torch.Tensor | None = None
        self._accuracies = 0

    def attach(self, model: torch.nn.Module) -> None:
        """Listen to a model until :meth:`detach`."""
        self.detach()
        self._reset()
        shifted = shifts_labels(model)

        def listen(module: torch.nn.Module, _: Any, kwargs: Mapping[str, Any], output: Any) -> None:
            if module.training and torch.is_grad_enabled() and self._follower.works:
                with self._follower.guard():
                    self._take(kwargs, output, shifted)

        # A compiler that traced it would compile anew for every count that it keeps.
        hook: Any = torch.compiler.disable(listen)  # type: ignore[no-untyped-call]
        self._handle = model.register_forward_hook(hook, with_kwargs=True)

    def detach(self) -> None:
        """Stop listening."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _take(self, kwargs: Mapping[str, Any], output: Any, shifted: bool | None) -> None:
        loss = loss_in(output)
        if loss is None:
            return
        loss = loss.detach().float()
        self._loss = loss.clone() if self._loss is None else self._loss + loss
        self._passes += 1
        self._shared = kwargs.get("num_items_in_batch") is not None
        if not self._wants_accuracy:
            return
        pair = _logits_and_labels(kwargs, output, shifted)
        if pair is not None:
            found = accuracy_of(*pair)
            self._accuracy = found if self._accuracy is None else self._accuracy + found
            self._accuracies += 1

    def step(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Loss and accuracy of the passes since the last call, None for what was not seen."""
        loss, accuracy = self._loss, self._accuracy
        if loss is not None:
            # Told the number of items of the whole step (over all processes), the model divides
            # by it: the parts of a step add up to its mean. Else every part is a mean of its own.
            loss = loss * self._processes if self._shared else loss / self._passes
        if accuracy is not None:
            accuracy = accuracy / self._accuracies
        self._reset()
        return loss, accuracy


def loss_in(output: Any) -> torch.Tensor | None:
    """The loss in what a model returns: an attribute or key ``loss``, or the first of a tuple.

    >>> loss_in({"loss": torch.tensor(2.0), "logits": torch.zeros(3, 2)})
    tensor(2.)
    >>> loss_in((torch.zeros(3, 2),)) is None
    True
    """
    found: Any = None
    if isinstance(output, Mapping):
        found = output.get("loss")
    elif isinstance(output, (tuple, list)):
        found = output[0] if output else None
    else:
        found = getattr(output, "loss", None)
    scalar = isinstance(found, torch.Tensor) and found.numel() == 1 and found.is_floating_point()
    return found.reshape(()) if scalar else None


def shifts_labels(model: torch.nn.Module) -> bool | None:
    """Whether logits at one position go with the label of the next; None = it does not say."""
    whole = getattr(model, "get_base_model", lambda: model)()  # inside an adapter of PEFT
    if getattr(getattr(whole, "config", None), "is_encoder_decoder", False):
        return False
    if type(whole).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return True
    loss = LOSS_MAPPING.get(getattr(whole, "loss_type", None) or "")
    return None if loss is None else loss is ForCausalLMLoss


def _logits_and_labels(
    kwargs: Mapping[str, Any], output: Any, shifted: bool | None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Logits (..., classes) and class indices (...) that belong together, if they are there."""
    mapping = isinstance(output, Mapping)
    logits = output.get("logits") if mapping else getattr(output, "logits", None)
    labels = kwargs.get("labels")
    if not isinstance(logits, torch.Tensor) or logits.ndim < 2 or logits.shape[-1] < 2:
        return None
    ahead = kwargs.get("shift_labels")
    if shifted and ahead is not None:
        labels = ahead
    elif shifted and isinstance(labels, torch.Tensor):
        logits, labels = logits[..., :-1, :], labels[..., 1:]
    if not isinstance(labels, torch.Tensor) or labels.is_floating_point():
        return None
    if shifted is None and logits.ndim > 2:
        return None
    return (logits, labels) if logits.shape[:-1] == labels.shape else None
