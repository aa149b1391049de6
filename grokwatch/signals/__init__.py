"""Signals: one idea a file, each a stream that equals its batch definition at every prefix."""
