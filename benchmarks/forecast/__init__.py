"""Fitting and judging the forecast on the corpus."""
