"""Readers of runs that people already have, one format a file; :mod:`grokwatch.records` chooses."""
