"""The command line: one file per verb, and nothing heavy before it is needed."""

from ._main import main

__all__ = ["main"]
