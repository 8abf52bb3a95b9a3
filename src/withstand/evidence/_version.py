"""One version of a corpus: a folder that is there as a whole and never changes again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .._errors import CorpusError
from .._version import __version__
from ._entry import Entry, Origin, known, now
from ._shard import Shard, damaged

FORMAT = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version's manifest: what it adds to its parent.

    digest: sha256 of the manifest, which holds the digest of its parent's (empty for the first)
    and those of the shards, so that it vouches for all there is up to this version. entries: how
    many it adds; total: how many there are with it. remarks: how many it makes on entries, its own
    or earlier ones; remarks_sha256: of the file with them.
    """

    number: int
    digest: str
    parent: str
    time: str
    withstand: str
    entries: int
    total: int
    shards: tuple[Shard, ...]
    remarks: int = 0
    remarks_sha256: str = ""

    def records(self, folder: Path) -> Iterator[Entry]:
        """The entries that this version adds, line by line; raises CorpusError."""
        for shard in self.shards:
            path = folder / f"{shard.name}.jsonl"
            try:
                with path.open(encoding="utf-8") as lines:
                    for row, line in enumerate(lines):
                        place = {"version": self.number, "shard": shard.name, "row": row}
                        yield known(Entry, {**json.loads(line), **place, "origin": shard.origin})
            except (
                OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
            ) as error:  # fmt: skip
                raise damaged(path, error) from None


def manifest(parent: Version | None, shards: tuple[Shard, ...], remarks: bytes = b"") -> bytes:
    """The manifest of the version that adds these shards, and lines of remarks, to its parent."""
    entries = sum(shard.entries for shard in shards)
    content = {
        "format": FORMAT,
        "number": 1 + (parent.number if parent else 0),
        "parent": parent.digest if parent else "",
        "time": now(),
        "withstand": __version__,
        "entries": entries,
        "total": entries + (parent.total if parent else 0),
        "shards": [asdict(shard) for shard in shards],
        "remarks": remarks.count(b"\n"),
        "remarks_sha256": hashlib.sha256(remarks).hexdigest() if remarks else "",
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def parse(path: Path, parent: Version | None) -> Version:
    """The version whose manifest is at `path`; raises CorpusError unless it follows its parent."""
    try:
        raw = path.read_bytes()
        content: dict[str, Any] = json.loads(raw)
        written = int(content["format"])
        if written > FORMAT:
            raise CorpusError(
                f"{path} has format {written}, withstand {__version__} reads up to {FORMAT}; "
                "update it"
            )
        shards = []
        for shard in content["shards"]:
            shape, origin = tuple(shard["shape"]), known(Origin, shard["origin"])
            shards.append(known(Shard, {**shard, "shape": shape, "origin": origin}))
        digest = hashlib.sha256(raw).hexdigest()
        version = known(Version, {**content, "digest": digest, "shards": tuple(shards)})
        counts = [version.number, version.entries, version.total, version.remarks]
        if not all(isinstance(n, int) for n in (*counts, *(shard.entries for shard in shards))):
            raise TypeError
        if bool(version.remarks) != bool(version.remarks_sha256):
            raise ValueError
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise damaged(path, error) from None
    follows = (1 + parent.number, parent.digest) if parent else (1, "")
    if (version.number, version.parent) != follows:
        raise CorpusError(
            f"{path} does not follow the version before it: one of both was changed after it was "
            "written; restore the corpus from a backup"
        )
    return version
