"""The terminal: a bar with phase and forecast, nothing anywhere else."""

from __future__ import annotations

from io import StringIO

import torch
from rich.console import Console

import grokwatch
from grokwatch import Verdict
from grokwatch.sinks.console import ConsoleSink, describe
from grokwatch.verdict import PHASES


def verdict(phase="memorisation", probability=0.8, eta=(10.0, 2000.0, 3000.0)):
    return Verdict(9, phase, probability, eta, "continue", "Wait.")


def shown(news):
    out = StringIO()
    sink = ConsoleSink(100, Console(file=out, force_terminal=True, width=120))
    sink.observe(40, {"train_loss": 1.0})
    sink.verdict(verdict(), news)
    sink.flush()
    sink.close()
    sink.close()
    return out.getvalue()


def test_a_terminal_shows_phase_forecast_and_news():
    text = shown("spike 1: training loss up 2.0 decades")
    assert "memorisation" in text and "P=0.80" in text and "expect ~2,000" in text
    assert "40/100" in text
    assert "spike 1" in text


def test_news_is_text_not_markup():
    assert "loss [/nonsense] up" in shown("loss [/nonsense] up")


def test_silent_when_not_a_terminal():
    out = StringIO()
    sink = ConsoleSink(100, Console(file=out))
    sink.observe(40, {"train_loss": 1.0})
    sink.verdict(verdict(), "news")
    sink.close()
    assert out.getvalue() == ""


def test_a_watch_in_a_pipe_prints_nothing(capfd):
    with grokwatch.watch(torch.nn.Linear(1, 1), budget=50, console=True) as watch:
        for step in range(1, 51):
            watch.train(loss=1.0 / step)
    assert capfd.readouterr() == ("", "")


def test_every_phase_has_a_description():
    for phase in PHASES:
        assert phase in describe(verdict(phase))
    assert describe(verdict("generalised", 1.0)) == "[green]generalised[/]"
    assert describe(verdict("unknown", None, None)) == "[white]unknown[/]"
