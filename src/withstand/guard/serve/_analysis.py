"""What controllers of a cluster ask about a canary: read-only, with a token of its own."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

import orjson

from .._asgi import Receive, Scope, Send
from .._message import Answer, refusal
from ._admin import body_of, json_answer, send_answer
from ._canaries import Canaries

_GATES = {"passed": "pass", "failed": "fail"}


class Analysis:
    """An ASGI application that tells the verdict of a canary, and figures; it changes nothing.

    `GET /analysis/MODEL` is for Argo Rollouts' web provider. `POST /analysis/MODEL/passed` and
    `.../failed` are gates for Flagger's webhooks: 200 where it is so, else 409. What is not known
    is neither. The token comes as a bearer token; or, since Flagger sends no headers of its own, in
    the body as `metadata.token`.
    """

    def __init__(
        self, canaries: Canaries, exposition: Callable[[str], tuple[bytes, str]], token: str
    ) -> None:
        self._canaries, self._exposition, self._token = canaries, exposition, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            body = await body_of(receive) if scope["method"] == "POST" else b""
            await send_answer(send, self._answer(scope, dict(scope["headers"]), body))

    def _answer(self, scope: Scope, headers: dict[bytes, bytes], body: bytes | None) -> Answer:
        shown = headers.get(b"authorization", b"")
        if not shown:
            shown = b"Bearer " + _token_in(body)
        if not hmac.compare_digest(shown, b"Bearer " + self._token):
            return refusal(401, "the token for analysis is missing: Authorization: Bearer TOKEN")
        method, parts = scope["method"], scope["path"].strip("/").split("/")
        if method == "GET" and parts == ["metrics"]:
            text, kind = self._exposition(headers.get(b"accept", b"").decode("latin-1"))
            return Answer(200, [(b"content-type", kind.encode())], text)
        if parts[0] != "analysis" or len(parts) not in (2, 3):
            return refusal(404, "there is nothing here")
        told = self._canaries.told()["models"].get(parts[1])
        if told is None:
            return refusal(404, "no model of this name has a canary")
        if len(parts) == 2 and method == "GET":
            return json_answer(200, _shown(parts[1], told))
        if len(parts) == 3 and parts[2] in _GATES and method == "POST":
            verdict = told["verdict"] or "inconclusive"
            holds = verdict == _GATES[parts[2]]
            return json_answer(200 if holds else 409, {"verdict": verdict, "state": told["state"]})
        return refusal(404, "there is nothing here")


def _shown(name: str, told: dict[str, Any]) -> dict[str, Any]:
    verdict = told["verdict"] or "inconclusive"
    return {
        "model": name,
        "verdict": verdict,
        "passed": verdict == "pass",
        "failed": verdict == "fail",
        **{key: told[key] for key in ("version", "state", "weight", "why", "compared")},
    }


def _token_in(body: bytes | None) -> bytes:
    try:
        token = orjson.loads(body or b"{}")["metadata"]["token"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return b""
    return token.encode() if isinstance(token, str) else b""
