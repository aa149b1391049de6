"""grokwatch: will this run generalise, when, and should it be stopped?

``watch`` follows a PyTorch loop, :class:`Monitor` takes plain numbers, :func:`replay` judges a
recorded :class:`Run`; all three give the same :class:`Verdict` for the same observations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grokwatch._version import __version__
from grokwatch.forecast import Forecast
from grokwatch.monitor import Monitor
from grokwatch.records import Run
from grokwatch.replay import replay
from grokwatch.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from grokwatch.integrations.pytorch import Watch

__all__ = ["Forecast", "Monitor", "Run", "Verdict", "__version__", "replay", "watch"]


def watch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    *,
    budget: int,
    **settings: Any,
) -> Watch:
    """Watch a PyTorch training loop; see :class:`grokwatch.integrations.pytorch.Watch`.

    Imports torch on the first call, never before.
    """
    from grokwatch.integrations.pytorch import Watch

    return Watch(model, optimizer, budget=budget, **settings)
