"""Measurements: what the monitor costs, and how good its forecasts are."""
