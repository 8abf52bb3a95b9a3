"""The guard as a process: its ports, its end, and a new configuration on the way."""

from ._admin import Admin
from ._connection import Connection
from ._door import Door
from ._server import Server, serve
from ._service import Service

__all__ = ["Admin", "Connection", "Door", "Server", "Service", "serve"]
