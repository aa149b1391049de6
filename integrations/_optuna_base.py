"""Optuna itself, or one clear error without it."""

from __future__ import annotations

from typing import Any

try:
    import optuna
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "optuna":
        raise
    raise ModuleNotFoundError(
        "grokwatch.integrations.optuna needs Optuna: pip install 'grokwatch[optuna]'",
        name=error.name,
    ) from None

BasePruner: Any = optuna.pruners.BasePruner
RDBStorage: Any = optuna.storages.RDBStorage
#: How a trial ends that says how it went. One that failed may be tried again.
ENDED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
