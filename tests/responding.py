"""A guard's admin port that counts what it is made to do, and a folder to respond from."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from withstand.monitor import Alert, Alerts, Campaign, Store

TOKEN = "ab" * 32
LABELS = {"alertname": "Campaign", "severity": "page", "model": "m"}


@dataclass
class FakeGuard:
    """What holds now, and every order that ever took effect."""

    port: int = 0
    held: dict[str, dict[str, str]] = field(default_factory=dict)
    orders: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    acts: list[str] = field(default_factory=list)
    canary: str = "running"
    model: str = "m"
    status: int = 200

    def change(self, path: str, told: dict[str, str]) -> Any:
        match path:
            case "/mitigate":
                new = told["id"] not in self.held
                if new:
                    self.held[told["id"]] = told
                    self.orders.append(told["id"])
                return {"id": told["id"], "new": new}
            case "/lift":
                return {"lifted": self.held.pop(told["id"], None) is not None}
            case "/canary/rollback" | "/canary/freeze":
                self.acts.append(path)
                self.canary = "rolled_back" if path.endswith("rollback") else "frozen"
                return {}
        return {"recorded": True}


@contextmanager
def fake_guard() -> Iterator[FakeGuard]:
    guard = FakeGuard()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            found: Any = {"models": {guard.model: {"state": guard.canary}}}
            self.answer(200, list(guard.held.values()) if self.path == "/mitigations" else found)

        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path == "/hook":
                guard.told.append(self.headers["idempotency-key"])
                self.answer(guard.status, {})
            elif self.headers["authorization"] != f"Bearer {TOKEN}":
                self.answer(401, {"error": "the admin token is missing"})
            elif guard.status != 200:
                self.answer(guard.status, {"error": "it cannot"})
            else:
                self.answer(200, guard.change(self.path, told))

        def answer(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    guard.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield guard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def configured(folder: Path, port: int = 9, **respond: Any) -> Path:
    """A file whose guard answers at a port, with the token in its secrets."""
    secrets = folder / "withstand-secrets"
    secrets.mkdir(mode=0o700, exist_ok=True)
    for name in ("token", "master", "fingerprint"):
        (secrets / name).write_text(TOKEN + "\n")
        (secrets / name).chmod(0o600)
    guard = {
        "upstream": "http://127.0.0.1:9", "open": True, "admin": f"127.0.0.1:{port}",
        "evidence": {"folder": "evidence"},
    }  # fmt: skip
    told = {"notify": {"chat": f"http://127.0.0.1:{port}/hook"}, "every": 0.05, **respond}
    path = folder / "withstand.yaml"
    path.write_text(yaml.safe_dump({"guard": guard, "respond": told}))
    return path


def runbook(folder: Path, name: str, *steps: dict[str, Any], **more: Any) -> None:
    """A runbook of one's own."""
    place = folder / "runbooks"
    place.mkdir(exist_ok=True)
    (place / f"{name}.yaml").write_text(
        yaml.safe_dump({"name": name, "steps": list(steps), **more})
    )


def attacked(folder: Path, identity: str = "c", keys: tuple[str, ...] = ("k1", "k2")) -> Alert:
    """A campaign that goes on, and the alert about it that fires."""
    alerts = Alerts(Store(folder / "withstand-monitor"))
    now = time.time()
    alerts.put_campaign(
        Campaign(
            id=identity, model="m", kind="client", first=now - 30, last=now, keys=keys,
            requests=90, flagged=40, inputs=("f1",), sensors={"queries": 40},
        )
    )  # fmt: skip
    alert = Alert(
        labels={**LABELS, "campaign": identity}, starts=now - 20, campaign=identity,
        annotations={"summary": "somebody searches m"},
    )  # fmt: skip
    alerts.fire(alert)
    return alert


def over(folder: Path, alert: Alert) -> None:
    """Let an alert and its campaign end."""
    from dataclasses import replace

    alerts = Alerts(Store(folder / "withstand-monitor"))
    found = alerts.campaign(alert.campaign)
    assert found is not None
    alerts.put_campaign(replace(found, open=False))
    alerts.resolve(alert.fingerprint, time.time())
