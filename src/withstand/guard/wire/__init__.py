"""Requests read once, strictly, and written anew: what was inspected is what is forwarded."""

from ._canonical import Forwarded, write_v2
from ._error import RequestError
from ._inference import DATATYPES, Inference, Limits, Named
from ._rows import RowFormat, read_rows, write_rows
from ._v2 import read_v2

__all__ = [
    "DATATYPES",
    "Forwarded",
    "Inference",
    "Limits",
    "Named",
    "RequestError",
    "RowFormat",
    "read_rows",
    "read_v2",
    "write_rows",
    "write_v2",
]
