"""What comes in and what goes out, whatever carries it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import orjson

Headers = list[tuple[bytes, bytes]]
"""Names in small letters."""


class Request(NamedTuple):
    """What a client sends: the path as it was written, and a body that is there in full."""

    method: str
    path: str
    headers: Headers
    body: bytes = b""


class Answer(NamedTuple):
    """What is answered; headers are those that are passed on."""

    status: int
    headers: Headers
    body: bytes


class Upstream(Protocol):
    """What is asked behind the guard: a server, an application or a function."""

    async def ask(self, method: str, target: str, headers: Headers, body: bytes = b"") -> Answer:
        """Send a GET or POST and wait for the answer; raises UpstreamError where there is none."""

    def close(self) -> None:
        """Let go of what is held open."""


class UpstreamError(Exception):
    """No answer that could be passed on; status: 502 or 504; reason: a word to count by."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def refusal(status: int, text: str, headers: Headers | None = None) -> Answer:
    """An error as the Open Inference Protocol has it."""
    told = [(b"content-type", b"application/json"), *(headers or [])]
    return Answer(status, told, orjson.dumps({"error": text}))
