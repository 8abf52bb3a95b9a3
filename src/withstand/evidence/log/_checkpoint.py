"""Signed heads, to be kept where the writer of the log cannot reach them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..._errors import EvidenceError
from ._crypto import is_signed, private_key, public_hex
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

    def signed_by(self, public: str) -> bool:
        """Whether the owner of a public key (hex) has signed it."""
        return is_signed(_message(self.head, self.wall), self.signature, public)


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
        self._key, self._anchors = private_key(Path(key)), anchors
        self._every, self._seconds = every, seconds
        self._last, self._at = 0, -float("inf")
        self._failures = 0
        self.public = public_hex(self._key)

    def __call__(self, head: Head) -> None:
        """Sign a head where one is due; for `Log(committed=...)`. What fails is counted."""
        now = time.monotonic()
        if head.seq - self._last < self._every and now - self._at < self._seconds:
            return
        self._hand_out(head)
        self._at = now

    @property
    def failures(self) -> int:
        """How often a place could not be told, its own attempts included."""
        return self._failures + sum(getattr(one, "failures", 0) for one in self._anchors)

    def close(self, head: Head) -> None:
        """Sign the last head, and let go of the anchors."""
        if head.seq > self._last:
            self._hand_out(head)
        for anchor in self._anchors:
            close = getattr(anchor, "close", None)
            if close is not None:
                close()

    def _hand_out(self, head: Head) -> None:
        checkpoint = self.sign(head)
        for anchor in self._anchors:
            try:
                anchor(checkpoint)
            except OSError:
                self._failures += 1
        self._last = head.seq

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
        text = path.read_text()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise EvidenceError(f"checkpoints {path}: {why}; give the file of an anchor") from None
    lines, found = text.splitlines(), []
    for number, line in enumerate(lines, 1):
        try:
            checkpoint = Checkpoint(**json.loads(line))
            signed = checkpoint.signed_by(public)
        except (ValueError, TypeError):
            signed = False
        if not signed:
            # A crash may leave half of the last line.
            if number == len(lines) and not text.endswith("\n"):
                break
            raise EvidenceError(
                f"checkpoints {path}: line {number} is not signed with the key {public[:16]}…; "
                "look who changed it"
            )
        found.append(checkpoint)
    return found


def _message(head: Head, wall: float) -> bytes:
    return f"withstand evidence 1\n{head.seq}\n{head.hash}\n{wall!r}\n".encode()
