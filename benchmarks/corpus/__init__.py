"""A corpus of recorded training runs, and the generator that made it."""
