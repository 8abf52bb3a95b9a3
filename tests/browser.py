"""A real browser without a window, by its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

CHROMIUM = next((p for name in ("chromium", "google-chrome") if (p := shutil.which(name))), None)
_PATIENCE = 30.0


class Browser:
    """One tab: what it asked for, what dialogs it opened, and what it complained of."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()
        self._session = ""
        self.requests: list[str] = []
        self.dialogs: list[str] = []
        self.complaints: list[str] = []

    async def begin(self) -> None:
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        told = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = told["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def listen(self) -> None:
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                self._waiting.pop(told["id"]).set_result(told)
                continue
            about = told.get("params", {})
            match told["method"]:
                case "Page.loadEventFired":
                    self._loaded.set()
                case "Network.requestWillBeSent":
                    self.requests.append(about["request"]["url"])
                case "Page.javascriptDialogOpening":
                    self.dialogs.append(about["message"])
                    answer = self.call("Page.handleJavaScriptDialog", accept=False)
                    self._answering = asyncio.create_task(answer)
                case "Log.entryAdded":
                    self.complaints.append(about["entry"]["text"])
                case "Runtime.exceptionThrown":
                    self.complaints.append(about["exceptionDetails"]["text"])

    async def call(self, method: str, **told: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": told}
        if self._session:
            message["sessionId"] = self._session
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(message)
        answer = await asyncio.wait_for(self._waiting[number], _PATIENCE)
        assert "error" not in answer, answer
        return answer["result"]

    async def go(self, url: str) -> str:
        """Load a page; its text as the browser has it then."""
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), _PATIENCE)
        return await self.html()

    async def html(self) -> str:
        return str(await self.evaluate("document.documentElement.outerHTML"))

    async def evaluate(self, expression: str) -> Any:
        told = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def submit(self, expression: str) -> str:
        """Do something that loads a page; its text then."""
        self._loaded.clear()
        await self.evaluate(expression)
        await asyncio.wait_for(self._loaded.wait(), _PATIENCE)
        return await self.html()

    async def log_in(self, address: str, name: str, password: str) -> str:
        await self.go(f"{address}/login")
        return await self.submit(
            f"document.querySelector('[name=name]').value = '{name}';"
            f"document.querySelector('[name=password]').value = '{password}';"
            "document.querySelector('form').submit()"
        )

    async def picture(self, width: int = 1280, height: int = 860, *, dark: bool = False) -> bytes:
        scheme = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        await self.call("Emulation.setEmulatedMedia", features=scheme)
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, mobile=False,
            deviceScaleFactor=1,
        )  # fmt: skip
        found = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(found["data"])


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """A tab of a fresh browser that knows nobody."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0",
            f"--user-data-dir={profile}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        try:
            address = await asyncio.wait_for(_address(process.stderr), _PATIENCE)
            # What it says later must not fill the pipe.
            drain = asyncio.create_task(process.stderr.read())
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(address, max_msg_size=2**26) as socket,
            ):
                found = Browser(socket)
                listening = asyncio.create_task(found.listen())
                await found.begin()
                try:
                    yield found
                finally:
                    listening.cancel()
                    await asyncio.gather(listening, return_exceptions=True)
        finally:
            process.kill()
            await process.wait()
            drain.cancel()
            await asyncio.gather(drain, return_exceptions=True)


async def _address(said: asyncio.StreamReader) -> str:
    while True:
        line = (await said.readline()).decode()
        assert line, "the browser has ended"
        found = re.search(r"listening on (ws://\S+)", line)
        if found:
            return found[1]
