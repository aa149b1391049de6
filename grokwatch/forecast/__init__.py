"""Forecasts: from what was seen to a probability, a time and a reason."""
