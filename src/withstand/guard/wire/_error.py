"""A request that is not let through, and what is told of it."""

from __future__ import annotations


class RequestError(Exception):
    """A request that does not keep to the protocol or its limits.

    status: of the HTTP answer. reason: a word to count by. headers: of the answer. The text is for
    whoever wrote the request, and says nothing of detectors or policies.
    """

    def __init__(
        self, status: int, reason: str, text: str, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        super().__init__(text)
        self.status, self.reason, self.headers = status, reason, headers or []
