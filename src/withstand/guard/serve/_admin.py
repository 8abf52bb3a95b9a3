"""What operators ask: health, metrics, the switch, a new configuration. Never for clients."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol
from urllib.parse import unquote

import orjson

from ..._errors import WithstandError, listed, one_line
from .._asgi import Receive, Scope, Send
from .._message import Answer, Request, refusal
from .._mitigations import Mitigation
from ._canaries import ORDERS, OUTCOME, Canaries

_HOST = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_OPERATOR = ("who", "why")
_FIELDS: dict[str, tuple[str, ...]] = {
    "/reload": (),
    "/kill": _OPERATOR,
    "/unkill": _OPERATOR,
    "/mitigate": ("id", "action", "seconds", "key", "model", *_OPERATOR),
    "/lift": ("id", *_OPERATOR),
    "/canary/outcomes": OUTCOME,
    **{f"/canary/{verb}": ("model", "id", *_OPERATOR) for verb in ORDERS},
}

BODY = 65_536
"""Bytes of a body at most, but for what is beside."""


class Operated(Protocol):
    """What the admin port acts upon."""

    def status(self) -> dict[str, Any]:
        """How it is."""

    async def ready(self) -> list[str]:
        """Why it cannot serve, nothing where it can."""

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Its metrics, and their content type."""

    async def reload(self) -> None:
        """Take a new configuration; raises WithstandError where it is broken."""

    def switch(self, killed: bool, who: str, why: str) -> bool:
        """Turn all inspection off or on; False where that could not be written down."""

    def mitigations(self) -> list[Mitigation]:
        """The actions that were ordered and hold."""

    def mitigate(self, new: Mitigation) -> bool:
        """Take an action until it is lifted; False if it holds already; raises WithstandError."""

    def lift(self, identity: str, who: str, why: str) -> bool:
        """End an ordered action; False where there is none."""

    @property
    def canaries(self) -> Canaries:
        """The new versions that are let in."""


class Admin:
    """An ASGI application for one machine's operators; what changes anything needs the token.

    The Host header must be this machine's name: a page in a browser whose own name was made to
    lead here is not answered. beside: other applications by their path, with the token too.
    """

    def __init__(
        self, operated: Operated, token: str, *, beside: dict[str, Any] | None = None
    ) -> None:
        self._operated, self._token = operated, token.encode()
        self._beside = beside or {}
        self._reading: dict[str, Callable[[dict[bytes, bytes]], Awaitable[Answer]]] = {
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/metrics": self._metrics,
            "/status": self._status,
            "/openapi.json": self._openapi,
            "/mitigations": self._mitigations,
            "/canary": self._canaries,
        }
        self._changing: dict[str, Callable[[dict[str, str]], Awaitable[Answer]]] = {
            "/reload": self._reload,
            "/kill": self._kill,
            "/unkill": self._unkill,
            "/mitigate": self._mitigate,
            "/lift": self._lift,
            "/canary/outcomes": self._outcomes,
            **{f"/canary/{verb}": partial(self._canary, verb) for verb in ORDERS},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        path, method = scope["path"], scope["method"]
        answer = self._refused(method, path, headers)
        if answer is None:
            if path in self._beside:
                await self._beside[path](scope, receive, send)
                return
            if path in self._reading:
                answer = await self._reading[path](headers)
            else:
                answer = await self._change(path, await body_of(receive))
        await send_answer(send, answer)

    def owner(self, head: Request) -> Answer | str:
        """Why a request is refused whatever its body is; nobody's name where it is not."""
        path = unquote(head.path.partition("?")[0])
        answer = self._refused(head.method, path, dict(head.headers))
        if answer is None and path in self._reading:
            answer = refusal(413, "there is no body here")
        return "" if answer is None else answer

    def _refused(self, method: str, path: str, headers: dict[bytes, bytes]) -> Answer | None:
        if not _HOST.fullmatch(headers.get(b"host", b"")):
            return refusal(421, "this is not the name of this machine")
        if path in self._reading:
            return None if method == "GET" else _method("GET")
        if path not in self._changing and path not in self._beside:
            return refusal(404, "there is nothing here")
        if method != "POST":
            return _method("POST")
        if not hmac.compare_digest(headers.get(b"authorization", b""), b"Bearer " + self._token):
            return refusal(401, "the admin token is missing: Authorization: Bearer TOKEN")
        return None

    async def _change(self, path: str, body: bytes | None) -> Answer:
        try:
            told = orjson.loads(body or b"{}") if body is not None else None
        except orjson.JSONDecodeError:
            told = None
        if not isinstance(told, dict) or not all(isinstance(one, str) for one in told.values()):
            return refusal(400, "the body must be a small JSON object of texts")
        known = _FIELDS[path]
        for name in told:
            # A misspelt key would else be an order on everybody.
            if name not in known:
                return refusal(
                    400, f"field {one_line(name, 40)!r} is unknown; known: {listed(known)}"
                )
        try:
            return await self._changing[path](told)
        except WithstandError as error:
            return refusal(409, str(error))

    async def _live(self, headers: dict[bytes, bytes]) -> Answer:
        return json_answer(200, {"live": True})

    async def _ready(self, headers: dict[bytes, bytes]) -> Answer:
        why = await self._operated.ready()
        return json_answer(503 if why else 200, {"ready": not why, "why": why})

    async def _metrics(self, headers: dict[bytes, bytes]) -> Answer:
        text, kind = self._operated.exposition(headers.get(b"accept", b"").decode("latin-1"))
        return Answer(200, [(b"content-type", kind.encode())], text)

    async def _status(self, headers: dict[bytes, bytes]) -> Answer:
        return json_answer(200, self._operated.status())

    async def _openapi(self, headers: dict[bytes, bytes]) -> Answer:
        from .._openapi import openapi

        return json_answer(200, openapi())

    async def _reload(self, told: dict[str, str]) -> Answer:
        await self._operated.reload()
        return json_answer(200, {"reloaded": True})

    async def _kill(self, told: dict[str, str]) -> Answer:
        return self._switched(True, told)

    async def _unkill(self, told: dict[str, str]) -> Answer:
        return self._switched(False, told)

    async def _mitigations(self, headers: dict[bytes, bytes]) -> Answer:
        return json_answer(200, [asdict(one) for one in self._operated.mitigations()])

    async def _mitigate(self, told: dict[str, str]) -> Answer:
        seconds, identity = told.get("seconds", ""), told.get("id", "")
        if not re.fullmatch(r"\d{1,7}", seconds) or not _NAME.fullmatch(identity):
            return refusal(400, "give id, of 1 to 100 letters, digits or ._:-, and seconds")
        if "key" not in told:
            return refusal(400, 'key is missing; give the id of a key, or "" for everybody')
        new = Mitigation(
            id=identity,
            action=told.get("action", ""),
            until=time.time() + int(seconds),
            key=told["key"],
            model=told.get("model", ""),
            who=told.get("who", "")[:200],
            why=told.get("why", "")[:1000],
        )
        return json_answer(200, {"id": identity, "new": self._operated.mitigate(new)})

    async def _lift(self, told: dict[str, str]) -> Answer:
        who, why = told.get("who", "")[:200], told.get("why", "")[:1000]
        return json_answer(200, {"lifted": self._operated.lift(told.get("id", ""), who, why)})

    async def _canaries(self, headers: dict[bytes, bytes]) -> Answer:
        return json_answer(200, self._operated.canaries.told())

    async def _canary(self, verb: str, told: dict[str, str]) -> Answer:
        return json_answer(200, self._operated.canaries.order(verb, told))

    async def _outcomes(self, told: dict[str, str]) -> Answer:
        return json_answer(200, self._operated.canaries.outcomes(told))

    def _switched(self, killed: bool, told: dict[str, str]) -> Answer:
        if not told.get("why", "").strip():
            return refusal(400, "why is missing; give a reason, which evidence keeps")
        kept = self._operated.switch(killed, told.get("who", "")[:200], told.get("why", "")[:1000])
        return json_answer(200, {"killed": killed, "recorded": kept})


def _method(allowed: str) -> Answer:
    return refusal(405, f"ask with {allowed}", [(b"allow", allowed.encode())])


def json_answer(status: int, content: Any) -> Answer:
    """Plain values as an answer."""
    return Answer(status, [(b"content-type", b"application/json")], orjson.dumps(content))


async def body_of(receive: Receive) -> bytes | None:
    """The whole body, None for one that is too long or does not come."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message.get("body", b""))
        if len(body) > BODY:
            return None
        if not message.get("more_body"):
            return body


async def send_answer(send: Send, answer: Answer) -> None:
    """Send an answer that no browser may take for something else."""
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    headers.append((b"x-content-type-options", b"nosniff"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
