"""Warnings tell, they never stop a training, even where the user has turned them into errors."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import numpy as np

log = logging.getLogger("grokwatch")

_OURS = "grokwatch: "
_logged: set[tuple[str, int]] = set()


def warn(message: str) -> None:
    """Warn; where warnings are errors, log an error instead."""
    try:
        warnings.warn(f"{_OURS}{message}", RuntimeWarning, stacklevel=4)
    except Exception:  # where warnings are errors, or somebody's own way to show them fails
        log.error("%s%s", _OURS, message)


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Neither ``python -W error`` nor ``numpy.seterr("raise")`` may break what runs inside.

    A warning that is an error to the user is logged, once for each place it comes from; any
    other takes its usual way.

    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error")
    ...     with calm():
    ...         warnings.warn("not raised")
    """
    with np.errstate(divide="warn", over="warn", invalid="warn", under="ignore"):
        if not any(action == "error" for action, *_ in warnings.filters):
            yield
            return
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    for warning in caught:
        _let_out(warning)


def _let_out(warning: warnings.WarningMessage) -> None:
    try:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    except Warning:
        place = (warning.filename, warning.lineno)
        if str(warning.message).startswith(_OURS):
            log.error("%s", warning.message)
        elif place not in _logged:
            _logged.add(place)
            log.warning("%s: %s", warning.category.__name__, warning.message)
