"""The monitor as a process."""

from ._server import Port, serve

__all__ = ["Port", "serve"]
