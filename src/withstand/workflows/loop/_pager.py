"""The pager: what takes the monitor's messages, and notes when each one came."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Pager:
    """A webhook of this machine; `pages` are times (seconds since 1970) and messages."""

    def __init__(self, port: int, log: Path) -> None:
        pages: list[tuple[float, dict[str, Any]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                pages.append((time.time(), json.loads(body)))
                with log.open("ab") as file:
                    file.write(body + b"\n")
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *told: object) -> None:
                pass

        self.pages = pages
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def paged(self, campaign: str) -> float | None:
        """When the page of a campaign came, None while it has not."""
        return next(
            (
                wall for wall, told in self.pages
                if told["status"] == "firing"
                and any(one["labels"].get("campaign") == campaign for one in told["alerts"])
            ),
            None,
        )  # fmt: skip

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
