"""The command line, run in this process."""

from __future__ import annotations

import sys

import pytest

from grokwatch import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: status, standard output, standard error."""
    import warnings

    shown = warnings.showwarning

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["grokwatch", *map(str, arguments)])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as end:
            warnings.simplefilter("default")
            cli.main()
        return end.value.code, *capsys.readouterr()

    yield run
    warnings.showwarning = shown
