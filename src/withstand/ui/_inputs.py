"""What was decided, and the inputs that it was about."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .._errors import EvidenceError, OperationError, WithstandError
from ..evidence.log import (
    Index,
    Query,
    Record,
    Tensor,
    Vault,
    Verified,
    is_vault,
    unpack,
    verify,
)

_FRESH = _SOON = 1.0


class Kept(NamedTuple):
    """The tensors of an input, or in words why they cannot be shown."""

    tensors: tuple[Tensor, ...]
    why: str = ""


@dataclass
class Check:
    """A reading of the whole log: when, and what was found, or why it could not be read."""

    began: float
    ended: float | None = None
    found: Verified | None = None
    why: str = ""


class Inputs:
    """The evidence in a folder and its vault; secrets: where the guard keeps the master key.

    That key is never made here: without it inputs are told of and not shown.
    """

    def __init__(self, folder: Path, secrets: Path) -> None:
        self.folder = folder
        self._index, self._secrets = Index(folder), secrets
        self._lock, self._looked = threading.Lock(), -_FRESH
        self._broken = ""
        self._vault: Vault | None = None
        self.checked: Check | None = None

    @property
    def broken(self) -> str:
        """Where the chain breaks, as far as it was followed, or nothing; raises EvidenceError."""
        self._follow()
        return self._broken

    def find(self, last: int, **asked: Any) -> list[Record]:
        """The newest records of a query, newest first; raises EvidenceError."""
        self._follow()
        if not self._index.path.exists():
            return []
        return list(reversed(self._index.find(Query(**asked), last)))

    def of(self, record: Record) -> Kept:
        """The input of a record."""
        reference = record.content.get("input")
        if not isinstance(reference, str):
            why = record.content.get("input_lost")
            return Kept((), f"it was lost ({why})" if why else "it was not kept")
        try:
            return Kept(tuple(unpack(self._opened().get(reference))))
        except WithstandError as error:
            return Kept((), str(error))

    def check(self) -> None:
        """Read every byte of the log, beside; raises OperationError where that goes on already."""
        with self._lock:
            if self.checked is not None and self.checked.ended is None:
                raise OperationError("the log is being read already; wait for it")
            now = self.checked = Check(began=time.time())

        def work() -> None:
            try:
                now.found = verify(self.folder)
            except WithstandError as error:
                now.why = str(error)
            except OSError as error:
                now.why = f"{self.folder} cannot be read: {error.strerror}; look after its disk"
            finally:
                now.ended = time.time()

        thread = threading.Thread(target=work, name="verify", daemon=True)
        thread.start()
        # Most logs are read before anybody could look.
        thread.join(_SOON)

    def close(self) -> None:
        """Let go of the vault."""
        if self._vault is not None:
            self._vault.close()

    def _follow(self) -> None:
        with self._lock:
            if not self.folder.is_dir():
                return
            if time.monotonic() - self._looked > _FRESH:
                found = self._index.update()
                self._broken = "" if found is None else str(found)
                self._looked = time.monotonic()

    def _opened(self) -> Vault:
        with self._lock:
            if self._vault is None:
                place = self.folder / "vault"
                if not is_vault(place):
                    raise EvidenceError(f"{place} is no vault, so that inputs cannot be shown")
                self._vault = Vault(place, self._master())
            return self._vault

    def _master(self) -> bytes:
        if "WITHSTAND_MASTER" not in os.environ and not (self._secrets / "master").exists():
            raise EvidenceError(
                f"the vault's master key is not in {self._secrets}, so that inputs cannot be shown"
            )
        from ..guard.access import Secrets

        return Secrets(self._secrets).get("master")
