"""The evidence log: append-only, hash-chained, on the disk in groups; its inputs, encrypted."""

from ._anchors import anchor_at, checkpoints_at
from ._checkpoint import Checkpoint, Signer, append_to, read_checkpoints
from ._events import cloud_event, event_schema
from ._index import Index, Query, indexed
from ._log import BusyError, Counts, Log
from ._onward import Lost, Position, walk_on
from ._orders import carry_out, order
from ._record import START, Head, Record
from ._retention import Retained, Retention, retain
from ._s3 import S3Anchor, read_bucket
from ._segment import Break, Place, read
from ._tensors import Tensor, fingerprinted, octets, pack, unpack
from ._vault import Vault, is_vault
from ._verify import Verified, verify

__all__ = [
    "START",
    "Break",
    "BusyError",
    "Checkpoint",
    "Counts",
    "Head",
    "Index",
    "Log",
    "Lost",
    "Place",
    "Position",
    "Query",
    "Record",
    "Retained",
    "Retention",
    "S3Anchor",
    "Signer",
    "Tensor",
    "Vault",
    "Verified",
    "anchor_at",
    "append_to",
    "carry_out",
    "checkpoints_at",
    "cloud_event",
    "event_schema",
    "fingerprinted",
    "indexed",
    "is_vault",
    "octets",
    "order",
    "pack",
    "read",
    "read_bucket",
    "read_checkpoints",
    "retain",
    "unpack",
    "verify",
    "walk_on",
]
