"""Who may ask: API keys that are kept only as digests."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..._errors import ConfigError
from ._mac import Mac

_BYTES = 32
_PREFIX = "ws_"
_FORM = re.compile(r"ws_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key: `id` is the digest under which all that is known of it is kept.

    tenant: whose it is; benign_optimiser: declared to ask about near copies for a good reason, such
    as explaining answers.
    """

    id: str
    tenant: str
    benign_optimiser: bool = False
    made: float = 0.0


class Keys:
    """The keys in a file, digests only (HMAC-SHA256 under `pepper`, which is kept elsewhere).

    A key has 256 random bits, so that a fast digest is safe: there is nothing to guess. Raises
    ConfigError for a file that is none.
    """

    def __init__(self, path: str | Path, pepper: bytes) -> None:
        if not 16 <= len(pepper) <= 64:
            raise ConfigError(f"the pepper has {len(pepper)} bytes; give 16 to 64 random ones")
        self.path, self._mac = Path(path), Mac(pepper)
        self._known: dict[str, Key] = {}
        self._found: dict[str, Key] = {}
        try:
            told = json.loads(self.path.read_text()) if self.path.exists() else []
            # A key that says it is for another role is no client's: it lets nobody in.
            clients = [one for one in told if one.pop("role", "client") == "client"]
            self._known = {one["id"]: Key(**one) for one in clients}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            raise ConfigError(
                f"keys {self.path} cannot be read; make new ones, or restore the file"
            ) from None

    def make(self, tenant: str, *, benign_optimiser: bool = False) -> str:
        """A new key, which is told once and kept nowhere; raises ConfigError without a tenant."""
        if not tenant.strip():
            raise ConfigError(f"tenant is {tenant!r}; say whose key it is")
        secret = _PREFIX + secrets.token_urlsafe(_BYTES)
        key = Key(
            id=self._digest(secret), tenant=tenant, benign_optimiser=benign_optimiser,
            made=time.time(),
        )  # fmt: skip
        self._known[key.id] = key
        self._save()
        return secret

    def find(self, secret: str) -> Key | None:
        """The key that a client shows, None for one that there is not.

        Equal time for all wrong ones that have a key's form: what is looked up is the digest. A
        right one is found by itself from the second time on, in memory only.
        """
        key = self._found.get(secret)
        if key is None and _FORM.fullmatch(secret):
            key = self._known.get(self._digest(secret))
            if key is not None:
                self._found[secret] = key
        return key

    def revoke(self, identity: str) -> bool:
        """Forget a key by its id; False where there is none."""
        gone = self._known.pop(identity, None) is not None
        self._found.clear()
        self._save()
        return gone

    def __iter__(self) -> Iterator[Key]:
        return iter(sorted(self._known.values(), key=lambda key: key.made))

    def __len__(self) -> int:
        return len(self._known)

    def _digest(self, secret: str) -> str:
        return self._mac(secret.encode())

    def _save(self) -> None:
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            part.write_text(json.dumps([asdict(key) for key in self._known.values()], indent=1))
            part.chmod(0o600)
            part.replace(self.path)
        except OSError as error:
            raise ConfigError(
                f"keys {self.path} cannot be written: {error.strerror}; give another file"
            ) from None
        finally:
            part.unlink(missing_ok=True)
