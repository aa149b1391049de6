"""A probe for a ``Trainer``: the model's own loss on the first batch that it is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from grokwatch.integrations._callback import Follower
from grokwatch.integrations._curvature import HOW
from grokwatch.integrations._huggingface_batches import loss_in
from grokwatch.integrations._huggingface_infer import can_measure_norms, inner


def follow_curvature(follower: Follower, args: Any, others: Mapping[str, Any]) -> None:
    """Measure the curvature of a model's loss while it is trained, on the process that judges.

    Args:
        follower: takes what is measured, and is told what cannot be.
        args: of the training.
        others: what the Trainer hands over with its events: model, optimizer, ...
    """
    prober = follower.curvature
    if prober.probe is None or not follower.works:
        return
    with follower.guard("curvature"):
        model, optimizer = others["model"], others.get("optimizer")
        if optimizer is None or not can_measure_norms(model, optimizer):
            raise NotImplementedError(
                "the weights are split over several processes, or the optimizer takes no hooks"
            )
        if args.n_gpu > 1:
            raise NotImplementedError("the model is copied to several devices")
        prober.follow(follower, model, inner(optimizer), model_loss)
        if not prober.lacks_batch:
            return

        def listen(
            module: torch.nn.Module, positional: Any, kwargs: Mapping[str, Any], output: Any
        ) -> None:
            if module.training and torch.is_grad_enabled() and prober.lacks_batch:
                with follower.guard("curvature"):
                    _take(follower, positional, kwargs, output)

        # A compiler that traced it would compile anew.
        hook: Any = torch.compiler.disable(listen)  # type: ignore[no-untyped-call]
        prober.until_close(model.register_forward_hook(hook, with_kwargs=True).remove)


def _take(follower: Follower, positional: Any, kwargs: Mapping[str, Any], output: Any) -> None:
    prober = follower.curvature
    if positional or (loss_in(output) is None and not prober.own_loss):
        prober.close()
        why = "gets arguments without names" if positional else "returns no loss"
        raise ValueError(f"the model {why}; {HOW}.")
    # With the number of items of the whole step, the loss would be a share of that step's mean.
    prober.take_batch({k: v for k, v in kwargs.items() if k != "num_items_in_batch"})


def model_loss(model: torch.nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
    """The loss that a model returns for a batch.

    Raises:
        TypeError: it returns none.
    """
    loss = loss_in(model(**batch))
    if loss is None:
        raise TypeError(f"the model returns no loss; {HOW}.")
    return loss
