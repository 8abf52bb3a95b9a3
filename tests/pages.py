"""Pages with something on them: a project's files as they are after an attack, and who looks."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from withstand.evidence import Corpus, Entry, Origin
from withstand.evidence.log import START, Head, Tensor, Vault, pack
from withstand.evidence.log._record import content_text, encode
from withstand.guard import Secrets
from withstand.monitor import (
    Act,
    Alert,
    Alerts,
    Audit,
    Campaign,
    Counts,
    Observation,
    Observations,
    Store,
)
from withstand.redteam import Run, Runs
from withstand.respond import Entry as Line
from withstand.respond import Incidents, Reviews, Step
from withstand.stats import wilson
from withstand.ui import App, Site
from withstand.ui.access import Accounts

PASSWORD = "correct horse battery"
CHEAP = (16, 1)
PEOPLE = {"vera": "viewer", "rosa": "responder", "adam": "admin"}
ATTACKER, EXPLAINER = "5fa1c3" + "e" * 58, "b72d90" + "4" * 58
RUN = "rt-2611-square"
CAMPAIGN = "c-digits-5fa1c3ee"
XSS = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e"

CONFIG = """
guard:
  upstream: http://127.0.0.1:9
  admin: 127.0.0.1:{admin}
  open: true
  evidence: {{folder: evidence, inputs: flagged}}
  models:
    digits: {{mode: enforce, version: "2.3", throttle: {{requests: 1}}}}
    fraud: {{mode: shadow, version: "11"}}
monitor:
  slos:
    digits-withstands: {{sli: M1, objective: 0.9, model: digits}}
    attacks-are-seen: {{sli: M2, objective: 0.95}}
    few-false-alarms: {{sli: M3, objective: 0.99}}
    anomalies: {{sli: M5, budget: 2000, least: 20}}
ui:
  listen: 127.0.0.1:0
"""


class Seen(NamedTuple):
    """What a browser gets."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Visitor:
    """A browser without a window: cookies, and forms as the pages have them."""

    def __init__(self, app: App, host: str = "127.0.0.1:8103") -> None:
        self.app, self.host = app, host
        self.cookies: dict[str, str] = {}

    def get(self, path: str, **headers: str) -> Seen:
        return self.ask("GET", path, b"", headers)

    def post(self, path: str, form: dict[str, str], **headers: str) -> Seen:
        told = {"origin": f"http://{self.host}", "content_type": FORM, **headers}
        return self.ask("POST", path, urlencode(form).encode(), told)

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Seen:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        told = {"host": self.host, "cookie": cookie}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        where, _, query = path.partition("?")
        scope = {
            "type": "http", "method": method, "path": where, "raw_path": where.encode(),
            "query_string": query.encode(), "client": ("127.0.0.1", 5),
            "headers": [(n.encode(), v.encode("latin-1")) for n, v in told.items() if v],
        }  # fmt: skip
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        found = {n.decode(): v.decode("latin-1") for n, v in sent[0]["headers"]}
        for name, value in re.findall(r"^([^=]+)=([^;]*)", found.get("set-cookie", "")):
            self.cookies[name] = value
        return Seen(sent[0]["status"], found, sent[1]["body"])

    def log_in(self, name: str, password: str = PASSWORD, back: str = "/") -> Seen:
        self.cookies.pop("withstand", None)
        token = form_token(self.get("/login").text)
        form = {"name": name, "password": password, "token": token, "back": back}
        return self.post("/login", form)

    def token(self) -> str:
        return form_token(self.get("/nothing").text)


FORM = "application/x-www-form-urlencoded"


def form_token(text: str) -> str:
    found = re.search(r'name="token" value="([0-9a-f]{64})"', text)
    assert found is not None
    return found[1]


class Operated(NamedTuple):
    """A guard's admin port as the pages ask it, and what it was told."""

    port: int
    told: list[tuple[str, dict[str, str]]]
    answers: dict[str, Any]


@contextmanager
def admin_port(token: bytes, names: tuple[str, str] = ("digits", "fraud")) -> Iterator[Operated]:
    """An admin port that answers as a guard does, and keeps what it was told to do."""
    now = time.time()
    arms = {
        name: {
            "requests": asked, "errors": errors, "flagged": flagged, "mean_seconds": 0.004,
            "p50_seconds": 0.003, "p95_seconds": 0.011,
            "fooled": {"tried": tried, "happened": fooled},
            "wrong": {"tried": tried, "happened": wrong},
            "labels": {} if name == "stable" else {"3": asked - 900, "8": 900},
            "mean_confidence": None if name == "stable" else 0.875,
            "unsure": {"tried": tried, "happened": fooled},
        }
        for name, asked, errors, flagged, tried, fooled, wrong in (
            ("canary", 4211, 6, 38, 640, 31, 6), ("control", 4187, 5, 41, 640, 34, 5),
            ("stable", 8460, 12, 79, 0, 0, 0),
        )
    }  # fmt: skip

    def compared(verdict: str, n: int, canary: int, control: int, found: float) -> dict[str, Any]:
        return {
            "verdict": verdict, "pairs": n, "least": 200, "canary": wilson(canary, n).to_dict(),
            "control": wilson(control, n).to_dict(),
            "evidence": {"not_worse": found, "needed": 20.0, "worse": 0.04, "enough": 240.0},
        }  # fmt: skip

    answers: dict[str, Any] = {
        "/status": {"version": "0.1.0", "killed": False, "evidence": "kept", "models": {}},
        "/mitigations": [
            {"id": "incident-3-step-2", "action": "throttle", "until": now + 2400, "key": ATTACKER,
             "model": names[0], "who": "responder", "why": "campaign " + CAMPAIGN},
        ],
        "/canary": {"models": {names[0]: {
            "state": "running", "weight": 25, "step": 2, "steps": [5, 10, 25, 50, 100],
            "version": "2.4", "stable": "2.3", "since": now - 5400, "verdict": "inconclusive",
            "why": "a look every minute", "who": "guard", "arms": arms, "compared": {
                "fooled": compared("inconclusive", 640, 31, 34, 7.2),
                "errors": compared("pass", 4187, 6, 5, 31.0),
                "slow": compared("pass", 4187, 400, 419, 88.0),
                "labels": {**compared("pass", 4187, 896, 900, 91.0), "label": "8"},
            },
        }}},
    }  # fmt: skip
    told: list[tuple[str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(200 if self.path in answers else 404, answers.get(self.path, {"error": "no"}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.headers["authorization"] != f"Bearer {token.hex()}":
                self._say(401, {"error": "the admin token is missing"})
                return
            told.append((self.path, body))
            self._say(200, {"new": True, "lifted": True, "recorded": True, "killed": True})

        def _say(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Operated(server.server_address[1], told, answers)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def project(
    folder: Path, *, evil: bool = False, calm: int = 240
) -> Iterator[tuple[Path, Operated]]:
    """A project's withstand.yaml, with a guard's admin port and files behind it.

    evil: names and texts that come from outside are payloads. calm: decisions of benign clients.
    """
    secrets = Secrets(folder / "withstand-secrets", {})
    with admin_port(secrets.get("token"), (XSS if evil else "digits", "fraud")) as operated:
        path = folder / "withstand.yaml"
        path.write_text(CONFIG.format(admin=operated.port))
        accounts = Accounts(folder / "withstand-accounts.json", cost=CHEAP)
        for name, role in {"adam": "admin", **PEOPLE}.items():
            accounts.add(name, role, PASSWORD)
        seen = _evidence(folder, secrets, evil=evil, calm=calm)
        _operations(folder, seen, evil=evil)
        yield path, operated


@contextmanager
def opened(path: Path) -> Iterator[App]:
    """The pages of a project."""
    site = Site(path)
    # The price of a guess is not what is tested here.
    site.accounts = site.sessions._accounts = Accounts(site.accounts.path, cost=CHEAP)
    app = App(site)
    try:
        yield app
    finally:
        app.close()


def glyph(digit: int, seed: int) -> np.ndarray[Any, Any]:
    """A digit of 28 by 28, somewhat moved."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (28, 28))
    place = (8 + rng.integers(-2, 3), 1 + rng.integers(-2, 3))
    font = ImageFont.load_default(24)
    ImageDraw.Draw(image).text(place, str(digit), fill=255, font=font)
    noise = rng.normal(0, 0.02, (28, 28))
    return np.clip(np.asarray(image, np.float32) / 255 + noise, 0, 1).astype(np.float32)


def _evidence(folder: Path, secrets: Secrets, *, evil: bool, calm: int) -> list[str]:
    """Six hours of decisions and the inputs of flagged ones; their fingerprints."""
    rng, now = np.random.default_rng(0), time.time()
    text = XSS if evil else ""
    model = text or "digits"
    start = now - 6 * 3600 + 60
    told: list[tuple[float, str, dict[str, Any]]] = [
        (start - 30, "boot", {"clean": True, "by": text or "withstand 0.1.0"}),
        (now - 1800, "mitigation", {"id": "incident-3-step-2", "action": "throttle",
                                    "key": ATTACKER, "who": text or "responder"}),
    ]  # fmt: skip
    base = {"version": "2.3", "weights": "9c41" * 16, "policy": "a31f09", "status": 200,
            "mode": "enforce", "done": []}  # fmt: skip
    for number in range(calm):
        tenant = ("acme", "northwind", "explanations")[number % 3]
        key = EXPLAINER if number % 3 == 2 else f"{number % 7}c0ffee".ljust(64, "a")
        told.append((start + (number + rng.random()) / calm * 21_000, "decision", {
            **base, "id": f"b-{number}", "tenant": tenant, "key": key, "model": model,
            "decision": "pass", "ms": [round(2.1 + rng.random(), 3), round(1.6 + rng.random(), 3)],
            "fingerprint": f"{number:064x}", "trace": [["schema", "d1" * 16], ["range", "d2" * 16]],
            "signals": [["queries", float(rng.gamma(2, 2)), 25.0, False, False],
                        ["reconstruction", float(rng.gamma(4, 0.01)), 0.12, False, False]],
            "answered": [[[int(rng.integers(10)), round(float(1 - rng.random() / 9), 3)]]],
        }))  # fmt: skip
    vault, inputs = Vault(folder / "evidence" / "vault", secrets.get("master")), []
    clean = glyph(3, 1)
    for number in range(36):
        strength = 0.02 + 0.012 * number
        x = np.clip(clean + strength * np.sign(rng.normal(0, 1, clean.shape)), 0, 1)
        inputs.append(pack([Tensor("x", "FP32", x[None, None].astype(np.float32))]))
    row = rng.normal(0, 1, 8).astype(np.float32)
    columns = tuple([text] * 8) if evil else (
        "amount", "age of account", "hour", "distance", "items", "refunds", "logins", "risk",
    )  # fmt: skip
    for shift in (0.0, 1.5):
        moved = row + np.float32(shift) * np.array([1, 0, 0, -0.4, 0, 0, 0.2, 0], np.float32)
        inputs.append(pack([Tensor("x", "FP32", moved[None].astype(np.float32), columns)]))
    words = np.empty(1, object)
    words[0] = (text or "Transfer 500 € to\u200b \u0430cme").encode()
    inputs.append(pack([Tensor(text or "text", "BYTES", words)]))
    references = vault.put(inputs)
    vault.close()
    fingerprints = []
    for number, reference in enumerate(references):
        fingerprint = f"f{number:x}".ljust(64, "0")
        fingerprints.append(fingerprint)
        tabular, written = 36 <= number < 38, number == 38
        score = 12 + 1.4 * number
        told.append((now - 3200 + 70 * number, "decision", {
            **base, "id": f"a-{number}", "tenant": text or "oddly quiet ltd",
            "key": ATTACKER, "model": "fraud" if tabular or written else model,
            "decision": "flag" if score > 25 else "pass", "ms": [4.4, 2.2],
            "done": ["tag"] * (score > 25) + ["throttle"] * (number > 20),
            "fingerprint": fingerprint, "input": reference,
            "trace": [[text or "schema", "d1" * 16], ["range", f"{number:02x}" * 16]],
            "signals": [["queries", score, 25.0, score > 25, False],
                        ["reconstruction", 0.06 + 0.006 * number, 0.12, number > 10, False],
                        [text or "neighbours", 0.4, 0.9, False, number % 9 == 0]],
            "answered": [[[3 if number < 22 else 5, 0.97 - 0.02 * (number % 22)],
                          [text or 8, 0.02 * (number % 22) + 0.01]]],
        }))  # fmt: skip
    for number in range(24):
        told.append((now - 9000 + 60 * number, "decision", {
            **base, "id": f"e-{number}", "tenant": "red team", "key": "77".ljust(64, "e"),
            "model": model, "decision": "flag" if number % 3 else "pass", "ms": [3.0, 1.9],
            "fingerprint": f"e{number:x}".ljust(64, "0"), "experiment": RUN,
            "probe": f"{number // 4}",
            "signals": [["queries", 30.0, 25.0, bool(number % 3), False]],
            "answered": [[[3, 0.8]]], "trace": [],
        }))  # fmt: skip
    told.append((now - 500, "decision", {
        **base, "id": "r-1", "tenant": text or "acme", "key": "0c0ffee".ljust(64, "a"),
        "model": model, "decision": "refuse", "status": 400, "reason": text or "range",
        "ms": [0.3, 0.0],
    }))  # fmt: skip
    head, lines = Head(0, START), []
    for wall, kind, content in sorted(told, key=lambda one: one[0]):
        line, head = encode(
            head, wall=wall, mono=wall - start + 100, boot="b" * 32, kind=kind,
            content=content_text(content),
        )  # fmt: skip
        lines.append(line)
    (folder / "evidence" / "00000001.log").write_bytes(b"".join(lines))
    corpus, origin = Corpus(folder / "corpus"), Origin(model="9c41" * 16)
    x = [clean[None], glyph(5, 4)[None], glyph(3, 9)[None], glyph(8, 2)[None]]
    corpus.add(x, [
        Entry(original=None, label=label, answer=answer, attack=text or attack, origin=origin)
        for label, answer, attack in (
            (3, 9, "FMN"), (5, 6, "SimBA"), (3, 8, "Square"), (8, 3, "APGD"),
        )
    ])  # fmt: skip
    return fingerprints


def _operations(folder: Path, seen: list[str], *, evil: bool) -> None:
    """What monitor, responder and red team have written by then."""
    rng, now, text = np.random.default_rng(1), time.time(), XSS if evil else ""
    model = text or "digits"
    store = Store(folder / "withstand-monitor")
    day, hour = 86_400.0, 3600.0
    observed = []
    for back in range(24):
        for n in range(40):
            wall, labels = now - back * day - 40 * n, {"model": model}
            fooled = rng.random() < 0.05 + 0.0015 * (24 - back)
            source = f"probe:{back}:{n}"
            observed.append(Observation(sli="M1", wall=wall, source=source, bad=bool(fooled),
                                        model=model, labels=labels))  # fmt: skip
            observed.append(Observation(sli="M2", wall=wall, source=f"m2-{source}", model=model,
                                        bad=bool(rng.random() < 0.04)))  # fmt: skip
            observed.append(Observation(sli="M3", wall=wall, source=f"m3-{source}", model=model,
                                        bad=bool(rng.random() < 0.006)))  # fmt: skip
    for number, (found, over) in enumerate(((41.0, 420.0), (33.0, 980.0), (18.5, 260.0))):
        observed.append(Observation(sli="M8", wall=now - number * 9 * day, value=found,
                                    source=f"campaign:{number}"))  # fmt: skip
        observed.append(Observation(sli="M9", wall=now - number * 9 * day, value=over,
                                    source=f"incident:{number}"))  # fmt: skip
    Observations(store).add(observed)
    counts = {
        ("M5", "digits", int((now - back * hour) // 60) * 60): (900, int(rng.poisson(2)))
        for back in range(400)
    }
    Counts(store)
    with store.writing() as file:
        Counts.within(file, counts, {})
    alerts = Alerts(store)
    campaign = Campaign(
        id=CAMPAIGN, model=model, kind="client", first=now - 3200, last=now - 480,
        tenant=text or "oddly quiet ltd", keys=(ATTACKER,), inputs=tuple(seen[:6]), requests=1212,
        flagged=311, distinct=298, sensors={text or "queries": 290, "reconstruction": 204},
    )  # fmt: skip
    alerts.put_campaign(campaign)
    alerts.put_campaign(Campaign(
        id="c-fraud-spread", model="fraud", kind="distributed", first=now - 5 * day,
        last=now - 4.9 * day, clients=214, keys=(EXPLAINER,), requests=9004, flagged=402,
        distinct=377, sensors={"search": 402}, open=False,
    ))  # fmt: skip
    page = Alert(
        labels={"alertname": "CampaignByOneClient", "severity": "page", "model": model},
        annotations={"summary": text or "One client searches for adversarial inputs of digits",
                     "description": "311 of 1,212 requests were flagged within 45 minutes"},
        starts=now - 3150, campaign=CAMPAIGN,
    )  # fmt: skip
    ticket = Alert(
        labels={"alertname": "BudgetBurns", "severity": "ticket", "slo": "digits-withstands"},
        annotations={"summary": "digits-withstands spends its budget twice as fast as it may"},
        starts=now - 7 * hour,
    )  # fmt: skip
    probes = Alert(
        labels={"alertname": "CampaignByOneClient", "severity": "page", "tenant": "red team"},
        starts=now - 8800, suppressed=RUN,
    )  # fmt: skip
    for alert in (page, ticket, probes):
        alerts.fire(alert)
    incidents = Incidents(store)
    for title, severity, back, took in (
        ("Extraction sweep on fraud", "ticket", 96, 2 * hour),
        ("One client probes the boundary of digits", "page", 33, 420.0),
    ):
        opened_at = now - back * day
        incidents.open(title, severity, opened=opened_at, model="fraud", state="resolved",
                       mitigated=opened_at + took, resolved=opened_at + 9 * hour,
                       lead="rosa")  # fmt: skip
    found = incidents.open(
        text or "One client searches for adversarial inputs of digits", "page", opened=now - 3140,
        model=model, campaign=CAMPAIGN, alerts=(page.fingerprint,), lead="rosa",
    )  # fmt: skip
    for wall, who, kind, said in (
        (now - 3150, "monitor", "alert", "CampaignByOneClient pages"),
        (now - 3140, "responder", "opened", text or "the alert opened this incident"),
        (now - 3120, "responder", "runbook", "attack-by-one-client begins"),
        (now - 3110, "responder", "step", "1. snapshot the evidence: done, 341 records"),
        (now - 3100, "responder", "step", "2. throttle the client: done, for 1 hour"),
        (now - 2300, "rosa", "note", text or "The inputs are one 3 with growing noise.\n"
         "Looks like a random search; the explanations team is not involved."),
    ):  # fmt: skip
        detail = {"labels": page.labels, "annotations": page.annotations}
        incidents.note(found.id, Line(wall=wall, who=who, kind=kind, text=said,
                                      detail=detail if kind == "alert" else {}))  # fmt: skip
    for step in (
        Step(number=1, runbook="attack-by-one-client", name="snapshot the evidence",
             action="snapshot_evidence", state="done", result="341 records, chain sound"),
        Step(number=2, runbook="attack-by-one-client", name=text or "throttle the client",
             action="throttle", arguments={"keys": [ATTACKER], "why": text or "campaign"},
             state="done", result="one client for 1 hour"),
        Step(number=3, runbook="attack-by-one-client", name="block the client", action="block",
             approval=True, state="approval", arguments={"keys": "{campaign.keys}"}),
    ):  # fmt: skip
        incidents.put_step(found.id, step)
    runs = Runs(store)
    for number, (attack, fooled, tried) in enumerate(
        (("Square linf 0.1", 9, 120), ("SimBA l2 1.5", 4, 80), ("transfer linf 0.1", 2, 200))
    ):
        began = now - number * 2 * day - 9000
        runs.put(Run(
            id=RUN if number == 0 else f"rt-26{number}-x", target="http://127.0.0.1:8100",
            attack=attack, began=began, ended=began + 1400, scope="4be1" * 16, who=text or "adam",
            most=20_000, model=model, state="done", queries=8140 - 900 * number, tried=tried,
            fooled=fooled, detected=tried - fooled // 2, stopped="",
        ))  # fmt: skip
    reviews = Reviews(store)
    reviews.put(seen[13], "adversarial", "rosa", seq=12, why=text or "noise on a 3")
    reviews.put(seen[15], "benign", "rosa", seq=14, why="an explanation client")
    audit = Audit(store)
    audit.add(Act(who=text or "rosa", role="responder", action="review", about="input",
                  detail={"result": text or "done"}))  # fmt: skip
    store.close()
