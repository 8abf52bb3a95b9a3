"""A running guard, as operators ask it."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from responding import TOKEN, attacked, fake_guard, runbook
from serving import Running, serving

from withstand import WithstandError
from withstand.evidence.log import Break, read
from withstand.guard import Secrets
from withstand.respond import Desk, GuardClient, Responder, UnansweredError, run_runbook

OPERATOR = {"who": "ann", "why": "a try"}


def test_everything_that_operators_ask_a_real_guard(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        token = Secrets(tmp_path / "withstand-secrets").get("token").hex()
        client = GuardClient(f"127.0.0.1:{guard.admin_port}", lambda: token)

        def ask() -> None:
            assert client.status()["models"]["*"]["mode"] == "shadow"
            assert client.ask("/health/live") == (200, {"live": True})
            assert "withstand_mitigations 0.0" in client.metrics()
            assert client.mitigate("a", "block", 60, key="k", model="", **OPERATOR)
            assert not client.mitigate("a", "block", 60, key="k", model="", **OPERATOR)
            (held,) = client.mitigations()
            assert (held["id"], held["action"], held["key"], held["who"]) == (
                "a", "block", "k", "ann",
            )  # fmt: skip
            assert client.lift("a", **OPERATOR)
            assert not client.lift("a", **OPERATOR)
            assert client.kill(True, **OPERATOR)
            assert client.status()["killed"]
            assert client.kill(False, **OPERATOR)
            assert not client.status()["killed"]
            assert client.canary() == {"models": {}}
            with pytest.raises(WithstandError, match="no rate to throttle to"):
                client.mitigate("b", "throttle", 60, key="k", **OPERATOR)
            with pytest.raises(WithstandError, match="the admin token is missing"):
                GuardClient(client.address, lambda: "00").lift("a", **OPERATOR)
            guard.rewrite(digits=2)
            client.reload()

        await asyncio.to_thread(ask)

    serving(tmp_path, work, mode="shadow", evidence={"folder": "evidence"})
    told = GuardClient.from_file(tmp_path / "withstand.yaml")
    with pytest.raises(UnansweredError, match=r"no guard answers at .* `withstand guard serve`"):
        told.status()


def test_the_token_is_read_for_what_changes_something_alone(tmp_path: Path) -> None:
    read = []

    def token() -> str:
        read.append(1)
        return TOKEN

    with fake_guard() as guard:
        client = GuardClient(f"127.0.0.1:{guard.port}", token)
        assert client.mitigations() == []
        assert client.canary()["models"]["m"]["state"] == "running"
        assert read == []
        client.canary_act("rollback", "m", identity="x", **OPERATOR)
        assert (guard.acts, read) == (["/canary/rollback"], [1])
        guard.status = 500
        with pytest.raises(WithstandError, match="it cannot"):
            client.kill(True, **OPERATOR)


def test_what_is_no_guard_is_one_line(tmp_path: Path) -> None:
    class Other(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

    server = HTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        with pytest.raises(UnansweredError, match="no guard answers"):
            GuardClient(f"127.0.0.1:{server.server_address[1]}", lambda: TOKEN).status()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_runbook_holds_up_a_client_of_a_real_guard(tmp_path: Path) -> None:
    async def work(guard: Running) -> None:
        assert (await guard.infer()).status == 200
        assert guard.service.guard.journal.flush()
        places = [one for one in read(tmp_path / "evidence") if not isinstance(one, Break)]
        asked = next(o.record.content["key"] for o in places if o.record.kind == "decision")
        told = {**guard.config, "admin": f"127.0.0.1:{guard.admin_port}"}
        path = tmp_path / "respond.yaml"
        path.write_text(yaml.safe_dump({"guard": told}))
        attacked(tmp_path, keys=(asked,))
        runbook(
            tmp_path, "r",
            {"name": "stop", "action": "block", "with": {"keys": "{campaign.keys}"},
             "contains": True},
        )  # fmt: skip

        def respond() -> list[Any]:
            Responder(path).step()
            return run_runbook(Desk(path), 1, "r", who="ann")

        (step,) = await asyncio.to_thread(respond)
        assert step.state == "done", step.result
        assert (await guard.infer()).status == 403

    serving(tmp_path, work, evidence={"folder": "evidence"})
