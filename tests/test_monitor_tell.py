"""Receivers are told at least once, whatever they or the process do, and nobody else ever is."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from monitoring import NOW
from processes import script

from withstand._errors import ConfigError, OperationError
from withstand.config import ReceiverConfig
from withstand.monitor import Alert, Alerts, Store
from withstand.monitor.tell import Outbox, Receivers, _post, post, refused

PAGE = Alert(
    labels={"alertname": "A", "severity": "page", "slo": "s"}, starts=NOW,
    annotations={"summary": "bad"},
)  # fmt: skip
TICKET = replace(PAGE, labels={"alertname": "A", "severity": "ticket"})


@dataclass
class Hook:
    """Takes messages: what it was sent, and what it answers to the next ones."""

    answers: list[int] = field(default_factory=list)
    taken: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0
    location: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.taken]


@contextmanager
def hook(*answers: int) -> Iterator[Hook]:
    found = Hook(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told = {name.lower(): value for name, value in self.headers.items()}
            status = found.answers.pop(0) if found.answers else 200
            found.taken.append((self.path, told, body))
            self.send_response(status)
            if found.location:
                self.send_header("Location", found.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def receivers(
    folder: Path, clock: Callable[[], float] = lambda: NOW, **told: dict[str, Any]
) -> Receivers:
    config = {name: ReceiverConfig.model_validate(one) for name, one in told.items()}
    return Receivers(Store(folder / "store"), config, folder, clock=clock)


def test_a_webhook_is_told_of_the_beginning_and_the_end(tmp_path: Path) -> None:
    with hook() as taken:
        told = receivers(tmp_path, ops={"webhook": f"{taken.url}/in?a=b"})
        for _ in range(2):
            told.put([PAGE], NOW)
            told.deliver()
        over = replace(PAGE, ends=NOW + 60)
        for _ in range(2):
            told.put([over], NOW + 60)
            told.deliver()
    first, second = taken.bodies()
    assert first == {
        "version": "4", "truncatedAlerts": 0, "status": "firing", "receiver": "ops",
        "groupKey": f'{{}}:{{alertname="A", fingerprint="{PAGE.fingerprint}"}}',
        "groupLabels": {"alertname": "A"}, "commonLabels": PAGE.labels,
        "commonAnnotations": PAGE.annotations, "externalURL": "",
        "alerts": [{
            "status": "firing", "labels": PAGE.labels, "annotations": PAGE.annotations,
            "startsAt": "2027-01-15T08:00:00.000Z", "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "", "fingerprint": PAGE.fingerprint,
        }],
    }  # fmt: skip
    assert (second["status"], second["alerts"][0]["endsAt"]) == (
        "resolved", "2027-01-15T08:01:00.000Z",
    )  # fmt: skip
    keys = {headers["idempotency-key"] for _, headers, _ in taken.taken}
    assert len(keys) == 2
    assert {path for path, _, _ in taken.taken} == {"/in?a=b"}


def test_what_fails_is_sent_again_with_the_same_key(tmp_path: Path) -> None:
    clock = Clock()
    with hook(500, 404, 302) as taken:
        taken.location = f"{taken.url}/elsewhere"
        told = receivers(tmp_path, clock, ops={"webhook": f"{taken.url}/in"})
        told.put([PAGE], NOW)
        sent = []
        for _ in range(40):
            told.deliver()
            sent.append(len(taken.taken))
            clock.now += 0.5
        assert Outbox(Store(tmp_path / "store")).depth() == {}
    # 1, 2 and 4 s, give or take a half; the redirect was not followed.
    assert len(taken.taken) == 4
    assert {path for path, _, _ in taken.taken} == {"/in"}
    assert len({headers["idempotency-key"] for _, headers, _ in taken.taken}) == 1
    waits = [sum(n == have for n in sent) * 0.5 for have in (1, 2, 3)]
    assert all(0.5 * wait <= got <= 1.5 * wait + 0.5
               for wait, got in zip((1, 2, 4), waits, strict=True))  # fmt: skip
    assert told.errors == {}


def test_a_dead_receiver_holds_up_nobody_and_learns_all_later(tmp_path: Path) -> None:
    clock = Clock()
    with hook() as taken:
        dead = f"http://127.0.0.1:{free()}/secret-path"
        told = receivers(tmp_path, clock, dead={"webhook": dead}, alive={"webhook": taken.url})
        many = [replace(PAGE, labels={**PAGE.labels, "slo": str(n)}) for n in range(30)]
        told.put(many, NOW)
        assert told.deliver() == 30
        assert "was not reached" in told.errors["dead"]
        assert "secret-path" not in told.errors["dead"]
        assert Outbox(Store(tmp_path / "store")).depth() == {"dead": 30}
        # Not asked again at once.
        assert told.deliver() == 0
        again = receivers(
            tmp_path, clock, dead={"webhook": taken.url}, alive={"webhook": taken.url}
        )
        assert again.deliver() == 30
        assert len(taken.taken) == 60


def free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_a_receiver_that_does_not_answer_is_given_up_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(OperationError, match=r"was not reached \(TimeoutError|timed out"):
            post(f"http://127.0.0.1:{silent.getsockname()[1]}", b"", {}, seconds=0.2)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("host", ["a" * 70, "a..b"])
def test_a_name_that_is_none_is_not_reached(host: str) -> None:
    with pytest.raises(OperationError, match="was not reached"):
        post(f"http://{host}/", b"", {})


def test_an_alertmanager_is_told_again_while_it_holds(tmp_path: Path) -> None:
    clock = Clock()
    with hook() as taken:
        told = receivers(tmp_path, clock, am={"alertmanager": taken.url})
        told.put([PAGE, TICKET], NOW)
        for seconds in (0, 30, 59, 61, 90):
            clock.now = NOW + seconds
            told.deliver()
        told.put([replace(PAGE, ends=NOW + 95), TICKET], NOW + 95)
        told.deliver()
        told.deliver()
    bodies = taken.bodies()
    assert {path for path, _, _ in taken.taken} == {"/api/v2/alerts"}
    assert [len(body) for body in bodies] == [2, 2, 1]
    assert bodies[0][0] == {
        "labels": PAGE.labels, "annotations": PAGE.annotations,
        "startsAt": "2027-01-15T08:00:00.000Z", "endsAt": "2027-01-15T08:05:00.000Z",
    }  # fmt: skip
    assert bodies[1][0]["endsAt"] == "2027-01-15T08:06:01.000Z"
    assert bodies[2][0]["endsAt"] == "2027-01-15T08:01:35.000Z"


def test_only_who_should_is_told(tmp_path: Path) -> None:
    with hook() as all_of_them, hook() as pages:
        told = receivers(
            tmp_path, all={"webhook": all_of_them.url},
            pages={"webhook": pages.url, "least": "page"},
        )  # fmt: skip
        told.put([PAGE, TICKET, replace(PAGE, labels={"alertname": "X"}, suppressed="run")], NOW)
        told.deliver()
        assert len(all_of_them.taken) == 2
        assert [one["commonLabels"] for one in pages.bodies()] == [PAGE.labels]


def test_a_signature_is_of_time_and_body(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "0123456789abcdef-hidden"
    monkeypatch.setenv("HOOK_SECRET", secret)
    (tmp_path / "secret").write_text(secret + "\n")
    with hook(500, 500) as taken:
        told = receivers(
            tmp_path, env={"webhook": taken.url, "secret": "env:HOOK_SECRET"},
            file={"webhook": taken.url, "secret": "file:secret"},
        )  # fmt: skip
        told.put([PAGE], NOW)
        told.deliver()
    for _, headers, body in taken.taken:
        signed = headers["x-withstand-timestamp"].encode() + b"." + body
        wanted = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
        assert headers["x-withstand-signature"] == f"sha256={wanted}"
        assert secret.encode() not in body
    assert len(taken.taken) == 2
    assert caplog.records
    assert "hidden" not in caplog.text + str(told.errors)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"webhook": "http://h/$NO_SUCH_NAME"}, "environment variable NO_SUCH_NAME"),
        ({"webhook": "http://user:hidden@h/"}, "has a user in it"),
        ({"webhook": "http://h:0/"}, "is no URL"),
        ({"webhook": "http://h/", "secret": "env:NO_SUCH_NAME"}, "holds 0 bytes"),
        ({"webhook": "http://h/", "secret": "file:none"}, "at least 16 random"),
        ({"webhook": "https://h/", "ca": "none.pem"}, "none.pem holds no certificates .No such"),
        ({"webhook": "https://h/", "ca": "."}, "holds no certificates .*; give a PEM file"),
    ],
)
def test_a_receiver_that_cannot_be_told_is_an_error_at_the_start(
    tmp_path: Path, told: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        receivers(tmp_path, r=told)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "never"),
    [
        ("169.254.169.254", True), ("fe80::1%eth0", True), ("::ffff:169.254.169.254", True),
        ("100.100.100.200", True), ("fd00:ec2::254", True), ("0.0.0.0", True), ("::", True),
        ("224.0.0.1", True), ("127.0.0.1", False), ("10.0.0.1", False), ("::1", False),
        ("192.0.2.1", False),
    ],
)  # fmt: skip
def test_some_addresses_are_never_sent_to(address: str, never: bool) -> None:
    assert refused(address) is never


def test_a_name_that_leads_to_metadata_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*told: object, **more: object) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]

    monkeypatch.setattr(_post.socket, "getaddrinfo", found)
    with pytest.raises(OperationError, match=re.escape("leads to 169.254.169.254")):
        post("http://hooks.example.org/a", b"", {})


KILLED = """
import os, signal
from pathlib import Path
from withstand.config import ReceiverConfig
from withstand.monitor import Alerts, Store
from withstand.monitor.tell import Outbox, Receivers

folder = Path({folder!r})
store = Store(folder / "store")
config = {{"ops": ReceiverConfig(webhook={url!r})}}
told = Receivers(store, config, folder, clock=lambda: {now})
done = Outbox.done
if {when!r} == "before":
    Outbox.done = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
told.put(Alerts(store).all(open=True), {now})
told.deliver()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_not_told_when_the_process_was_killed_is_told_afterwards(tmp_path: Path) -> None:
    Alerts(Store(tmp_path / "store")).fire(PAGE)
    with hook() as taken:
        for when, sent in (("before", 1), ("after", 2), ("after", 2)):
            text = KILLED.format(folder=str(tmp_path), url=taken.url, now=NOW, when=when)
            assert script(text, tmp_path).returncode == -signal.SIGKILL
            assert len(taken.taken) == sent
        # Killed between the answer and its note: it is told twice, and knows by the key.
        assert len({headers["idempotency-key"] for _, headers, _ in taken.taken}) == 1


def test_the_beginning_is_told_before_the_end(tmp_path: Path) -> None:
    with hook() as taken:
        told = receivers(tmp_path, ops={"webhook": taken.url})
        told.put([replace(PAGE, ends=NOW + 5)], NOW + 5)
        assert [told.deliver() for _ in range(3)] == [1, 1, 0]
    assert [one["status"] for one in taken.bodies()] == ["firing", "resolved"]


def test_what_is_long_over_is_forgotten(tmp_path: Path) -> None:
    outbox = Outbox(Store(tmp_path))
    over = replace(PAGE, ends=NOW)
    outbox.put("r", [over, TICKET], NOW)
    assert outbox.forget(NOW + 86_400) == 0
    assert outbox.depth() == {"r": 2}
    assert outbox.forget(NOW + 5 * 86_400) == 1
    assert outbox.depth() == {"r": 1}


def test_what_changes_while_it_is_being_told_is_still_due(tmp_path: Path) -> None:
    outbox = Outbox(Store(tmp_path))
    outbox.put("r", [PAGE], NOW)
    due = outbox.due("r", NOW, again=False)
    outbox.put("r", [replace(PAGE, ends=NOW + 1)], NOW + 1)
    outbox.done(due, NOW + 1)
    (left,) = outbox.due("r", NOW + 1, again=False)
    assert left.state == "resolved"
    assert left.key != due[0].key


def test_a_secret_that_is_gone_for_a_while_ends_nothing(tmp_path: Path) -> None:
    secret, stop = tmp_path / "secret", threading.Event()
    secret.write_text("0123456789abcdef")
    with hook() as taken:
        told = receivers(tmp_path, ops={"webhook": taken.url, "secret": "file:secret"})
        told.put([PAGE], NOW)
        secret.unlink()
        (thread,) = told.run(stop, every=0.01)
        reached(lambda: "holds 0 bytes" in told.errors.get("ops", ""))
        assert thread.is_alive()
        stop.set()
        thread.join()
        assert taken.taken == []
        secret.write_text("0123456789abcdef")
        told = receivers(tmp_path, ops={"webhook": taken.url, "secret": "file:secret"})
        assert told.deliver() == 1


def reached(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_message_that_is_never_taken_holds_up_no_other(tmp_path: Path) -> None:
    clock = Clock()
    with hook(400) as taken:
        told = receivers(tmp_path, clock, ops={"webhook": taken.url})
        told.put([TICKET], NOW)
        told.put([PAGE], NOW + 1)
        assert told.deliver() == 0
        taken.answers = [200, 400]
        clock.now += 10
        assert told.deliver() == 1
    assert [one["commonLabels"]["severity"] for one in taken.bodies()] == [
        "ticket", "page", "ticket",
    ]  # fmt: skip
    (left,) = Outbox(Store(tmp_path / "store")).due("ops", clock.now, again=False)
    assert left.alert == TICKET


def test_an_alert_that_an_alertmanager_never_takes_holds_up_none_of_its_group(
    tmp_path: Path,
) -> None:
    clock = Clock()
    third = replace(PAGE, labels={**PAGE.labels, "slo": "t"})
    with hook(400, 400, 200, 200) as taken:
        told = receivers(tmp_path, clock, am={"alertmanager": taken.url})
        told.put([TICKET], NOW)
        told.put([PAGE, third], NOW + 1)
        # All three, the first alone, the other two, and then halves no more.
        assert told.deliver() == 2
        assert "status 400" in told.errors["am"]
        assert [len(body) for body in taken.bodies()] == [3, 1, 2]
        (left,) = Outbox(Store(tmp_path / "store")).due("am", clock.now, again=False)
        assert left.alert == TICKET
        # What is wrong with the receiver is not asked message by message.
        taken.answers = [401]
        clock.now += 700
        assert told.deliver() == 0
    assert len(taken.taken) == 4


def test_what_holds_is_told_an_alertmanager_again_as_soon_as_it_can_be(tmp_path: Path) -> None:
    clock = Clock()
    with hook(200, 503) as taken:
        told = receivers(tmp_path, clock, am={"alertmanager": taken.url})
        told.put([PAGE], NOW)
        for seconds in (0, 61, 63):
            clock.now = NOW + seconds
            told.deliver()
    assert len(taken.taken) == 3


@pytest.mark.parametrize("ends", [None, NOW - 7000])
def test_an_alertmanager_takes_no_end_before_the_beginning(
    tmp_path: Path, ends: float | None
) -> None:
    clock = Clock()
    with hook() as taken:
        told = receivers(tmp_path, clock, am={"alertmanager": taken.url})
        told.put([PAGE], NOW)
        told.deliver()
        # Somebody has set the clock back by two hours.
        clock.now = NOW - 7200
        told.put([replace(PAGE, ends=ends)], clock.now)
        told.deliver()
    (second,) = taken.bodies()[1]
    assert (
        second["startsAt"]
        <= second["endsAt"]
        == ("2027-01-15T06:05:00.000Z" if ends is None else "2027-01-15T06:03:20.000Z")
    )


def test_who_is_told_of_pages_alone_from_now_on_learns_that_a_ticket_has_ended(
    tmp_path: Path,
) -> None:
    clock, over = Clock(), replace(TICKET, ends=NOW + 30)
    with hook() as taken:
        told = receivers(tmp_path, clock, am={"alertmanager": taken.url})
        told.put([TICKET], NOW)
        told.deliver()
        told = receivers(tmp_path, clock, am={"alertmanager": taken.url, "least": "page"})
        for seconds in (61, 122, 183):
            clock.now = NOW + seconds
            told.put([over, replace(TICKET, labels={**TICKET.labels, "slo": "new"})], clock.now)
            told.deliver()
    assert [body[0]["endsAt"] for body in taken.bodies()] == [
        "2027-01-15T08:05:00.000Z", "2027-01-15T08:00:30.000Z",
    ]  # fmt: skip


def test_a_receiver_that_answers_byte_by_byte_is_given_up_in_time() -> None:
    def drip() -> None:
        taken, _ = listening.accept()
        with taken, contextlib.suppress(OSError):
            taken.sendall(b"HTTP/1.1 200 ")
            while True:
                taken.sendall(b"O")
                time.sleep(0.05)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        with pytest.raises(OperationError, match="was not reached"):
            post(f"http://127.0.0.1:{listening.getsockname()[1]}", b"", {}, seconds=0.3)
        assert time.monotonic() - began < 5
        thread.join()
