"""The pages as an ASGI application: who asks, what they may, and what is written down of it."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

from .._errors import WithstandError
from ..config import host_and_port
from ..monitor import Act
from ._render import draw
from ._site import Site
from ._static import static
from ._web import Ask, Content, Done, MissingError, Page, Route
from .access import Session, Throttle, form_token
from .pages import PAGES, login_page

_log = logging.getLogger("withstand.ui")
_T = TypeVar("_T")
_BODY, _FIELDS, _PATIENCE = 65_536, 64, 10.0
_THREADS = 8
_BEFORE = "-before"
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_ALWAYS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    # Not no-referrer: browsers then send no Origin that a form could be checked by.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:]+)(?::\d{1,5})?")
_OWN = ("localhost", "127.0.0.1", "::1")


class _Answer(NamedTuple):
    status: int
    kind: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class App:
    """Answers browsers; nobody sees a page before logging in, and no action is without a record.

    The Host header must be a name of this machine or of `ui.hosts`, so that no foreign name can be
    made to lead here. secure: whether it is asked over TLS, so that cookies are for that alone.
    """

    def __init__(self, site: Site, *, secure: bool = False) -> None:
        self._site, self._secure = site, secure
        told = site.config.ui
        names = (host_and_port(told.listen)[0], *told.hosts)
        self._hosts = {*_OWN, *(name.strip("[]").lower() for name in names)}
        self._cookie = "__Host-withstand" if secure else "withstand"
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ui")
        self._checking = asyncio.Semaphore(2)
        # Wrong passwords: of one account, from one address.
        self._by_name, self._by_address = Throttle(10, 900.0), Throttle(30, 900.0)
        # Nobody may fill the audit log without ever having logged in.
        self._notes = Throttle(30, 900.0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(scope, receive)
        except (ConnectionError, TimeoutError):
            answer = _plain(408, "the request took too long")
        except Exception:
            number = secrets.token_hex(4)
            _log.exception("error %s at %s %r", number, scope["method"], scope["path"])
            answer = _plain(500, f"something went wrong; the log has more under {number}")
        headers = [*_ALWAYS, (b"content-type", answer.kind.encode())]
        headers += [(b"content-length", b"%d" % len(answer.body))]
        told = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers]
        if not any(name == b"cache-control" for name, _ in told):
            told.append((b"cache-control", b"no-store"))
        start = {"type": "http.response.start", "status": answer.status, "headers": headers + told}
        await send(start)
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    def close(self) -> None:
        """Let go of what is held open."""
        self._threads.shutdown()
        self._site.close()

    async def _answer(self, scope: MutableMapping[str, Any], receive: Any) -> _Answer:
        headers = {name.decode("latin-1"): value.decode("latin-1")
                   for name, value in scope["headers"]}  # fmt: skip
        path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").split("?")[0]
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if not self._known(headers.get("host", "")):
            return _plain(421, "this is not a name of these pages; see ui.hosts")
        if method not in ("GET", "POST"):
            return _plain(405, "ask with GET or POST", ("allow", "GET, POST"))
        if path.startswith("/static/"):
            found = static(path.removeprefix("/static/"), headers.get("if-none-match", ""))
            return _plain(404, "there is nothing here") if found is None else _Answer(*found)
        form: dict[str, str] = {}
        if method == "POST":
            if (why := self._foreign(headers)) or headers.get("content-type", "").split(";")[
                0
            ].strip() != "application/x-www-form-urlencoded":
                return _plain(403, why or "send a form, please")
            async with asyncio.timeout(_PATIENCE):
                body = await _body(receive)
            if body is None:
                return _plain(413, f"the form has more than {_BODY} bytes")
            try:
                form = dict(_fields(body))
            except ValueError:
                return _plain(400, f"the form has more than {_FIELDS} fields")
        cookies, query = headers.get("cookie", ""), _safely(scope["query_string"])
        token = _token(cookies, self._cookie)
        if path == "/login" and not (method == "GET" and await self._in_thread(self._begun, token)):
            address = (scope.get("client") or ("",))[0]
            before = _token(cookies, self._cookie + _BEFORE)
            return await self._login(method, before, query, form, address)
        if path == "/login":
            return _to(_back(query.get("next", "")))
        if not token and method == "GET" and headers.get("sec-fetch-site") == "cross-site":
            # A link on another site: the browser has kept back the cookie, and gives it to us.
            asked = scope["query_string"].decode("latin-1")
            to = _back(f"{path}?{asked}" if asked else path)
            return _html(200, draw("again.html.j2", to=to))
        return await self._in_thread(
            self._page, method, path, token, query, form, "x-live" in headers
        )

    def _begun(self, token: str) -> bool:
        return bool(token) and self._site.sessions.find(token) is not None

    def _page(
        self, method: str, path: str, token: str, query: dict[str, str], form: dict[str, str],
        live: bool,
    ) -> _Answer:  # fmt: skip
        session = self._site.sessions.find(token, present=not live) if token else None
        if session is None:
            if live:
                return _plain(401, "log in anew")
            asked = f"?next={quote(path)}" if method == "GET" and path != "/" else ""
            return _to(f"/login{asked}")
        ask = Ask(session=session, query=query, form=form)
        for route in PAGES:
            names = route.match(path) if route.method == method else None
            if names is not None:
                ask = Ask(session=session, path=names, query=query, form=form)
                if not session.account.may(route.role):
                    self._note(route, ask, "refused: " + session.account.role)
                    why = f"this takes a {route.role}, and you are a {session.account.role}"
                    return self._error(403, why, session)
                if method == "POST":
                    return self._act(route, ask)
                return self._shown(route, ask, live)
        return self._error(404, "there is nothing here", session)

    def _shown(self, route: Route, ask: Ask, live: bool) -> _Answer:
        try:
            found = route.answer(self._site, ask)
        except MissingError as error:
            return self._error(404, str(error), ask.session)
        except WithstandError as error:
            return self._error(500, str(error), ask.session)
        if isinstance(found, Content):
            name = (("content-disposition", f'attachment; filename="{found.name}"'),)
            return _Answer(200, found.kind, found.body, name if found.name else ())
        assert isinstance(found, Page)
        told = "" if live else self._site.sessions.told(ask.session.token)
        return self._drawn(200, found, ask.session, told)

    def _act(self, route: Route, ask: Ask) -> _Answer:
        if not _same(ask.form.get("token", ""), ask.session.form_token):
            self._note(route, ask, "refused: the form was not one of these pages")
            return self._error(403, "this form is not of your session; load the page", ask.session)
        try:
            begun = self._note(route, ask, "asked")
        except WithstandError as error:
            why = f"nothing was done, since it could not be written down: {error}"
            return self._error(500, why, ask.session)
        try:
            done = route.answer(self._site, ask)
        except (WithstandError, MissingError) as error:
            self._note(route, ask, f"failed: {error}", begun)
            self._site.sessions.tell(ask.session.token, f"-{error}")
            return _to(_back(ask.form.get("back", "")))
        except Exception as error:
            self._note(route, ask, f"failed: {type(error).__name__}", begun)
            raise
        assert isinstance(done, Done)
        self._note(route, ask, f"done: {done.text}", begun)
        self._site.sessions.tell(ask.session.token, f"+{done.text}")
        return _to(_back(done.to))

    def _note(self, route: Route, ask: Ask, result: str, begun: int | None = None) -> int:
        kept = {"token", "back", *route.hidden}
        told = {name: value[:500] for name, value in ask.form.items() if name not in kept}
        detail = {"result": result[:500], **({"asked": begun} if begun else {"form": told})}
        account = ask.account
        return self._site.audit.add(
            Act(who=account.name, role=account.role, action=route.action or f"see {route.path}",
                about=route.subject(ask), detail=detail)
        )  # fmt: skip

    async def _login(
        self, method: str, token: str, query: dict[str, str], form: dict[str, str], address: str
    ) -> _Answer:
        if method == "GET":
            return await self._in_thread(lambda: self._asked_in(200, token, query.get("next", "")))
        name, password = form.get("name", "").strip().lower()[:64], form.get("password", "")
        if not token or not _same(form.get("token", ""), form_token(token)):
            return await self._in_thread(
                lambda: self._asked_in(403, token, form.get("back", ""), "Please try once more.")
            )
        if not (self._by_address.take(address) and self._by_name.take(name)):
            return await self._in_thread(
                lambda: self._refused(429, name, address, token, form, "too many attempts")
            )
        async with self._checking:
            account = await self._in_thread(lambda: self._site.accounts.check(name, password))
        if account is None:
            return await self._in_thread(
                lambda: self._refused(403, name, address, token, form, "wrong name or password")
            )
        self._by_name.give_back(name)
        self._by_address.give_back(address)

        def begin() -> Session:
            self._site.audit.add(
                Act(who=account.name, role=account.role, action="log in", about=address)
            )
            return self._site.sessions.begin(account)

        session = await self._in_thread(begin)
        return _to(_back(form.get("back", "")), self._set(session.token))

    def _refused(
        self, status: int, name: str, address: str, token: str, form: dict[str, str], why: str
    ) -> _Answer:
        if status != 429 or self._notes.take(address):
            self._site.audit.add(
                Act(who=name or "-", role="-", action="log in", about=address,
                    detail={"result": f"refused: {why}"})
            )  # fmt: skip
        told = {429: "Too many attempts. Wait some minutes, then try again."}
        text = told.get(status, "Name or password is wrong.")
        return self._asked_in(status, token, form.get("back", ""), text)

    def _asked_in(self, status: int, token: str, back: str, told: str = "") -> _Answer:
        # A form before there is a session is bound to a cookie all the same.
        mine = token or secrets.token_urlsafe(32)
        page = login_page(self._site, form_token(mine), _back(back), told)
        body = draw(page.template, title=page.title, **page.values)
        return _html(status, body, self._set(mine, _BEFORE))

    def _drawn(self, status: int, page: Page, session: Session, told: str = "") -> _Answer:
        body = draw(
            page.template, title=page.title, me=session.account, token=session.form_token,
            told=told, **page.values,
        )  # fmt: skip
        return _html(status, body)

    def _error(self, status: int, text: str, session: Session) -> _Answer:
        page = Page("error.html.j2", "Not possible", {"text": text, "status": status, "here": ""})
        return self._drawn(status, page, session)

    def _known(self, host: str) -> bool:
        found = _HOST.fullmatch(host.lower())
        return found is not None and found[1].strip("[]") in self._hosts

    def _foreign(self, headers: dict[str, str]) -> str:
        """Why a POST does not come from one of these pages, nothing where it does."""
        origin = urlsplit(headers.get("origin", ""))
        wanted = headers.get("host", "").lower()
        same = origin.netloc.lower() == wanted and (origin.scheme == "https" or not self._secure)
        if not same or headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return "this form was sent by another site"
        return ""

    def _set(self, token: str, kind: str = "") -> tuple[str, str]:
        secure = "Secure; " if self._secure else ""
        value = f"{self._cookie}{kind}={token}; {secure}HttpOnly; SameSite=Strict; Path=/"
        return "set-cookie", value

    async def _in_thread(self, work: Callable[..., _T], *told: Any) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work, *told)


def _token(cookies: str, name: str) -> str:
    # Not SimpleCookie: one odd cookie of another service on this host, and it finds none at all.
    pairs = (one.strip().partition("=") for one in cookies.split(";"))
    return next((value[:100] for known, _, value in pairs if known == name), "")


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _back(path: str) -> str:
    """A path of these pages, or the first one: never another site's."""
    sound = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable()
    return path if sound and path.isascii() and " " not in path else "/"


def _fields(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(
        body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_FIELDS,
        errors="replace",
    )  # fmt: skip


def _safely(query: bytes) -> dict[str, str]:
    try:
        return dict(_fields(query[:_BODY]))
    except ValueError:
        return {}


def _plain(status: int, text: str, *headers: tuple[str, str]) -> _Answer:
    return _Answer(status, "text/plain; charset=utf-8", (text + "\n").encode(), headers)


def _html(status: int, text: str, *headers: tuple[str, str]) -> _Answer:
    return _Answer(status, "text/html; charset=utf-8", text.encode(errors="replace"), headers)


def _to(path: str, *headers: tuple[str, str]) -> _Answer:
    return _Answer(303, "text/plain; charset=utf-8", b"", (("location", path), *headers))


async def _body(receive: Any) -> bytes | None:
    """The whole body, None for one that is too long."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        body += bytes(message.get("body", b""))
        if len(body) > _BODY:
            return None
        if not message.get("more_body"):
            return body
