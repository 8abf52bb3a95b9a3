"""Heads of requests and of answers, as HTTP/1.1 has them and no other way."""

from __future__ import annotations

from http import HTTPStatus

from .._message import Answer, Headers

_MOST = 100
_STATUS = {
    status: b"HTTP/1.1 %d %b" % (status, phrase.encode())
    for status, phrase in (
        (status, HTTPStatus(status).phrase if status in set(HTTPStatus) else "")
        for status in range(100, 600)
    )
}


class HeadError(Exception):
    """A head that is refused: status and text of the answer, and a word to count by."""

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status, self.reason, self.text = status, reason, text


NOT_HTTP = HeadError(400, "not_http", "this is not HTTP as it should be")
LONG = HeadError(431, "headers", "the headers are too long")
SLOW = HeadError(408, "slow_head", "the headers took too long")


def body_length(headers: Headers, version: str) -> int | None:
    """The length of a request's body, None for one in chunks.

    Raises HeadError for heads that servers read differently.
    """
    if version not in ("1.0", "1.1"):
        raise HeadError(505, "version", "HTTP/1.1, please")
    if len(headers) > _MOST:
        raise LONG
    hosts = lengths = 0
    length, codings = b"0", []
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths, length = lengths + 1, value
        elif name == b"transfer-encoding":
            codings.append(value.lower())
    if hosts != 1 and (hosts or version == "1.1"):
        raise HeadError(400, "host", "one Host, please")
    if codings:
        if lengths or version != "1.1" or codings != [b"chunked"]:
            raise HeadError(400, "framing", "one length or chunks, not both")
        return None
    if lengths > 1:
        raise HeadError(400, "framing", "one Content-Length, please")
    return int(length)


def answer_head(answer: Answer, date: bytes, *, last: bool) -> bytes:
    """The head of an answer; last: the connection ends with it.

    date: the header's line. Raises ValueError for what could end a header early, and for a status
    that is none.
    """
    first = _STATUS.get(answer.status)
    if first is None:
        raise ValueError("no status")
    lines = [first, date]
    for name, value in answer.headers:
        lines.append(name + b": " + value)
    if last and (b"connection", b"close") not in answer.headers:
        lines.append(b"connection: close")
    if answer.status != 204:
        lines.append(b"content-length: %d" % len(answer.body))
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    ends = len(lines) + 1
    if head.count(b"\r") != ends or head.count(b"\n") != ends or b"\0" in head:
        raise ValueError("a header with an end in it")
    return head
