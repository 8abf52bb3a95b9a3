"""How much is taken in at one time."""

from __future__ import annotations

from ._message import Answer, Headers, refusal

_LAST: Headers = [(b"connection", b"close")]

LONG_BODY = 65_536
"""Bytes above which a body is given room only after the request's head was looked at."""


class Intake:
    """Counts requests under way, and the memory that their bodies may come to need.

    body: bytes of one; patience: seconds for a whole body to come; most: requests at one time;
    memory: bytes of all their bodies. All of it may be changed.
    """

    def __init__(
        self, *, body: int = 16 * 2**20, patience: float = 10.0, most: int = 256,
        memory: int = 512 * 2**20,
    ) -> None:  # fmt: skip
        self.body, self.patience, self.most, self.memory = body, patience, most, memory
        self.now = self._held = 0

    def needed(self, length: int | None) -> int:
        """The bytes that a body of a length may come to need, None for one in chunks."""
        if length is None:
            return self.body
        # What is longer is refused before it is read.
        return length if length <= self.body else 0

    def enter(self, needed: int) -> bool:
        """Take in a request that needs so many bytes; False where there is no room."""
        if self.now >= self.most or self._held + needed > self.memory:
            return False
        self.now += 1
        self._held += needed
        return True

    def leave(self, needed: int) -> None:
        """One that was taken in has been answered, or has gone."""
        self.now -= 1
        self._held -= needed

    def too_large(self) -> Answer:
        """The answer to a body that is too long."""
        return refusal(413, f"the body has more than {self.body} bytes", _LAST)


def busy() -> Answer:
    """The answer where there is no room."""
    return refusal(503, "try again later", [(b"retry-after", b"1")])


def too_slow() -> Answer:
    """The answer to a body that does not come."""
    return refusal(408, "the body took too long", _LAST)


def ended() -> Answer:
    """The answer where the server ends, and has waited long enough."""
    return refusal(503, "try again later", _LAST)
