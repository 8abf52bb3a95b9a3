"""The guard as a plain function: for serverless handlers and for servers that do not await."""

from __future__ import annotations

import asyncio
import base64
import binascii
import threading
from collections.abc import Mapping
from typing import Any

from ..._errors import ConfigError
from .._guard import Guard
from .._message import Answer, Request, refusal


class GuardFunction:
    """A guard that is called and answers, from any thread; its event loop has a thread of its own.

    `answer` takes a request of whatever framework there is. Called with an event of AWS Lambda in
    API Gateway's payload format 2.0, that of function URLs too, it gives the response to it.
    settle: answer only when all has been looked at and is written down, since whoever runs
    functions may stop their process between two calls; not needed in a server that goes on.
    """

    def __init__(self, guard: Guard, *, settle: bool = True) -> None:
        self.guard, self._settle = guard, settle
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="withstand-guard", daemon=True
        )
        self._thread.start()

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> Answer:
        """The answer to a request; path: as it was written, with its query if there is one."""
        told = [
            (name.lower().encode("latin-1", "replace"), value.strip().encode("latin-1", "replace"))
            for name, value in headers.items()
        ]
        request = Request(method, path, told, body)
        answer = asyncio.run_coroutine_threadsafe(self._answer(request), self._loop).result()
        if self._settle:
            self.guard.journal.flush()
        return answer

    def __call__(self, event: Mapping[str, Any], context: object = None) -> dict[str, Any]:
        """The response to an event; raises ConfigError for one of another format."""
        if event.get("version") != "2.0" or "requestContext" not in event:
            raise ConfigError(
                "the event is not of payload format 2.0; use a function URL or an HTTP API with it"
            )
        told = event["requestContext"]
        path = event["rawPath"]
        # HTTP APIs put the name of the stage before the path, unless it is the default one.
        stage = f"/{told.get('stage', '')}/"
        if path.startswith(stage):
            path = path[len(stage) - 1 :]
        if event.get("rawQueryString"):
            path += f"?{event['rawQueryString']}"
        text = event.get("body") or ""
        try:
            encoded = event.get("isBase64Encoded", False)
            body = base64.b64decode(text, validate=True) if encoded else text.encode()
            return _response(
                self.answer(told["http"]["method"], path, event.get("headers") or {}, body)
            )
        except (binascii.Error, UnicodeEncodeError):
            return _response(refusal(400, "the request is not encoded as it says"))

    def close(self) -> None:
        """End the thread and let go of what the guard holds open."""
        if self._loop.is_closed():
            return

        async def ended() -> None:
            self.guard.close()
            # Transports end in the loop's next turns.
            await asyncio.sleep(0.01)

        asyncio.run_coroutine_threadsafe(ended(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _answer(self, request: Request) -> Answer:
        answer = await self.guard.answer(request)
        if self._settle:
            await self.guard.settled()
        return answer


def _response(answer: Answer) -> dict[str, Any]:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
    text = headers.get("content-type", "").startswith(("application/json", "text/"))
    try:
        body = answer.body.decode() if text else base64.b64encode(answer.body).decode()
    except UnicodeDecodeError:
        text, body = False, base64.b64encode(answer.body).decode()
    return {
        "statusCode": answer.status,
        "headers": headers,
        "body": body,
        "isBase64Encoded": not text,
    }
