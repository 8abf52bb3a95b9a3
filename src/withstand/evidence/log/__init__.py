"""The evidence log: append-only, hash-chained, on the disk in groups; its inputs, encrypted."""

from ._checkpoint import Checkpoint, Signer, append_to, read_checkpoints
from ._log import Counts, Log
from ._record import START, Head, Record
from ._segment import Break, Place, read
from ._vault import Vault
from ._verify import Verified, verify

__all__ = [
    "START",
    "Break",
    "Checkpoint",
    "Counts",
    "Head",
    "Log",
    "Place",
    "Record",
    "Signer",
    "Vault",
    "Verified",
    "append_to",
    "read",
    "read_checkpoints",
    "verify",
]
