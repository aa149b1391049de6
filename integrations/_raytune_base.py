"""Ray Tune's own base classes, or one clear error without them."""

from __future__ import annotations

from typing import Any

try:
    from ray import tune
    from ray.tune import schedulers
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "ray":
        raise
    raise ModuleNotFoundError(
        "grokwatch.integrations.raytune needs Ray Tune: pip install 'grokwatch[ray]'",
        name=error.name,
    ) from None

Stopper: Any = tune.Stopper
TrialScheduler: Any = schedulers.TrialScheduler
FIFOScheduler: Any = schedulers.FIFOScheduler
