"""A base class for callbacks of both packages that Lightning comes in."""

from __future__ import annotations

import importlib

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def base() -> type:
    """A class that the trainers of every installed package take for a callback of their own.

    Raises:
        ModuleNotFoundError: neither package is installed.
    """
    bases = []
    for package in _PACKAGES:
        try:
            bases.append(importlib.import_module(package).Callback)
        except ModuleNotFoundError as error:
            if error.name not in (package, package.partition(".")[0]):
                raise
    if not bases:
        raise ModuleNotFoundError(
            "grokwatch.integrations.lightning needs lightning or pytorch_lightning: "
            "pip install 'grokwatch[lightning]'",
            name="lightning",
        )
    return type("Callback", tuple(bases), {})
