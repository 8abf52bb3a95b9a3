"""How much is taken in at one time."""

from __future__ import annotations

from collections.abc import Callable

from ._message import Answer, Headers, refusal

_LAST: Headers = [(b"connection", b"close")]
_SHORT = 1.0

LONG_BODY = 65_536
"""Bytes above which an application gives a body room only after the request's head was looked at;
the guard's own ports look at each head whose body is not there."""


class Upload:
    """A body that is to come: whose it is, the bytes it may come to need, and since when."""

    __slots__ = ("_give_way", "needed", "owner", "since")

    def __init__(self, owner: str, needed: int, since: float, give_way: Callable[[], None]) -> None:
        self.owner, self.needed, self.since, self._give_way = owner, needed, since, give_way

    def give_way(self) -> None:
        """Wait for it no longer."""
        self._give_way()


class Intake:
    """Counts requests under way, and the memory that their bodies may come to need.

    body: bytes of one; patience: seconds for a whole body to come; most: requests that are answered
    at one time; memory: bytes of all bodies. All of it may be changed. A request has a place among
    `most` only when all of it is there, so that nobody takes one up by sending nothing.
    """

    def __init__(
        self, *, body: int = 16 * 2**20, patience: float = 10.0, most: int = 256,
        memory: int = 512 * 2**20,
    ) -> None:  # fmt: skip
        self.body, self.patience, self.most, self.memory = body, patience, most, memory
        self.now = self._answered = self._held = 0
        self._uploads: dict[str, dict[Upload, None]] = {}

    def needed(self, length: int | None) -> int:
        """The bytes that a body of a length may come to need, None for one in chunks."""
        if length is None:
            return self.body
        # What is longer is refused before it is read.
        return length if length <= self.body else 0

    def wait(
        self, owner: str, needed: int, now: float, give_way: Callable[[], None]
    ) -> Upload | None:
        """Hold room for a body that is to come; None where there is none.

        Where memory is short the client that holds most of it gives way, its oldest body first. A
        client that would itself hold most has room only if its oldest body is late.
        """
        if self._answered >= self.most:
            return None
        while self._held + needed > self.memory:
            if not self._make_room(owner, needed, now):
                return None
        upload = Upload(owner, needed, now, give_way)
        self._uploads.setdefault(owner, {})[upload] = None
        self.now += 1
        self._held += needed
        return upload

    def drop(self, upload: Upload) -> bool:
        """A body is there, or does not come; False where it had given way before."""
        ones = self._uploads.get(upload.owner)
        if ones is None or upload not in ones:
            return False
        del ones[upload]
        if not ones:
            del self._uploads[upload.owner]
        self.now -= 1
        self._held -= upload.needed
        return True

    def enter(self, needed: int) -> bool:
        """Take in a request whose body of so many bytes is there; False where there is no room."""
        if self._answered >= self.most or self._held + needed > self.memory:
            return False
        self.now += 1
        self._answered += 1
        self._held += needed
        return True

    def leave(self, needed: int) -> None:
        """One that was taken in has been answered."""
        self.now -= 1
        self._answered -= 1
        self._held -= needed

    def too_large(self) -> Answer:
        """The answer to a body that is too long."""
        return refusal(413, f"the body has more than {self.body} bytes", _LAST)

    def _make_room(self, owner: str, needed: int, now: float) -> bool:
        held = {who: sum(one.needed for one in ones) for who, ones in self._uploads.items()}
        held[owner] = held.get(owner, 0) + needed
        greatest = max(held, key=lambda who: (held[who], who == owner))
        oldest = next(iter(self._uploads.get(greatest, ())), None)
        if oldest is None or (greatest == owner and now - oldest.since < _SHORT):
            return False
        self.drop(oldest)
        oldest.give_way()
        return True


def busy() -> Answer:
    """The answer where there is no room."""
    return refusal(503, "try again later", [(b"retry-after", b"1")])


def too_slow() -> Answer:
    """The answer to a body that does not come."""
    return refusal(408, "the body took too long", _LAST)


def ended() -> Answer:
    """The answer where a request is waited for no longer, since the server ends or is full."""
    return refusal(503, "try again later", _LAST)
