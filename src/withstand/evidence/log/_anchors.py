"""Places outside, by their addresses: a file, or a bucket with object lock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..._errors import EvidenceError
from ._checkpoint import Checkpoint, append_to, read_checkpoints
from ._s3 import S3Anchor, read_bucket

_BUCKET = "s3://"


def anchor_at(place: str, folder: Path = Path()) -> Callable[[Checkpoint], None]:
    """The anchor at an address, of which a file's is taken from a folder; raises EvidenceError."""
    return S3Anchor(place) if place.startswith(_BUCKET) else append_to(folder / place)


def checkpoints_at(place: str, public: str) -> list[Checkpoint]:
    """The checkpoints at an address; raises EvidenceError for one that this key has not signed."""
    if not place.startswith(_BUCKET):
        return read_checkpoints(place, public)
    found = read_bucket(place)
    for checkpoint in found:
        if not checkpoint.signed_by(public):
            raise EvidenceError(
                f"{place}: the checkpoint of record {checkpoint.seq} is not signed with the key "
                f"{public[:16]}…; look who put it there"
            )
    return found
