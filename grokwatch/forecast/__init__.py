"""Forecasts: from what was seen to a probability, a time and a reason."""

from __future__ import annotations

from grokwatch.forecast.learned import Forecast

__all__ = ["Forecast"]
