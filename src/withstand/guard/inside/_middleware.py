"""The guard inside somebody's own ASGI server."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from posixpath import normpath
from typing import Any
from urllib.parse import quote, unquote

from ..._errors import ConfigError, listed
from .._app import App
from .._asgi import Asgi, Message, Receive, Scope, Send
from .._guard import Guard
from .._message import Request, Upstream
from .._routes import find_route
from ..upstream import AppUpstream, Patience
from ..upstream._asgi import ARRIVED
from ..wire import RequestError

_DECODED = 8
_PLAIN = re.compile(r"/[A-Za-z0-9._~/-]+")
_INFERENCE = re.compile(r".*/(?:v2/models/.*/infer|v1/models/.*:predict|invocations)")


class GuardMiddleware:
    """Guards the inference routes of an ASGI application; all others pass through untouched.

    make: gives the guard, from the application as its upstream. paths: further paths of the
    application, each with the path of the protocol whose requests and answers it takes, as in
    `{"/predict": "/v1/models/digits:predict"}`. patience: with the application; limits: of `App`.
    A path that is inference only in a laxer reading, by escapes, slashes, capitals or something
    before it, is not there: the application might be as lax. Used from one event loop. Raises
    ConfigError for `paths` that lead to no inference, or to a model that the guard does not know.
    """

    def __init__(
        self,
        app: Asgi,
        make: Callable[[Upstream], Guard],
        *,
        paths: Mapping[str, str] | None = None,
        patience: Patience | None = None,
        **limits: Any,
    ) -> None:
        self._app = app
        self._paths = dict(paths or {})
        self._lax = {_lax(path) for path in self._paths}
        self.guard = make(AppUpstream(app, patience=patience))
        try:
            for path, meant in self._paths.items():
                _check(path, meant, self.guard)
        except ConfigError:
            self.guard.close()
            raise
        self._front = App(self.guard, **limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, self._closing(receive), send)
            return
        path = self._guarded(scope) if scope["type"] == "http" else None
        if path is None:
            await self._app(scope, receive, send)
            return
        before = ARRIVED.set(scope)
        try:
            await self._front({**scope, "raw_path": path.encode("latin-1")}, receive, send)
        finally:
            ARRIVED.reset(before)

    def _guarded(self, scope: Scope) -> str | None:
        """The path under which the guard is asked, None for what is not its business."""
        root = scope.get("root_path", "")
        path = scope["path"].removeprefix(root)
        lax = _lax(path)
        if lax not in self._lax and not _INFERENCE.fullmatch(lax):
            return None
        raw = scope.get("raw_path")
        written = quote(path) if raw is None else raw.decode("latin-1").removeprefix(quote(root))
        return self._paths.get(written, written)

    def _closing(self, receive: Receive) -> Receive:
        async def received() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self.guard.close()
            return message

        return received


def _check(path: str, meant: str, guard: Guard) -> None:
    """Raises ConfigError for a path that would stay open, or answer nobody."""
    if not _PLAIN.fullmatch(path):
        raise ConfigError(f"paths: {path!r} is no plain path; write each in full, e.g. /predict")
    route = find_route("POST", meant)
    if route is None or route.kind != "infer":
        raise ConfigError(
            f"paths: {path} stands for {meant}, which is no path for inference; write e.g. "
            "/v2/models/NAME/infer"
        )
    try:
        guard.way(Request("POST", meant, []))
    except RequestError:
        raise ConfigError(
            f"paths: {path} leads to the model {route.model!r}, which the guard does not know; it "
            f"knows {listed(guard.lines)}"
        ) from None


@lru_cache(maxsize=128)
def _lax(path: str) -> str:
    """A path as the least strict of servers might read it."""
    for _ in range(_DECODED):
        if "%" not in path:
            break
        path = unquote(path)
    plain = re.sub(r";[^/]*", "", path.replace("\\", "/"))
    return normpath(re.sub("/+", "/", f"/{plain}")).casefold()
