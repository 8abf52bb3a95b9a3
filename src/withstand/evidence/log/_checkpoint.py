"""Signed heads, to be kept where the writer of the log cannot reach them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..._errors import EvidenceError
from ._crypto import cryptography
from ._record import Head


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A head and who vouches for it.

    A chain alone shows a change only to somebody who remembers a hash: whoever can write the whole
    log can also make another one. signature: Ed25519 (RFC 8032, hex) over the rest; key: the public
    one, hex.
    """

    seq: int
    hash: str
    wall: float
    key: str
    signature: str

    @property
    def head(self) -> Head:
        """What the log must contain."""
        return Head(self.seq, self.hash)


class Signer:
    """Signs heads with a key in a file, and hands them to places outside.

    The key is made where there is none, readable by its owner alone. anchors: told each checkpoint,
    such as `append_to` a file on another disk. every, seconds: there is one as soon as so many
    records or so much time have passed since the last one, and at once at the start.
    """

    def __init__(
        self,
        key: str | Path,
        *,
        anchors: tuple[Callable[[Checkpoint], None], ...],
        every: int = 1000,
        seconds: float = 60.0,
    ) -> None:
        self._key, self._anchors = _private(Path(key)), anchors
        self._every, self._seconds = every, seconds
        self._last, self._at = 0, -float("inf")
        self.failures = 0
        self.public = _hex(self._key.public_key())

    def __call__(self, head: Head) -> None:
        """Sign a head where one is due; for `Log(committed=...)`. What fails is counted."""
        now = time.monotonic()
        if head.seq - self._last < self._every and now - self._at < self._seconds:
            return
        checkpoint = self.sign(head)
        for anchor in self._anchors:
            try:
                anchor(checkpoint)
            except OSError:
                self.failures += 1
        self._last, self._at = head.seq, now

    def sign(self, head: Head) -> Checkpoint:
        """The signed head."""
        wall = time.time()
        signature = self._key.sign(_message(head, wall)).hex()
        return Checkpoint(
            seq=head.seq, hash=head.hash, wall=wall, key=self.public, signature=signature
        )


def append_to(path: str | Path) -> Callable[[Checkpoint], None]:
    """An anchor that is a file with a line for each checkpoint."""

    def anchor(checkpoint: Checkpoint) -> None:
        with Path(path).open("a") as file:
            file.write(json.dumps(asdict(checkpoint)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    return anchor


def read_checkpoints(path: str | Path, public: str) -> list[Checkpoint]:
    """The checkpoints in a file; raises EvidenceError for one that this key has not signed."""
    path = Path(path)
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise EvidenceError(f"checkpoints {path}: {why}; give the file of an anchor") from None
    key = cryptography("hazmat.primitives.asymmetric.ed25519").Ed25519PublicKey
    invalid = cryptography("exceptions").InvalidSignature
    found = []
    for number, line in enumerate(lines, 1):
        try:
            checkpoint = Checkpoint(**json.loads(line))
            signature = bytes.fromhex(checkpoint.signature)
            message = _message(checkpoint.head, checkpoint.wall)
            key.from_public_bytes(bytes.fromhex(public)).verify(signature, message)
        except (ValueError, TypeError, invalid):
            # A crash may leave half of the last line.
            if number == len(lines) and not path.read_bytes().endswith(b"\n"):
                break
            raise EvidenceError(
                f"checkpoints {path}: line {number} is not signed with the key {public[:16]}…; "
                "look who changed it"
            ) from None
        found.append(checkpoint)
    return found


def _message(head: Head, wall: float) -> bytes:
    return f"withstand evidence 1\n{head.seq}\n{head.hash}\n{wall!r}\n".encode()


def _private(path: Path) -> Any:
    serialization = cryptography("hazmat.primitives.serialization")
    ed25519 = cryptography("hazmat.primitives.asymmetric.ed25519")
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    try:
        with suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(file, "wb") as out:
                out.write(ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, plain))
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise EvidenceError(f"signing key {path}: {error.strerror}; give another file") from None
    except (ValueError, TypeError):
        raise EvidenceError(
            f"signing key {path} is not a private key in PEM; give the file that was made first"
        ) from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise EvidenceError(f"signing key {path} is not an Ed25519 key; let one be made")
    return key


def _hex(public: Any) -> str:
    serialization = cryptography("hazmat.primitives.serialization")
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return str(raw.hex())
