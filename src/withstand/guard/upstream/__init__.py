"""What the guard asks: a server over http, an application in the same process, or a function."""

from ._pool import HttpPool, Patience

__all__ = ["HttpPool", "Patience"]
