"""A shard: the files that hold some entries of one type, shape and origin."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .._errors import CorpusError
from ._entry import Array, Entry, Origin

_BYTES = 64 * 2**20
_ENTRIES = 4096


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Entries of one type, shape and origin: `name`.npy with their values (M, ...), and
    `name`.jsonl with a line for each, both with the sha256 of their bytes."""

    name: str
    entries: int
    dtype: str
    shape: tuple[int, ...]
    arrays_sha256: str
    records_sha256: str
    origin: Origin


def grouped(given: list[tuple[Array, Entry]]) -> Iterator[list[tuple[Array, Entry]]]:
    """In shards of one type, shape and origin that a small machine can hold."""
    groups: dict[str, list[tuple[Array, Entry]]] = {}
    for x, entry in given:
        alike = json.dumps([x.dtype.str, x.shape, asdict(entry.origin)], sort_keys=True)
        groups.setdefault(alike, []).append((x, entry))
    for group in groups.values():
        size = max(group[0][0].nbytes, 1)
        most = max(1, min(_ENTRIES, _BYTES // size))
        for start in range(0, len(group), most):
            yield group[start : start + most]


def write_shard(folder: Path, group: list[tuple[Array, Entry]]) -> Shard:
    """Write inputs and their entries to two files of a new shard."""
    first, entry = group[0]
    arrays = io.BytesIO()
    np.save(arrays, np.stack([x for x, _ in group]), allow_pickle=False)
    lines = "".join(f"{entry.line()}\n" for _, entry in group)
    values, records = arrays.getvalue(), lines.encode()
    digests = [hashlib.sha256(content).hexdigest() for content in (values, records)]
    name = hashlib.sha256("".join(digests).encode()).hexdigest()[:32]
    write_file(folder / f"{name}.npy", values)
    write_file(folder / f"{name}.jsonl", records)
    return Shard(
        name=name,
        entries=len(group),
        dtype=first.dtype.name,
        shape=first.shape,
        arrays_sha256=digests[0],
        records_sha256=digests[1],
        origin=entry.origin,
    )


def write_file(path: Path, content: bytes) -> None:
    """Write a file, and come back when it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Come back when a folder's names are on the disk, where the system can tell."""
    with suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def fault(folder: Path, shard: Shard) -> str:
    """What is wrong with a shard's files, or nothing."""
    for kind, digest in (("npy", shard.arrays_sha256), ("jsonl", shard.records_sha256)):
        path = folder / f"{shard.name}.{kind}"
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return str(damaged(path, error))
        if found != digest:
            return f"{path} was changed after it was written; restore the corpus from a backup"
    return ""


def damaged(path: Path, error: Exception) -> CorpusError:
    """The error for a file that cannot be read as what it should be."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else "damaged"
    return CorpusError(f"{path}: {why}; restore the corpus from a backup")
