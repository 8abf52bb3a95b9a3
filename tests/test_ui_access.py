"""Who may log in, how often somebody may try, and the process that browsers ask."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pages import CHEAP, PASSWORD
from processes import started, withstand
from typer.testing import CliRunner
from uvicorn.server import ServerState

from withstand._errors import ConfigError, OutputError, WithstandError
from withstand.cli._ui import ui
from withstand.config import load_operations
from withstand.monitor import Store
from withstand.ui import _server, serve
from withstand.ui.access import Accounts, Sessions, Throttle, _accounts


def accounts(folder: Path) -> Accounts:
    found = Accounts(folder / "accounts.json", cost=CHEAP)
    found.add("ada", "admin", PASSWORD)
    return found


def test_a_password_is_kept_as_a_digest_that_only_the_owner_reads(tmp_path: Path) -> None:
    found = accounts(tmp_path)
    text = found.path.read_text()
    assert PASSWORD not in text
    assert stat.S_IMODE(found.path.stat().st_mode) == 0o600
    assert found.check("ada", PASSWORD) == found.get("ada")
    assert found.check("ada", PASSWORD + " ") is None
    assert found.check("bob", PASSWORD) is None
    found.add("bob", "viewer", PASSWORD)
    salts = {one.salt for one in found.all()}
    assert len(salts) == len({one.digest for one in found.all()}) == 2


def test_a_name_that_is_unknown_takes_as_long(tmp_path: Path) -> None:
    found = Accounts(tmp_path / "accounts.json", cost=(2**12, 1))
    found.add("ada", "admin", PASSWORD)

    def seconds(name: str) -> float:
        best = float("inf")
        for _ in range(9):
            began = time.process_time()
            found.check(name, "wrong wrong wrong")
            best = min(best, time.process_time() - began)
        return best

    known, unknown = seconds("ada"), seconds("nobody")
    assert 0.6 < known / unknown < 1.6


def test_the_cost_of_a_guess_is_what_is_advised() -> None:
    # OWASP's cheat sheet: N = 2^15, r = 8, p = 3 is as good as N = 2^17, r = 8, p = 1.
    assert Accounts("accounts.json")._cost == (2**15, 3)


@pytest.mark.parametrize(
    ("name", "role", "password", "words"),
    [
        ("", "viewer", PASSWORD, "1 to 64 of a-z"),
        ("Eve", "viewer", PASSWORD, "1 to 64 of a-z"),
        ("a/b", "viewer", PASSWORD, "1 to 64 of a-z"),
        ("eve\n", "viewer", PASSWORD, "1 to 64 of a-z"),
        ("eve", "root", PASSWORD, "one of viewer, responder, admin"),
        ("eve", "viewer", "x" * 11, "has 11 characters; give 12"),
        ("eve", "viewer", "x" * 1025, "has 1025 characters"),
        ("eve", "viewer", PASSWORD + "\udcff", "character 22 is not UTF-8"),
        ("ada", "viewer", PASSWORD, "is there already"),
    ],
)
def test_what_cannot_be_an_account_is_refused(
    tmp_path: Path, name: str, role: str, password: str, words: str
) -> None:
    found = accounts(tmp_path)
    before = found.path.read_bytes()
    with pytest.raises(ConfigError, match=words) as caught:
        found.add(name, role, password)
    assert password not in str(caught.value)
    assert found.path.read_bytes() == before


def test_somebody_always_leads(tmp_path: Path) -> None:
    found = accounts(tmp_path)
    with pytest.raises(ConfigError, match="last admin"):
        found.change("ada", role="viewer")
    with pytest.raises(ConfigError, match="last admin"):
        found.remove("ada")
    found.add("bob", "viewer", PASSWORD)
    found.change("bob", role="admin")
    found.remove("ada")
    assert [(one.name, one.role) for one in found.all()] == [("bob", "admin")]
    with pytest.raises(ConfigError, match="no account 'ada'"):
        found.change("ada", role="admin")


def test_a_change_by_another_process_counts_at_once(tmp_path: Path) -> None:
    mine, other = accounts(tmp_path), Accounts(tmp_path / "accounts.json", cost=CHEAP)
    assert other.check("ada", PASSWORD) is not None
    mine.change("ada", password="something else entirely")
    assert other.check("ada", PASSWORD) is None
    mine.add("bob", "viewer", PASSWORD)
    other.add("eve", "viewer", PASSWORD)
    assert [one.name for one in mine.all()] == ["ada", "bob", "eve"]


def test_a_file_that_others_read_or_that_is_none_is_not_used(tmp_path: Path) -> None:
    found = accounts(tmp_path)
    written = found.path.read_text()
    found.path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        found.check("ada", PASSWORD)
    found.path.chmod(0o600)
    found.path.write_text("[1]")
    with pytest.raises(ConfigError, match="restore the file"):
        found.all()
    found.path.write_text(written.replace('"admin"', '"root"'))
    with pytest.raises(ConfigError, match="restore the file"):
        found.all()
    assert Accounts(tmp_path / "none.json").all() == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Accounts(tmp_path / "file" / "a.json", cost=CHEAP).add("ada", "admin", PASSWORD)


def test_sessions_of_one_account_do_not_pile_up(tmp_path: Path) -> None:
    found = accounts(tmp_path)
    now = 1000.0
    store = Store(tmp_path)
    sessions = Sessions(store, found, hours=1, minutes=10, clock=lambda: now)
    ada = found.get("ada")
    assert ada is not None
    tokens = []
    for _ in range(25):
        now += 1
        tokens.append(sessions.begin(ada).token)
    alive = [sessions.find(token) is not None for token in tokens]
    assert alive == [False] * 5 + [True] * 20
    now += 3600
    sessions.begin(ada)
    assert len(store.rows("SELECT * FROM sessions")) == 1
    store.close()


def test_a_clock_that_is_set_back_keeps_no_session_for_ever(tmp_path: Path) -> None:
    found, now = accounts(tmp_path), 1e6
    store = Store(tmp_path)
    sessions = Sessions(store, found, hours=1, minutes=60, clock=lambda: now)
    ada = found.get("ada")
    assert ada is not None
    token = sessions.begin(ada).token
    now -= 30
    assert sessions.find(token) is not None
    now -= 3600
    assert sessions.find(token) is None
    store.close()


def test_attempts_come_back_with_time_and_memory_is_bounded() -> None:
    now = 0.0
    throttle = Throttle(3, 30.0, names=50, clock=lambda: now)
    assert [throttle.take("ada") for _ in range(5)] == [True] * 3 + [False] * 2
    now += 9
    assert not throttle.take("ada")
    now += 1.5
    assert throttle.take("ada")
    assert not throttle.take("ada")
    throttle.give_back("ada")
    assert throttle.take("ada")
    assert not throttle.take("ada")
    for number in range(1000):
        throttle.take(f"name {number}")
    assert len(throttle._failed) == 50


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("listen: '0.0.0.0:8103'", "which others reach; give 127.0.0.1"),
        ("listen: 'pages:8103'", "which others reach"),
        ("listen: '8103'", "give host:port"),
        ("tls: {certificate: c.pem}", "key 'ui.tls.key' is missing"),
        ("idle_minutes: 0", "idle_minutes"),
        ("hosts: ['ops.example.org:8443']", "has 'ops.example.org:8443'.* without scheme and port"),
        ("hosts: ['*']", "which no browser calls a host"),
        ("lisen: '127.0.0.1:1'", "did you mean 'listen'"),
    ],
)
def test_a_mistake_in_the_section_is_one_line(tmp_path: Path, keys: str, words: str) -> None:
    path = tmp_path / "withstand.yaml"
    path.write_text(f"ui: {{{keys}}}\n")
    with pytest.raises(WithstandError, match=words) as caught:
        load_operations(path)
    assert "\n" not in str(caught.value)


def test_accounts_are_made_at_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_accounts, "_COST", CHEAP)
    path = tmp_path / "withstand.yaml"
    path.write_text("ui: {}\n")
    words = ["--config", str(path)]

    def run(*given: str, told: str = "") -> tuple[int, str, str]:
        done = CliRunner().invoke(ui, ["user", *given, *words], input=told)
        return done.exit_code, done.stdout, str(done.exception or "")

    assert run("list")[:2] == (0, "no accounts\n")
    assert run("add", "ada", "--role", "admin", told=PASSWORD + "\n")[0] == 0
    assert "has 5 characters" in run("add", "bob", told="short\n")[2]
    assert run("add", "bob", told=PASSWORD + "\n")[0] == 0
    assert json.loads(run("list", "--json")[1]) == [
        {"name": "ada", "role": "admin"}, {"name": "bob", "role": "viewer"},
    ]  # fmt: skip
    assert run("role", "bob", "responder")[0] == 0
    assert run("password", "bob", told=PASSWORD + " indeed\n")[0] == 0
    assert run("list")[1] == "admin      ada\nresponder  bob\n"
    assert run("remove", "bob")[0] == 0
    assert "last admin" in run("remove", "ada")[2]
    found = Accounts(tmp_path / "withstand-accounts.json")
    assert found.check("ada", PASSWORD) is not None


def test_the_process_serves_and_ends(tmp_path: Path) -> None:
    (tmp_path / "withstand.yaml").write_text("ui: {listen: '127.0.0.1:0'}\n")
    with started("ui", "serve", folder=tmp_path) as (process, said):
        port = _port(said)
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("location")) == (303, "/login")
        assert answer.read() == b""
        connection.request("GET", "/login")
        answer = connection.getresponse()
        assert "There are no accounts yet" in answer.read().decode()
        assert answer.getheader("server") is None
        connection.close()
        os.kill(process, signal.SIGTERM)
        until = time.monotonic() + 20
        while _alive(process) and time.monotonic() < until:
            time.sleep(0.05)
        assert not _alive(process)


def test_sigterm_is_an_end_and_no_failure(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "withstand.yaml").write_text(f"ui: {{listen: '127.0.0.1:{port}'}}\n")

    def stopped(process: int) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        os.kill(process, signal.SIGTERM)

    done = withstand("ui", "serve", folder=tmp_path, meanwhile=stopped)
    assert (done.returncode, done.stderr) == (0, f"pages: http://127.0.0.1:{port}\n")


def test_a_connection_without_a_whole_request_ends_and_one_that_waits_for_its_answer_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_server, "_IDLE", 0.2)
    asked = b"GET / HTTP/1.1\r\nHost: localhost\r\n"

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.4)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})

    async def told(port: int, text: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(text)
        trickling = asyncio.create_task(_trickle(writer))
        found = b""
        with suppress(ConnectionResetError):
            while part := await asyncio.wait_for(reader.read(9999), 5):
                found += part
        trickling.cancel()
        writer.close()
        return found

    async def work() -> list[bytes]:
        config = uvicorn.Config(slow, log_config=None, timeout_keep_alive=60)
        config.load()
        loop, state = asyncio.get_running_loop(), ServerState()
        made = await loop.create_server(
            lambda: _server._Connection(config, state, {}), "127.0.0.1", 0
        )
        async with made:
            port = made.sockets[0].getsockname()[1]
            return await asyncio.gather(*(told(port, one) for one in (b"", asked, asked + b"\r\n")))

    async def _trickle(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            await asyncio.sleep(0.05)
            writer.write(b"x")

    silent, begun, whole = asyncio.run(work())
    assert silent == begun == b""
    assert whole.startswith(b"HTTP/1.1 200")
    assert b"here" in whole


def _port(said: object) -> int:
    assert callable(said)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = re.search(r"pages: https?://127\.0\.0\.1:(\d+)", said())
        if found:
            return int(found[1])
        time.sleep(0.05)
    raise AssertionError(said())


def _alive(process: int) -> bool:
    # Its own entry stays until its parent asks, as a zombie.
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "withstand.yaml").write_text(f"ui: {{listen: '127.0.0.1:{port}'}}\n")
        with pytest.raises(ConfigError, match=r"cannot be opened: .*; give another address"):
            serve(tmp_path / "withstand.yaml")


def test_accounts_that_cannot_be_used_are_one_line_before_anybody_asks(tmp_path: Path) -> None:
    (tmp_path / "withstand.yaml").write_text("ui: {listen: '127.0.0.1:0'}\n")
    (tmp_path / "withstand-accounts.json").write_text("[1]")
    (tmp_path / "withstand-accounts.json").chmod(0o600)
    with pytest.raises(ConfigError, match="restore the file"):
        serve(tmp_path / "withstand.yaml")


@pytest.mark.slow
def test_pages_over_tls_have_cookies_for_that_alone(tmp_path: Path) -> None:
    openssl = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*openssl, *files, *name], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "withstand.yaml").write_text(
        "ui: {listen: '127.0.0.1:0', tls: {certificate: cert.pem, key: key.pem}}\n"
    )
    with started("ui", "serve", folder=tmp_path) as (_, said):
        context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        connection = HTTPSConnection("127.0.0.1", _port(said), timeout=10, context=context)
        connection.request("GET", "/login")
        answer = connection.getresponse()
        answer.read()
        cookie = answer.getheader("set-cookie") or ""
        assert cookie.startswith("__Host-withstand-before=")
        assert "; Secure; HttpOnly; SameSite=Strict; Path=/" in cookie
        connection.close()
    (tmp_path / "key.pem").write_text("no key")
    done = CliRunner().invoke(ui, ["serve", "--config", str(tmp_path / "withstand.yaml")])
    assert "give PEM files" in str(done.exception)


@pytest.mark.slow
def test_the_pages_start_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from withstand.ui import serve; from withstand.ui import App, Site\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'pandas', 'PIL'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
