"""A frame in which a probe may run without leaving a trace in the model or the process."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DistributedDataParallel

from grokwatch.geometry._preserve import Mode, random_state


class Modules:
    """Lends every module that takes part copies of its buffers, and gives the own ones back.

    The buffers themselves are never written, not even with their own values: a training step
    that is half done would refuse to go backward through a buffer that was written to.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._own: list[tuple[nn.Module, dict[str, Tensor | None]]] = []
        self._copies: dict[int, Tensor] = {}
        self._undo: list[tuple[nn.Module, str, Any]] = []
        self.training: set[bool] = set()  # modes in which modules were called

    def called(self, module: nn.Module, _: Any = None) -> None:
        """Take note of a module about to run."""
        if isinstance(module, DistributedDataParallel):
            raise RuntimeError(
                "loss_fn calls a DistributedDataParallel model, which would wait for the other "
                "processes; call its .module instead."
            )
        self.training.add(module.training)
        self.lend(module)

    def lend(self, module: nn.Module) -> None:
        """Swap the buffers for copies, once."""
        if id(module) in self._seen or isinstance(module, torch.jit.ScriptModule):
            return
        self._seen.add(id(module))
        own = dict(module._buffers)
        self._own.append((module, own))
        for name, buffer in own.items():
            if buffer is not None:
                copy = self._copies.setdefault(id(buffer), buffer.detach().clone())
                module._buffers[name] = copy

    def prepare(self, model: nn.Module, mode: Mode) -> None:
        """Set the mode of a whole model and silence its backward hooks."""
        for module in model.modules():
            self.lend(module)
            for name in ("_backward_hooks", "_backward_pre_hooks"):
                self._set(module, name, OrderedDict())
            if mode != "keep":
                # Not .train(): some networks override it and change their weights there.
                self._set(module, "training", mode == "train")

    def _set(self, module: nn.Module, name: str, value: Any) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            return
        self._undo.append((module, name, module.__dict__[name]))
        module.__dict__[name] = value

    def restore(self) -> None:
        """Give everything back."""
        for module, own in self._own:
            module._buffers.clear()
            module._buffers.update(own)
        for module, name, value in reversed(self._undo):
            module.__dict__[name] = value

    @property
    def mode(self) -> str:
        """Mode in which the modules ran: "eval", "train", "mixed", or "" if none ran."""
        if len(self.training) == 2:
            return "mixed"
        return "" if not self.training else "train" if True in self.training else "eval"


@contextlib.contextmanager
def untouched(
    params: list[Tensor], model: nn.Module | None, mode: Mode, seed: int
) -> Iterator[Modules]:
    """Let a loss be differentiated twice and leave everything as it was.

    Kept: random number generators, grad mode, autocast, buffers, modes, hooks of parameters.

    Raises:
        RuntimeError: under inference_mode, where no graph can be built.
    """
    if torch.is_inference_mode_enabled() or any(p.is_inference() for p in params):
        raise RuntimeError(
            "curvature needs gradients, which torch.inference_mode() rules out; probe outside of "
            "it, or use torch.no_grad() instead (works here)."
        )
    modules = Modules()
    kinds = sorted({p.device.type for p in params} | {"cpu"})
    with contextlib.ExitStack() as stack:
        stack.callback(random_state())
        stack.enter_context(torch.enable_grad())
        for kind in kinds:
            stack.enter_context(torch.autocast(kind, enabled=False, cache_enabled=False))
        # Fused attention has no second derivative.
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            # Nor have compiled models; this runs their original code, and compiles nothing.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Using `torch.compile.module.` when there are global")
        stack.callback(modules.restore)
        if model is not None:
            modules.prepare(model, mode)
        stack.callback(register_module_forward_pre_hook(modules.called).remove)
        for p in params:
            # A hook on a parameter is meant for training gradients, and may change them.
            stack.callback(setattr, p, "_backward_hooks", p._backward_hooks)
            p._backward_hooks = None
        # The same dropout masks at every probe.
        torch.default_generator.manual_seed(seed)
        yield modules
