"""``python -m grokwatch`` is the same as ``grokwatch``."""

from grokwatch.cli import main

if __name__ == "__main__":
    main()
