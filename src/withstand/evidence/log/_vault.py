"""Inputs as they came, encrypted, each under a key of its own that can be destroyed."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ..._errors import EvidenceError
from .._shard import sync_folder, write_file
from ._crypto import cryptography

_NONCE, _KEY = 12, 32
_REFERENCE = re.compile(r"[0-9a-f]{64}")


class Vault:
    """Encrypted inputs in a folder, each in a file that is named by the sha256 of what is in it.

    AES-256-GCM under a random key for each, and that key under `master` (32 bytes). To erase an
    input is to destroy its key: the file may stay, in backups too, and the log that names it still
    verifies. Without the master key nothing can be put or got, only erased and looked after. Raises
    EvidenceError for a folder that cannot be written or a master key that is none.
    """

    def __init__(self, folder: str | Path, master: bytes | None = None) -> None:
        if master is not None and len(master) != _KEY:
            raise EvidenceError(f"the master key has {len(master)} bytes; give {_KEY} random ones")
        self.folder = Path(folder)
        self._cipher = cryptography("hazmat.primitives.ciphers.aead").AESGCM
        self._given = master
        self._lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._keys = sqlite3.connect(self.folder / "keys.sqlite", check_same_thread=False)
            with self._keys:
                # Deleted keys are overwritten, and no journal keeps a copy of them.
                self._keys.execute("PRAGMA secure_delete = ON")
                self._keys.execute("PRAGMA journal_mode = TRUNCATE")
                self._keys.execute("PRAGMA synchronous = FULL")
                self._keys.execute(
                    "CREATE TABLE IF NOT EXISTS keys (reference TEXT PRIMARY KEY, wrapped BLOB)"
                )
        except (OSError, sqlite3.Error) as error:
            raise EvidenceError(
                f"vault {self.folder} cannot be opened: {error}; give another folder"
            ) from None

    def put(self, inputs: list[bytes]) -> list[str]:
        """Keep some inputs and return the reference of each, when all are on the disk."""
        references, keys = [], []
        try:
            for content in inputs:
                key, nonce = os.urandom(_KEY), os.urandom(_NONCE)
                sealed = nonce + self._cipher(key).encrypt(nonce, content, None)
                reference = hashlib.sha256(sealed).hexdigest()
                wrapping = os.urandom(_NONCE)
                wrapped = wrapping + self._master.encrypt(wrapping, key, reference.encode())
                self._write(reference, sealed)
                references.append(reference)
                keys.append((reference, wrapped))
            with self._lock, self._keys:
                self._keys.executemany("INSERT INTO keys VALUES (?, ?)", keys)
        except (OSError, sqlite3.Error) as error:
            raise EvidenceError(
                f"vault {self.folder} cannot be written: {error}; free space there"
            ) from None
        return references

    def get(self, reference: str) -> bytes:
        """An input by its reference; raises EvidenceError where it was erased, lost or changed."""
        why = self.fault(reference)
        wrapped = self._wrapped(reference)
        if why or wrapped is None:
            raise EvidenceError(f"input {reference[:16]}…: {why or 'it was erased'}")
        invalid = cryptography("exceptions").InvalidTag
        sealed = self._path(reference).read_bytes()
        try:
            key = self._master.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], reference.encode())
            return bytes(self._cipher(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], None))
        except invalid:
            raise EvidenceError(
                f"input {reference[:16]}…: this master key does not open it; give the one that it "
                "was kept with"
            ) from None

    def erase(self, reference: str) -> bool:
        """Destroy an input's key, and its file here; False where it was erased before."""
        with self._lock, self._keys:
            gone = self._keys.execute("DELETE FROM keys WHERE reference = ?", (reference,)).rowcount
        self._path(reference).unlink(missing_ok=True)
        return bool(gone)

    def erased(self, reference: str) -> bool:
        """Whether there is no key any more."""
        return self._wrapped(reference) is None

    def fault(self, reference: str) -> str:
        """What is wrong with an input that was not erased, or nothing."""
        path = self._path(reference)
        if self.erased(reference):
            return ""
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"its file is gone ({error.strerror})"
        return "" if found == reference else "its file was replaced"

    def references(self) -> Iterator[str]:
        """The references of all inputs that were not erased."""
        with self._lock, closing(self._keys.execute("SELECT reference FROM keys")) as rows:
            found = [str(row[0]) for row in rows]
        yield from found

    def close(self) -> None:
        """Let go of the keys."""
        self._keys.close()

    @property
    def _master(self) -> Any:
        if self._given is None:
            raise EvidenceError(f"vault {self.folder} was opened without its master key; give it")
        return self._cipher(self._given)

    def _wrapped(self, reference: str) -> bytes | None:
        with self._lock:
            row = self._keys.execute(
                "SELECT wrapped FROM keys WHERE reference = ?", (reference,)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def _path(self, reference: str) -> Path:
        # Never a path that somebody made up.
        if not _REFERENCE.fullmatch(reference):
            raise EvidenceError(f"{reference[:80]!r} is no reference of an input")
        return self.folder / reference[:2] / reference

    def _write(self, reference: str, sealed: bytes) -> None:
        path = self._path(reference)
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        write_file(part, sealed)
        part.replace(path)
        sync_folder(path.parent)
