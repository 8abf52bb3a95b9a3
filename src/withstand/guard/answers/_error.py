"""What a client is told when the model server answers with an error."""

from __future__ import annotations

import orjson

from .._message import Answer, refusal

_LONGEST = 200
_OF_THE_BODY = (b"content-type", b"inference-header-content-length")


def plain_error(answer: Answer) -> Answer:
    """An error of the model server as JSON: its own object, or its one line of text.

    A stack trace is for nobody outside, and clients of the protocol read no HTML. Other answers are
    left as they are.
    """
    if answer.status < 400:
        return answer
    kept = [pair for pair in answer.headers if pair[0] not in _OF_THE_BODY]
    try:
        own = isinstance(orjson.loads(answer.body), dict)
    except orjson.JSONDecodeError:
        own = False
    if own and b"Traceback (most recent" not in answer.body:
        headers = [(b"content-type", b"application/json"), *kept]
        return Answer(answer.status, headers, answer.body)
    text = answer.body.decode("utf-8", "replace").strip()
    if own or not text.isprintable() or not 0 < len(text) <= _LONGEST or text.startswith("<"):
        text = "the model server could not answer this request"
    return refusal(answer.status, text, kept)
