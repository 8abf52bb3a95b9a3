"""The asynchronous side of a served model: connections, retries, pace and caps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np

from .._errors import BudgetError, ModelError, WithstandError, one_line
from ._http_faults import FaultError, cause, fix, retry_after, said
from ._http_secrets import expanded, redacted, shown
from ._http_tally import Tally
from ._wire import Reply

if TYPE_CHECKING:
    import aiohttp

    from ._http import HttpSettings

T = TypeVar("T")

_LONGEST_PAUSE = 30.0
_LONGEST_WAIT = 300.0
_LARGEST_REPLY = 64 * 2**20
# Larger ones are handed to the socket in pieces, between which other requests have their turn.
_LARGE_REQUEST = 2**20
_BUSY = {429, 502, 503, 504}


@dataclass
class _Hold:
    """Rows of a call that are set aside from the cap and not yet sent."""

    left: int


class _Target(NamedTuple):
    """Where a request goes, with the secrets in; it lives no longer than one call."""

    url: str
    headers: dict[str, str]
    secrets: dict[str, str]


class Client:
    """The asynchronous side; all its state changes on the loop's thread, so no cap can be raced."""

    def __init__(self, url: str, settings: HttpSettings, access: str) -> None:
        _libraries()
        self.url, self.settings, self.access = url, settings, access
        self.wire, self.place = settings.wire(), shown(url)
        self.sent = self.reserved = 0
        self.tally: Tally | None = None
        self.left: dict[Path, int] = {}
        self.form: _Form | None = None
        self.session: aiohttp.ClientSession | None = None
        self.slots = asyncio.Semaphore(settings.connections)
        self.turn = asyncio.Lock()
        self.last = self.closed_until = -float("inf")

    async def keep(self, tally: Tally | None) -> None:
        """Count on in a file from now on, or no longer."""
        if self.tally is not None:
            self.tally.write(self.sent)
            self.left[self.tally.path] = self.sent
        self.tally = tally
        # What this client has counted there itself is not new to it.
        if tally is not None and tally.before != self.left.get(tally.path):
            self.sent += tally.before

    async def close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            await session.close()

    def leave(self) -> None:
        """Close without waiting: the garbage collector may call from any thread."""
        if self.session is not None:
            with suppress(RuntimeError):
                asyncio.run_coroutine_threadsafe(self.close(), _background())

    async def ask(self, rows: Any) -> Any:
        """Scores (B, K) or labels (B,) of rows (B, ...), in order."""
        target = _Target(*expanded(self.url, self.settings.headers))
        parts = [
            rows[i : i + self.settings.batch] for i in range(0, len(rows), self.settings.batch)
        ]
        self._check_cap(len(rows))
        hold = _Hold(len(rows))
        self.reserved += hold.left
        tasks = [asyncio.ensure_future(self._part(target, part, hold)) for part in parts]
        try:
            answers = await asyncio.gather(*tasks)
        except WithstandError as error:
            raise type(error)(redacted(str(error), target.secrets)) from None
        finally:
            # What is still in flight after a failure would be asked for nothing.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.reserved -= hold.left
        if answers:
            return np.concatenate(answers)
        columns = self.form.columns if self.form else 1
        return np.zeros((0, columns) if self.access == "scores" else 0)

    def _check_cap(self, rows: int) -> None:
        limit = self.settings.queries
        if limit is not None and self.sent + self.reserved + rows > limit:
            before = "" if self.tally is None else self.tally.told
            raise BudgetError(
                f"model.http.queries is {limit}: {self.sent} rows were sent{before}, "
                f"{self.reserved} are on their way and {rows} more are asked for; raise it, or "
                "lower threat.queries or data.limit"
            )

    async def _part(self, target: _Target, rows: Any, hold: _Hold) -> Any:
        body, headers = self.wire.write(rows)
        headers = {**headers, **target.headers}
        held, tries = True, self.settings.retries + 1
        for attempt in range(tries):
            async with self.slots:
                await self._my_turn()
                if held:
                    hold.left -= len(rows)
                    self.reserved -= len(rows)
                else:
                    self._check_cap(len(rows))
                if self.tally is not None:
                    self.tally.cover(self.sent + len(rows))
                self.sent += len(rows)
                held = False
                try:
                    reply = await self._post(target, body, headers)
                    return self._checked(reply, len(rows))
                except FaultError as error:
                    fault = error
                if not fault.reached:
                    held = True
                    hold.left += len(rows)
                    self.reserved += len(rows)
                    self.sent -= len(rows)
            if not fault.again:
                raise ModelError(f"{self.place} {fault.what}; {fault.fix}")
            if fault.wait is not None:
                self._pause_all(fault.wait)
            elif attempt + 1 < tries:
                await asyncio.sleep(min(self.settings.pause * 2**attempt, _LONGEST_PAUSE))
        count = "1 try" if tries == 1 else f"{tries} tries"
        raise ModelError(f"{self.place} {fault.what} ({count}); {fault.fix}")

    def _pause_all(self, wait: float) -> None:
        if wait > _LONGEST_WAIT:
            raise ModelError(
                f"{self.place} asks to wait for {wait:.0f} s, more than {_LONGEST_WAIT:.0f}; lower "
                "model.http.rate, or go on later"
            )
        until = asyncio.get_running_loop().time() + wait
        self.closed_until = max(self.closed_until, until)

    async def _my_turn(self) -> None:
        gap = 1 / self.settings.rate if self.settings.rate else 0.0
        now = asyncio.get_running_loop().time
        async with self.turn:
            while (wait := max(self.last + gap, self.closed_until) - now()) > 0:
                await asyncio.sleep(wait)
            self.last = now()

    def _opened(self) -> aiohttp.ClientSession:
        if self.session is None:
            aiohttp, _ = _libraries()
            self.session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.settings.connections),
                timeout=aiohttp.ClientTimeout(total=self.settings.timeout),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self.session

    async def _post(self, target: _Target, body: bytes, headers: Mapping[str, str]) -> Reply:
        aiohttp, _ = _libraries()
        data = body if len(body) <= _LARGE_REQUEST else BytesIO(body)
        try:
            # A redirect would carry the headers to another server.
            async with self._opened().post(
                _exactly(target.url), data=data, headers=headers, allow_redirects=False
            ) as response:
                content = await _received(response)
                status, told = response.status, response.headers
        except aiohttp.ClientSSLError as error:
            raise FaultError(
                f"has a TLS fault ({one_line(cause(error), 100)})",
                "correct its certificate or model.url, or name its CA in SSL_CERT_FILE",
                again=False,
                reached=False,
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise FaultError(
                f"cannot be reached ({one_line(cause(error), 100)})",
                "start the server, or correct model.url",
                reached=False,
            ) from None
        except TimeoutError:
            raise FaultError(
                f"did not answer within {self.settings.timeout:g} s",
                "raise model.http.timeout, or lower model.http.batch or connections",
            ) from None
        except aiohttp.ClientResponseError as error:
            raise ModelError(
                f"{self.place} does not answer in HTTP ({one_line(error.message, 80)}); correct "
                "model.url"
            ) from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            raise FaultError(
                "closed the connection before it had answered",
                "look into the server's log, or lower model.http.connections",
            ) from None
        except (aiohttp.ClientError, ValueError) as error:
            raise ModelError(
                f"{self.place} cannot be asked ({type(error).__name__}); correct model.url and "
                "model.http.headers"
            ) from None
        if 200 <= status < 300:
            try:
                return self.wire.read(content, told)
            except ModelError as error:
                raise ModelError(f"{self.place} {error}") from None
        # Before it is cut, since half a secret would not be recognised.
        text = said(redacted(content.decode(errors="replace"), target.secrets))
        what = f"answered {status}" + (f": {text}" if text else "")
        if status in _BUSY:
            wait = retry_after(told.get("Retry-After"))
            raise FaultError(what, "wait, or lower model.http.rate or connections", wait=wait)
        mend = fix(
            status, format=self.settings.format, answered=self.form is not None,
            headers=bool(self.settings.headers),
        )  # fmt: skip
        if 300 <= status < 400 and (place := told.get("Location")):
            mend = f"correct model.url, which is moved to {_place(place, target)}"
        raise ModelError(f"{self.place} {what}; {mend}")

    def _checked(self, reply: Reply, rows: int) -> Any:
        """The reply as scores (B, K) or labels (B,), if it is what it was before."""
        values, wanted = reply.values, f"{rows} inputs with shape {list(reply.values.shape)}"
        labels = self.access == "labels"
        if values.ndim == 0 or len(values) != rows:
            raise ModelError(
                f"{self.place} answered {wanted}; it must give {rows} rows, one for each input"
            )
        if values.ndim == 2 and values.shape[1] == 1 and labels:
            values = values[:, 0]
        if values.ndim != 1 and (labels or values.ndim != 2):
            raise ModelError(
                f"{self.place} answered {wanted}; it must give "
                + (f"labels [{rows}], or set model.access: scores" if labels else "scores (B, K)")
            )
        with np.errstate(over="ignore"):
            # As the scores are kept.
            bad = ~np.isfinite(values.astype(np.float32)).reshape(rows, -1).all(1)
        if bad.any():
            raise ModelError(
                f"{self.place} answered {bad.sum()} of {rows} inputs with NaN or infinity; check "
                "the server's weights and preprocessing"
            )
        if labels and not (values == np.round(values)).all():
            raise ModelError(
                f"{self.place} answered with the fraction {values[values % 1 != 0][0]:g} where "
                "labels were expected; serve whole numbers, or set model.access: scores"
            )
        if not labels:
            values = values.reshape(rows, -1)
        columns = 1 if labels else values.shape[1]
        form = _Form(columns, reply.datatype, reply.output, reply.version)
        if self.form is None and not labels and columns == 1 and reply.whole:
            raise ModelError(
                f"{self.place} answered with one whole number for each input, which looks like "
                "labels; set model.access: labels, or serve scores with decimals"
            )
        if self.form is not None and self.form != form:
            raise ModelError(
                f"{self.place} changed in the middle: values for each input were {self.form}, now "
                f"they are {form}; serve one version of the model during the attack"
            )
        self.form = form
        return values


class _Form(NamedTuple):
    """What all answers of one model have in common."""

    columns: int
    datatype: str | None
    output: str | None
    version: str | None

    def __str__(self) -> str:
        words = f"{self.columns} of type {self.datatype or 'number'}"
        words += f" in output {self.output!r}" if self.output else ""
        return words + (f" of version {self.version}" if self.version else "")


def _place(address: str, target: _Target) -> str:
    """An address that a server gives, as it may be shown."""
    return one_line(redacted(shown(address), target.secrets), 100)


def _exactly(url: str) -> Any:
    """A URL that is sent as it stands: what a secret holds is quoted once already."""
    from yarl import URL

    return URL(quote(url, safe="%/:=&?~+!$,;'@()*[]"), encoded=True)


async def _received(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; a server cannot fill our memory with it."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _LARGEST_REPLY:
            raise ModelError(
                f"a reply of {response.url.host} exceeds {_LARGEST_REPLY >> 20} MiB; lower "
                "model.http.batch, or correct model.url"
            )
    return bytes(body)


def _libraries() -> tuple[Any, Any]:
    """aiohttp and orjson, imported late since only this kind of model needs them."""
    try:
        import aiohttp
        import orjson
    except ImportError as error:
        raise ModelError(
            f"model.kind http needs {error.name}, which is not installed; run pip install "
            "'withstand[serve]'"
        ) from None
    return aiohttp, orjson


_starting = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _background() -> asyncio.AbstractEventLoop:
    """The one event loop that all served models share, in a thread of its own."""
    global _loop
    with _starting:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="withstand-http", daemon=True).start()
        return _loop


def result_of(work: Coroutine[Any, Any, T]) -> T:
    """The result of work on the background loop; an interruption here stops it there."""
    future = asyncio.run_coroutine_threadsafe(work, _background())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
