"""Secrets of a guard: from the environment, or from a folder that only its owner can read."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..._errors import ConfigError

NAMES = {
    "pepper": "digests of API keys",
    "fingerprint": "fingerprints of inputs, and what is redacted",
    "projections": "how queries are compared",
    "master": "the vault that keeps inputs",
    "token": "changes by the admin port",
    "experiment": "passes of permitted attacks",
    "analysis": "what a cluster's controllers may read of a canary",
}
"""What each secret is for."""

_BYTES = 32


class Secrets:
    """Secrets of 32 bytes by name; one that is not there yet is made, readable by its owner alone.

    WITHSTAND_PEPPER, WITHSTAND_MASTER and so on, in hex, are taken before the files of the folder.
    """

    def __init__(self, folder: str | Path, environment: Mapping[str, str] = os.environ) -> None:
        self.folder, self._environment = Path(folder), environment

    def get(self, name: str) -> bytes:
        """A secret of NAMES; raises ConfigError for one that is malformed or not secret."""
        variable = f"WITHSTAND_{name.upper()}"
        told = self._environment.get(variable)
        where = variable
        if told is None:
            path = self.folder / name
            told, where = self._kept(path), str(path)
        try:
            found = bytes.fromhex(told.strip())
        except ValueError:
            found = b""
        if len(found) != _BYTES:
            raise ConfigError(f"secret {where} is not {_BYTES} bytes in hex; see `openssl rand`")
        return found

    def _kept(self, path: Path) -> str:
        try:
            if not path.exists():
                self._make(path)
            if stat.S_IMODE(path.stat().st_mode) & 0o007:
                raise ConfigError(f"secret {path} is open to everybody; run `chmod 600 {path}`")
            return path.read_text("ascii", "replace")
        except OSError as error:
            raise ConfigError(
                f"secret {path}: {error.strerror}; give another folder as guard.secrets"
            ) from None

    def _make(self, path: Path) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_hex(_BYTES) + "\n")
            # Linked, not renamed: of two that start at once, the first one's secret stays.
            with suppress(FileExistsError):
                os.link(part, path)
        finally:
            part.unlink(missing_ok=True)
