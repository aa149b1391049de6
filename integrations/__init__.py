"""Thin adapters to frameworks; import them as ``grokwatch.integrations.<name>``."""
