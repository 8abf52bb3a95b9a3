"""Inputs as they came, encrypted, each under a key of its own that can be destroyed."""

from __future__ import annotations

import hashlib
import math
import os
import re
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ..._errors import EvidenceError
from .._shard import sync_folder, write_file
from ._crypto import cryptography

_NONCE, _KEY = 12, 32
_REFERENCE = re.compile(r"[0-9a-f]{64}")
_PACKS, _KEYS = "packs", "keys.sqlite"
_TABLE = (
    "CREATE TABLE IF NOT EXISTS keys (reference TEXT PRIMARY KEY, wrapped BLOB, wall REAL, "
    "pack TEXT, begin INTEGER, size INTEGER)"
)


def is_vault(folder: str | Path) -> bool:
    """Whether a vault is there; reading must not make one."""
    return (Path(folder) / _KEYS).is_file()


class _Kept(NamedTuple):
    wrapped: bytes
    pack: str
    begin: int
    size: int


class Vault:
    """Encrypted inputs in a folder, each known by the sha256 of what lies there of it.

    AES-256-GCM under a random key for each, and that key under `master` (32 bytes). To erase an
    input is to destroy its key: what lies there may stay, in backups too, and the log that names it
    still verifies. Inputs that are put together share a file, which goes with the last of them.
    Without the master key nothing can be put or got, only erased and looked after, and none is made
    where there is none. Raises EvidenceError for a folder that cannot be written, that is no vault,
    or a master key that is none.
    """

    def __init__(self, folder: str | Path, master: bytes | None = None) -> None:
        if master is not None and len(master) != _KEY:
            raise EvidenceError(f"the master key has {len(master)} bytes; give {_KEY} random ones")
        self.folder = Path(folder)
        if master is None and not is_vault(self.folder):
            raise EvidenceError(f"{folder} is no vault; give the folder of a log's inputs")
        self._cipher = cryptography("hazmat.primitives.ciphers.aead").AESGCM
        self._given = master
        self._lock = threading.Lock()
        try:
            (self.folder / _PACKS).mkdir(parents=True, exist_ok=True)
            self._keys = sqlite3.connect(self.folder / _KEYS, check_same_thread=False)
            with self._keys:
                # Deleted keys are overwritten, and no journal keeps a copy of them.
                self._keys.execute("PRAGMA secure_delete = ON")
                self._keys.execute("PRAGMA journal_mode = TRUNCATE")
                self._keys.execute("PRAGMA synchronous = FULL")
                self._keys.execute(_TABLE)
                self._keys.execute("CREATE INDEX IF NOT EXISTS by_pack ON keys (pack)")
        except (OSError, sqlite3.Error) as error:
            raise EvidenceError(
                f"vault {self.folder} cannot be opened: {error}; give another folder"
            ) from None

    def put(self, inputs: list[bytes]) -> list[str]:
        """Keep some inputs and return the reference of each, when all are on the disk."""
        rows, parts, begin, wall = [], [], 0, time.time()
        for content in inputs:
            key, nonce, wrapping = os.urandom(_KEY), os.urandom(_NONCE), os.urandom(_NONCE)
            sealed = nonce + self._cipher(key).encrypt(nonce, content, None)
            reference = hashlib.sha256(sealed).hexdigest()
            wrapped = wrapping + self._master.encrypt(wrapping, key, reference.encode())
            rows.append((reference, wrapped, wall, begin, len(sealed)))
            parts.append(sealed)
            begin += len(sealed)
        if not rows:
            return []
        pack = hashlib.sha256("".join(row[0] for row in rows).encode()).hexdigest()
        path = self._path(pack)
        part = path.with_suffix(f".{os.getpid()}")
        try:
            write_file(part, b"".join(parts))
            part.replace(path)
            sync_folder(path.parent)
            with self._lock, self._keys:
                self._keys.executemany(
                    "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?)",
                    [(*row[:3], pack, *row[3:]) for row in rows],
                )
        except (OSError, sqlite3.Error) as error:
            part.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise EvidenceError(
                f"vault {self.folder} cannot be written: {error}; free space there"
            ) from None
        return [row[0] for row in rows]

    def get(self, reference: str) -> bytes:
        """An input by its reference; raises EvidenceError where it was erased, lost or changed."""
        kept = self._kept(reference)
        if kept is None:
            raise EvidenceError(f"input {reference[:16]}…: it was erased")
        sealed, why = self._sealed(reference, kept)
        if why:
            raise EvidenceError(f"input {reference[:16]}…: {why}")
        invalid, wrapped = cryptography("exceptions").InvalidTag, kept.wrapped
        try:
            key = self._master.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], reference.encode())
            return bytes(self._cipher(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], None))
        except invalid:
            raise EvidenceError(
                f"input {reference[:16]}…: this master key does not open it; give the one that it "
                "was kept with"
            ) from None

    def erase(self, *references: str) -> int:
        """Destroy the keys of inputs, and files in which no other is; how many there still were."""
        found = [(one, kept) for one in references if (kept := self._kept(one)) is not None]
        try:
            with self._lock, self._keys:
                given = [(reference,) for reference, _ in found]
                self._keys.executemany("DELETE FROM keys WHERE reference = ?", given)
            for pack in {kept.pack for _, kept in found}:
                if not self._first("SELECT 1 FROM keys WHERE pack = ? LIMIT 1", pack):
                    self._path(pack).unlink(missing_ok=True)
        except (OSError, sqlite3.Error) as error:
            raise EvidenceError(
                f"vault {self.folder} cannot be written: {error}; free space there"
            ) from None
        return len(found)

    def erased(self, reference: str) -> bool:
        """Whether there is no key any more."""
        return self._kept(reference) is None

    def fault(self, reference: str) -> str:
        """What is wrong with an input that was not erased, or nothing."""
        if not _REFERENCE.fullmatch(reference):
            return "it is no reference of an input"
        kept = self._kept(reference)
        return "" if kept is None else self._sealed(reference, kept)[1]

    def references(self, before: float = math.inf) -> list[str]:
        """The inputs that were not erased, of those kept before a time in seconds since 1970."""
        asked = "SELECT reference FROM keys WHERE wall < ? ORDER BY wall"
        with self._lock, closing(self._keys.execute(asked, (before,))) as rows:
            return [str(row[0]) for row in rows]

    def close(self) -> None:
        """Let go of the keys."""
        self._keys.close()

    @property
    def _master(self) -> Any:
        if self._given is None:
            raise EvidenceError(f"vault {self.folder} was opened without its master key; give it")
        return self._cipher(self._given)

    def _kept(self, reference: str) -> _Kept | None:
        if not _REFERENCE.fullmatch(reference):
            raise EvidenceError(f"{reference[:80]!r} is no reference of an input")
        row = self._first(
            "SELECT wrapped, pack, begin, size FROM keys WHERE reference = ?", reference
        )
        return None if row is None else _Kept(*row)

    def _sealed(self, reference: str, kept: _Kept) -> tuple[bytes, str]:
        """What lies there of an input, and what is wrong with it."""
        try:
            with self._path(kept.pack).open("rb") as file:
                file.seek(kept.begin)
                sealed = file.read(kept.size)
        except OSError as error:
            return b"", f"its file is gone ({error.strerror})"
        same = hashlib.sha256(sealed).hexdigest() == reference
        return sealed, "" if same else "its file was replaced"

    def _first(self, asked: str, value: str) -> tuple[Any, ...] | None:
        with self._lock, closing(self._keys.execute(asked, (value,))) as rows:
            found: tuple[Any, ...] | None = rows.fetchone()
        return found

    def _path(self, pack: str) -> Path:
        # Never a path that somebody made up, be it in the keys.
        if not _REFERENCE.fullmatch(pack):
            raise EvidenceError(f"vault {self.folder} was changed: {pack[:80]!r} is no file of it")
        return self.folder / _PACKS / pack
