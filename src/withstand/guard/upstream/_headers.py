"""What no request and no answer carries across, whatever is behind the guard."""

from __future__ import annotations

import re
from functools import lru_cache

from .._message import Answer, Headers, UpstreamError

_HOP = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"content-length",
}  # fmt: skip
# Whoever answers the client tells these itself.
_OURS = _HOP | {b"date", b"server"}
_OF_OURS = _HOP | {b"host"}
_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e\x80-\xff]*")


def sent(headers: Headers) -> Headers:
    """Headers without those of the connection and the host, which are ours.

    Raises UpstreamError for what could end a header early: it would smuggle a second request.
    """
    lines(headers)
    return [pair for pair in headers if pair[0] not in _OF_OURS]


def lines(headers: Headers) -> list[bytes]:
    """The same, each as the line that is sent."""
    found = []
    for name, value in headers:
        line = _line(name, value)
        if name not in _OF_OURS:
            found.append(line)
    return found


@lru_cache(maxsize=256)
def _line(name: bytes, value: bytes) -> bytes:
    line = name + b": " + value
    if not _LINE.fullmatch(line):
        raise UpstreamError(502, "header")
    return line


def received(answer: Answer) -> Answer:
    """An answer without the headers of its connection.

    Raises UpstreamError for a redirect, since only the configured host is asked and its address is
    nobody's business, and for a compressed body, which was not asked for.
    """
    if 300 <= answer.status < 400:
        raise UpstreamError(502, "upstream_redirects")
    kept = []
    for pair in answer.headers:
        if pair[0] == b"content-encoding" and pair[1].lower() != b"identity":
            raise UpstreamError(502, "upstream_lies")
        if pair[0] not in _OURS:
            kept.append(pair)
    return Answer(answer.status, kept, answer.body)
