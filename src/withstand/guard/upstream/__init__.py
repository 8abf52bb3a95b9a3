"""What the guard asks: a server over http, an application in the same process, or a function."""

from ._address import upstream_of
from ._asgi import AppUpstream
from ._call import FunctionUpstream
from ._metadata import Declared, binary_support, inputs_of, read_inputs
from ._pool import HttpPool, Patience

__all__ = [
    "AppUpstream",
    "Declared",
    "FunctionUpstream",
    "HttpPool",
    "Patience",
    "binary_support",
    "inputs_of",
    "read_inputs",
    "upstream_of",
]
