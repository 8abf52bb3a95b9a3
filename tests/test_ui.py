"""The pages: who sees them, who may act, what is written down of it, and what they show."""

from __future__ import annotations

import io
import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pages import (
    ATTACKER,
    CAMPAIGN,
    PASSWORD,
    PEOPLE,
    RUN,
    XSS,
    Operated,
    Visitor,
    form_token,
    glyph,
    opened,
    project,
)
from PIL import Image

from withstand import ui
from withstand._errors import OperationError
from withstand.evidence import Corpus
from withstand.evidence.log import Record, Vault
from withstand.guard import Secrets
from withstand.respond import Job
from withstand.stats import wilson
from withstand.ui import App, _inputs, _past, access
from withstand.ui._past import Corpora
from withstand.ui._picture import difference, picture
from withstand.ui._render import plain, share
from withstand.ui._web import Route
from withstand.ui.access import ROLES
from withstand.ui.pages import PAGES, _rows
from withstand.ui.pages._clients import _story
from withstand.ui.pages._overview import _verdict

PICTURE, TABLE, TEXT = (f"f{number:x}".ljust(64, "0") for number in (30, 37, 38))
SHOWN = {
    "/": ["/"],
    "/oncall": ["/oncall"],
    "/incidents": ["/incidents"],
    "/incidents/{id}": ["/incidents/3", "/incidents/3?runbook=attack-by-one-client"],
    "/incidents/{id}/postmortem": ["/incidents/3/postmortem"],
    "/incidents/{id}/postmortem.md": ["/incidents/3/postmortem.md"],
    "/clients": ["/clients"],
    "/clients/{key}": [f"/clients/{ATTACKER}"],
    "/campaigns/{id}": [f"/campaigns/{CAMPAIGN}"],
    "/samples/{fingerprint}": [f"/samples/{one}" for one in (PICTURE, TABLE, TEXT)],
    "/samples/{fingerprint}/picture.png": [
        f"/samples/{PICTURE}/picture.png?which={one}" for one in ("input", "other", "difference")
    ],
    "/review": ["/review"],
    "/models": ["/models"],
    "/detectors": ["/detectors"],
    "/redteam": ["/redteam"],
    "/redteam/{id}": [f"/redteam/{RUN}"],
    "/evidence": ["/evidence", "/evidence?decision=flag&tenant=acme"],
    "/audit": ["/audit", "/audit?who=rosa"],
    "/users": ["/users"],
}
WHY = {"why": "a try"}
DONE: dict[str, tuple[str, dict[str, str]]] = {
    "/mitigate": ("/mitigate", {"action": "tag", "key": ATTACKER, "seconds": "900", **WHY}),
    "/lift": ("/lift", {"id": "incident-3-step-2", **WHY}),
    "/kill": ("/kill", WHY),
    "/unkill": ("/unkill", WHY),
    "/incidents/{id}/lead": ("/incidents/3/lead", {}),
    "/incidents/{id}/note": ("/incidents/3/note", {"text": "seen"}),
    "/incidents/{id}/run": ("/incidents/3/run", {"runbook": "evidence-broken"}),
    "/incidents/{id}/approve": ("/incidents/3/approve", {"step": "3", "agreed": "no"}),
    "/incidents/{id}/resolve": ("/incidents/2/resolve", WHY),
    "/incidents/{id}/replay": ("/incidents/3/replay", {}),
    "/review": ("/review", {"fingerprint": PICTURE, "verdict": "confirm", **WHY}),
    "/canary/start": ("/canary/start", {"model": "digits", **WHY}),
    "/canary/rollback": ("/canary/rollback", {"model": "digits", **WHY}),
    "/canary/freeze": ("/canary/freeze", {"model": "digits", **WHY}),
    "/canary/resume": ("/canary/resume", {"model": "digits", **WHY}),
    "/canary/promote": ("/canary/promote", {"model": "digits", **WHY}),
    "/evidence/check": ("/evidence/check", {}),
    "/users/add": ("/users/add", {"name": "nina", "role": "viewer", "password": PASSWORD}),
    "/users/change": ("/users/change", {"name": "zoe", "role": "viewer"}),
    "/users/remove": ("/users/remove", {"name": "zoe"}),
    "/logout": ("/logout", {}),
}
ACTING = [route for route in PAGES if route.action]


@dataclass
class Seeded:
    path: Path
    app: App
    operated: Operated

    def as_(self, name: str) -> Visitor:
        """Somebody who has just logged in."""
        found = Visitor(self.app)
        account = self.app._site.accounts.get(name)
        assert account is not None
        found.cookies["withstand"] = self.app._site.sessions.begin(account).token
        return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    folder = tmp_path_factory.mktemp("pages")
    with project(folder) as (path, operated), opened(path) as app:
        app._site.accounts.add("zoe", "viewer", PASSWORD)
        yield Seeded(path, app, operated)


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    folder = tmp_path_factory.mktemp("evil")
    with project(folder, evil=True, calm=12) as (path, operated), opened(path) as app:
        yield Seeded(path, app, operated)


@pytest.fixture(autouse=True)
def _no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay is a process with torch, and what it does is tested where it is at home."""
    monkeypatch.setattr(Job, "start", lambda self, commands, root: None)


def test_public_names_are_sorted_and_there() -> None:
    for room in (ui, access):
        assert sorted(room.__all__, key=_constants_first) == room.__all__
        assert all(hasattr(room, name) for name in room.__all__)


def _constants_first(name: str) -> tuple[bool, bool, str]:
    return not name.isupper(), name[0].islower(), name


def test_no_route_is_forgotten() -> None:
    assert set(SHOWN) == {route.path for route in PAGES if not route.action}
    assert set(DONE) == {route.path for route in ACTING}
    # What only looks is for everybody, but for the accounts; and what acts is for nobody's viewer.
    assert [r.path for r in PAGES if not r.action and r.role != "viewer"] == ["/users"]
    assert [route.path for route in ACTING if route.role == "viewer"] == ["/logout"]


@pytest.mark.parametrize("name", PEOPLE)
@pytest.mark.parametrize("route", [route for route in PAGES if not route.action])
def test_a_page_is_shown_to_whom_it_is_for(pages: Seeded, route: Route, name: str) -> None:
    if name == "rosa" and route.role == "viewer":
        return
    for path in SHOWN[route.path]:
        anybody = Visitor(pages.app).get(path)
        assert anybody.status == 303
        assert anybody.headers["location"].startswith("/login")
        assert not anybody.body
        seen = pages.as_(name).get(path)
        allowed = ROLES.index(PEOPLE[name]) >= ROLES.index(route.role)
        assert seen.status == (200 if allowed else 403), seen.text
        _sound(seen.headers, seen.body)


class Tags(HTMLParser):
    """The tags of a page, and what stands in its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.code, self._inside = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        self._inside = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        self.code += data if self._inside else ""


def _sound(headers: dict[str, str], body: bytes) -> None:
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    if not headers["content-type"].startswith("text/html"):
        return
    text = body.decode()
    found = Tags()
    found.feed(text)
    scripts = [told for tag, told in found.seen if tag == "script"]
    assert scripts in ([], [{"src": "/static/live.js", "defer": None}])
    assert not found.code.strip()
    for tag, told in found.seen:
        assert tag not in ("style", "iframe", "object", "embed", "base")
        assert not [name for name in told if name == "style" or name.startswith("on")]
        for name in ("src", "href", "action", "formaction"):
            assert re.match(r"/(?!/)|\?|#", told.get(name) or "/"), told
    for form in re.findall(r'<form[^>]*method="post".*?</form>', text, re.S):
        assert form_token(form)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("route", ACTING)
def test_nobody_acts_above_their_role(pages: Seeded, route: Route, role: str) -> None:
    name = next(name for name, one in PEOPLE.items() if one == role)
    path, form = DONE[route.path]
    site, visitor = pages.app._site, pages.as_(name)
    before, told = len(site.audit.last(10**6)), len(pages.operated.told)
    state = _state(pages)
    answer = visitor.post(path, {**form, "token": visitor.token()})
    noted = site.audit.last(len(site.audit.last(10**6)) - before)
    mine = [act for act in noted if act.action == route.action]
    assert {act.who for act in mine} == {name}
    assert {act.role for act in mine} == {role}
    if ROLES.index(role) < ROLES.index(route.role):
        assert answer.status == 403
        assert [act.detail["result"] for act in mine] == [f"refused: {role}"]
        assert len(pages.operated.told) == told
        assert _state(pages) == state
    else:
        assert answer.status == 303
        results = [act.detail["result"].split(":")[0] for act in mine]
        assert results[-1] == "asked"
        assert results[0] in ("done", "failed")
    assert PASSWORD not in json.dumps([act.detail for act in noted])


def _state(pages: Seeded) -> Any:
    """What actions change, but for the notes of who asked."""
    site = pages.app._site
    steps = [site.incidents.steps(one.id) for one in site.incidents.all()]
    lines = [len(site.incidents.timeline(one.id)) for one in site.incidents.all()]
    return site.incidents.all(), steps, lines, site.reviews.all(), site.accounts.all()


@pytest.mark.parametrize("route", ACTING)
def test_no_other_site_can_act(pages: Seeded, route: Route) -> None:
    path, form = DONE[route.path]
    told, state = len(pages.operated.told), _state(pages)
    visitor, other = pages.as_("adam"), pages.as_("adam")
    token = visitor.token()
    for answer in (
        visitor.post(path, form),
        visitor.post(path, {**form, "token": other.token()}),
        visitor.post(path, {**form, "token": token}, origin="https://evil.example"),
        visitor.post(path, {**form, "token": token}, origin=""),
        visitor.post(path, {**form, "token": token}, origin="null"),
        visitor.post(path, {**form, "token": token}, sec_fetch_site="same-site"),
        visitor.post(path, {**form, "token": token}, content_type="text/plain"),
    ):
        assert answer.status == 403
    nobody = Visitor(pages.app).post(path, {**form, "token": token})
    assert nobody.headers["location"] == "/login"
    assert visitor.get(path).status in (200, 404)
    assert (len(pages.operated.told), _state(pages)) == (told, state)


def test_an_action_is_written_down_before_it_is_tried(pages: Seeded) -> None:
    site, visitor = pages.app._site, pages.as_("rosa")
    seen: list[str] = []
    guard = site.guard

    class Watched:
        def mitigate(self, *words: Any, **more: Any) -> bool:
            seen.extend(act.detail["result"] for act in site.audit.last(1))
            return guard.mitigate(*words, **more)

    site.desk.__dict__["guard"] = Watched()
    try:
        form = {"action": "coarsen", "key": ATTACKER, "seconds": "900", "why": "too curious"}
        assert visitor.post("/mitigate", {**form, "token": visitor.token()}).status == 303
    finally:
        site.desk.__dict__["guard"] = guard
    assert seen == ["asked"]
    path, told = pages.operated.told[-1]
    assert path == "/mitigate"
    assert {"action": "coarsen", "key": ATTACKER, "who": "rosa", "why": "too curious"}.items() <= (
        told.items()
    )
    done, asked = site.audit.last(2)
    assert done.detail["result"] == f"done: coarsen is ordered for {ATTACKER[:12]}"
    assert asked.detail["form"]["why"] == "too curious"
    assert site.audit.verify()
    page = visitor.get("/oncall").text
    assert "coarsen is ordered for" in page
    assert "coarsen is ordered for" not in visitor.get("/oncall").text


@pytest.mark.parametrize("back", ["/samples/x\r\nset-cookie: a=b", "/samples/\u2028"])
def test_a_form_leads_to_no_header_of_its_own(pages: Seeded, back: str) -> None:
    visitor = pages.as_("rosa")
    form = {"fingerprint": PICTURE, "verdict": "confirm", "back": back, "token": visitor.token()}
    done = visitor.post("/review", form)
    assert (done.status, done.headers["location"]) == (303, "/")


def test_what_cannot_be_written_down_is_not_done(
    pages: Seeded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(act: object) -> int:
        raise OperationError("the disk is full; free space")

    visitor, before = pages.as_("adam"), len(pages.operated.told)
    token = visitor.token()
    monkeypatch.setattr(pages.app._site.audit, "add", full)
    done = visitor.post("/kill", {"token": token, "why": "a try"})
    assert done.status == 500
    assert "nothing was done, since it could not be written down: the disk is full" in done.text
    assert len(pages.operated.told) == before


def test_what_fails_is_said_on_the_page_and_written_down(pages: Seeded) -> None:
    visitor, site = pages.as_("adam"), pages.app._site
    for path, form, words in (
        ("/mitigate", {"action": "nuke", "key": "k", "seconds": "900", **WHY}, "action is nuke"),
        ("/mitigate", {"action": "tag", "seconds": "900", **WHY}, "no client is named"),
        ("/mitigate", {"action": "tag", "key": "k", "seconds": "900"}, "a reason is missing"),
        ("/review", {"fingerprint": "f" * 64, "verdict": "confirm"}, "no decision has"),
        ("/review", {"fingerprint": PICTURE, "verdict": "burn"}, "give release or confirm"),
        ("/users/remove", {"name": "adam"}, "your own account"),
        ("/users/change", {"name": "adam", "role": "viewer"}, "the last admin would be gone"),
        ("/users/add", {"name": "b b", "role": "viewer", "password": PASSWORD}, "cannot be; give"),
        ("/users/add", {"name": "bo", "role": "viewer", "password": "short"}, "has 5 characters"),
        ("/canary/start", {"model": "digits"}, "a reason is missing"),
        ("/incidents/3/run", {"runbook": "nothing"}, "nothing"),
        ("/incidents/3/approve", {"step": "x"}, "give its number"),
        ("/incidents/99/note", {"text": "x"}, "there is no incident 99"),
    ):
        told = {**form, "token": visitor.token(), "back": "/users"}
        answer = visitor.post(path, told)
        assert (answer.status, answer.headers["location"]) == (303, "/users")
        found = re.search(r'told bad" role="status">([^<]*)', visitor.get("/users").text)
        assert found is not None
        assert words in found[1].replace("&#39;", "'")
        assert site.audit.last(1)[0].detail["result"].startswith("failed: ")


def test_a_silent_guard_is_told_and_takes_no_page_along(tmp_path: Path) -> None:
    with project(tmp_path, calm=5) as (path, _):
        pass
    with opened(path) as app:
        visitor = Visitor(app)
        visitor.log_in("adam")
        for one in ("/", "/oncall", "/models", f"/clients/{ATTACKER}"):
            seen = visitor.get(one)
            assert seen.status == 200
            assert "no guard answers at" in seen.text or one.startswith("/clients")
        visitor.post("/kill", {"token": visitor.token(), **WHY})
        assert "no guard answers at" in visitor.get("/oncall").text
        assert app._site.audit.last(1)[0].detail["result"].startswith("failed: no guard answers")


def test_an_empty_project_says_that_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "withstand.yaml").write_text("ui: {listen: '127.0.0.1:0'}\n")
    with opened(tmp_path / "withstand.yaml") as app:
        visitor = Visitor(app)
        assert "There are no accounts yet" in visitor.get("/login").text
        app._site.accounts.add("ada", "admin", PASSWORD)
        visitor.log_in("ada")
        texts = {}
        for path in [paths[0] for path, paths in SHOWN.items() if "{" not in path]:
            seen = visitor.get(path)
            assert seen.status == 200
            texts[path] = seen.text
        assert "Nothing is known yet" in texts["/"]
        assert "no data" in texts["/"]
        assert "0.0" not in re.sub(r"<svg.*?</svg>", "", texts["/"], flags=re.S)
        assert "so this says little" in texts["/oncall"]


@pytest.mark.parametrize("route", [route for route in PAGES if not route.action])
def test_what_comes_from_outside_is_shown_as_text(evil: Seeded, route: Route) -> None:
    visitor = evil.as_("adam")
    for path in SHOWN[route.path]:
        seen = visitor.get(path)
        assert seen.status == 200, seen.text
        if seen.headers["content-type"].startswith("text/html"):
            _sound(seen.headers, seen.body)
            assert "<script>alert" not in seen.text
            assert "<img src=x" not in seen.text
            assert "\u202e" not in seen.text


def test_the_classes_and_the_confidence_of_both_arms_are_shown(pages: Seeded) -> None:
    text = pages.as_("vera").get("/models").text
    for arm, asked in (("canary", 4211), ("control", 4187)):
        assert f"<strong>{arm}</strong>" in text
        assert share(wilson(900, asked)) in text
    assert "<small>class 8</small>" in text
    assert text.count('<td class="num">0.875</td>') == 2


def test_what_a_step_acts_on_is_shown_in_words(pages: Seeded) -> None:
    shown = pages.as_("vera").get("/incidents/3").text
    assert f"keys={ATTACKER[:30]}" in shown
    assert "keys={campaign.keys}" in shown


def test_what_comes_from_outside_is_shown_at_all(evil: Seeded) -> None:
    visitor = evil.as_("adam")
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;"
    for path in ("/", "/oncall", "/clients", f"/clients/{ATTACKER}", f"/campaigns/{CAMPAIGN}",
                 "/incidents", "/incidents/3", "/models", "/redteam", "/evidence", "/audit",
                 "/review", *(f"/samples/{one}" for one in (PICTURE, TABLE, TEXT))):  # fmt: skip
        text = visitor.get(path).text
        assert escaped in text, path
        assert "U+202E" in text, path


def test_a_hostile_name_in_an_address_is_text_too(evil: Seeded) -> None:
    visitor = evil.as_("adam")
    for path in ("/clients/%3Cscript%3Ealert(1)%3C%2Fscript%3E", "/samples/%3Cscript%3E",
                 "/incidents/%3Cscript%3E", "/evidence?tenant=%22%3E%3Cscript%3Ealert(1)",
                 "/nowhere/%3Cscript%3E", "/incidents/3?runbook=%3Cscript%3E"):  # fmt: skip
        seen = visitor.get(path)
        assert seen.status in (200, 404)
        assert "<script>" not in seen.text
    agent = visitor.get("/evidence", user_agent=XSS.encode().decode("latin-1"))
    assert agent.status == 200


def test_log_in_says_nothing_of_names_and_forgets_the_token_before_it(pages: Seeded) -> None:
    visitor = Visitor(pages.app)
    form = visitor.get("/login")
    assert "HttpOnly; SameSite=Strict; Path=/" in form.headers["set-cookie"]
    wrong = [visitor.log_in("adam", "not it at all"), visitor.log_in("nobody", "not it at all")]
    assert [one.status for one in wrong] == [403, 403]
    texts = [re.sub("[0-9a-f]{64}", "", one.text) for one in wrong]
    assert texts[0] == texts[1]
    assert visitor.log_in("adam").headers["location"] == "/"
    token = visitor.cookies["withstand"]
    assert token != visitor.cookies["withstand-before"]
    stored = json.dumps([list(row) for row in pages.app._site.store.rows("SELECT * FROM sessions")])
    assert token not in stored
    acts = pages.app._site.audit.last(3)
    assert [act.action for act in acts] == ["log in"] * 3
    assert [act.who for act in acts] == ["adam", "nobody", "adam"]
    assert "not it at all" not in json.dumps([act.detail for act in acts])


def test_log_in_leads_back_and_never_to_another_site(pages: Seeded) -> None:
    visitor = Visitor(pages.app)
    asked = visitor.get(f"/clients/{ATTACKER}").headers["location"]
    assert f'value="/clients/{ATTACKER}"' in visitor.get(asked).text
    for path, led in (("/oncall", "/oncall"), ("//evil.example", "/"), ("https://evil", "/"),
                      ("/\\evil", "/"), ("/a b", "/"), ("", "/")):  # fmt: skip
        visitor = Visitor(pages.app)
        assert visitor.log_in("vera", back=path).headers["location"] == led


def test_a_link_on_another_site_leads_to_the_page_and_ends_no_session(pages: Seeded) -> None:
    visitor = pages.as_("vera")
    token = visitor.cookies.pop("withstand")
    path = "/evidence?tenant=%22%3E%3Cscript%3E"
    seen = visitor.get(path, sec_fetch_site="cross-site")
    assert seen.status == 200
    assert "set-cookie" not in seen.headers
    assert f'content="0; url={path}"' in seen.text
    for other in ("//evil.example", "/\\evil.example"):
        assert 'content="0; url=/"' in visitor.get(other, sec_fetch_site="cross-site").text
    assert visitor.get(path, sec_fetch_site="same-origin").status == 303
    assert "withstand" not in visitor.cookies
    visitor.get("/login")
    assert "withstand" not in visitor.cookies
    visitor.cookies["withstand"] = token
    assert visitor.get("/login?next=/oncall").headers["location"] == "/oncall"


def test_log_in_needs_its_own_form(pages: Seeded) -> None:
    visitor, other = Visitor(pages.app), Visitor(pages.app)
    told = {"name": "adam", "password": PASSWORD}
    assert visitor.post("/login", told).status == 403
    token = form_token(other.get("/login").text)
    visitor.get("/login")
    assert visitor.post("/login", {**told, "token": token}).status == 403
    assert visitor.get("/").status == 303


def test_guessing_ends_soon_for_known_and_unknown_names(tmp_path: Path) -> None:
    with project(tmp_path, calm=1) as (path, _), opened(path) as app:
        visitor = Visitor(app)
        tries = [visitor.log_in("adam", "wrong wrong wrong").status for _ in range(12)]
        assert tries == [403] * 10 + [429] * 2
        assert visitor.log_in("adam").status == 429
        assert visitor.log_in("vera").status == 303
        tries = [visitor.log_in("nobody", "wrong wrong wrong").status for _ in range(12)]
        assert tries == [403] * 10 + [429] * 2
        # Who has one account must not begin anew with it.
        assert visitor.log_in("vera").status == 303
        tries = [visitor.log_in(f"name {n}", "wrong wrong wrong").status for n in range(12)]
        assert tries == [403] * 5 + [429] * 7
        assert visitor.log_in("rosa").status == 429


def test_nobody_fills_the_audit_log_from_outside(tmp_path: Path) -> None:
    with project(tmp_path, calm=1) as (path, _), opened(path) as app:
        visitor = Visitor(app)
        tries = [visitor.log_in("adam", "wrong wrong wrong").status for _ in range(60)]
        assert tries.count(429) == 50
        acts = [act.detail["result"] for act in app._site.audit.last(100) if act.who == "adam"]
        assert acts.count("refused: wrong name or password") == 10
        assert acts.count("refused: too many attempts") == 30


def test_a_session_ends(pages: Seeded, monkeypatch: pytest.MonkeyPatch) -> None:
    site = pages.app._site
    now = time.time()
    monkeypatch.setattr(site.sessions, "_clock", lambda: now)
    visitor = pages.as_("vera")
    assert visitor.get("/x").status == 404
    now += 29 * 60
    assert visitor.get("/x", x_live="1").status == 404
    now += 2 * 60
    # A page that refreshes itself is nobody who is there.
    assert visitor.get("/", x_live="1").status == 401
    assert visitor.get("/").status == 303
    visitor = pages.as_("vera")
    for _ in range(24):
        now += 29 * 60
        assert visitor.get("/users/x").status == 404
    now += 29 * 60
    assert visitor.get("/users/x").status == 303


def test_a_session_ends_with_its_account_role_or_password(tmp_path: Path) -> None:
    with project(tmp_path, calm=1) as (path, _), opened(path) as app:
        accounts = app._site.accounts
        accounts.add("kim", "admin", PASSWORD)
        kim, rosa, vera = Visitor(app), Visitor(app), Visitor(app)
        for visitor, name in ((kim, "kim"), (rosa, "rosa"), (vera, "vera")):
            visitor.log_in(name)
        assert kim.get("/users").status == 200
        accounts.change("kim", role="viewer")
        assert kim.get("/users").status == 403
        accounts.change("rosa", password="another " + PASSWORD)
        assert rosa.get("/").status == 303
        accounts.remove("vera")
        assert vera.get("/").status == 303
        cookie = dict(kim.cookies)
        kim.post("/logout", {"token": kim.token()})
        kim.cookies = cookie
        assert kim.get("/").status == 303


def test_a_foreign_name_is_not_answered(pages: Seeded) -> None:
    for host in ("evil.example", "evil.example:8103", "127.0.0.1.evil.example", "", "[::1", "a:b:1",
                 "localhost:8103:1"):  # fmt: skip
        visitor = Visitor(pages.app, host)
        assert visitor.get("/login").status == 421
        assert visitor.get("/static/style.css").status == 421
    for host in ("localhost:8103", "127.0.0.1", "[::1]:8103", "LOCALHOST"):
        assert Visitor(pages.app, host).get("/login").status == 200


def test_the_pages_know_the_address_they_listen_at(tmp_path: Path) -> None:
    tls = "tls: {certificate: c.pem, key: k.pem}"
    (tmp_path / "withstand.yaml").write_text(
        f"ui: {{listen: '[fd00::5]:8103', hosts: ['fd00::6', Ops.Example.org], {tls}}}\n"
    )
    with opened(tmp_path / "withstand.yaml") as app:
        for host in ("[fd00::5]:8103", "[fd00::6]", "ops.example.org:8103", "[::1]"):
            assert Visitor(app, host).get("/login").status == 200
        assert Visitor(app, "[fd00::7]").get("/login").status == 421


@pytest.mark.parametrize("other", ['a={"b":1}', "a[b]=1", "flag", "name=ä", "=", "a=withstand=x"])
def test_the_cookies_of_other_services_on_this_host_log_nobody_out(
    pages: Seeded, other: str
) -> None:
    token = pages.as_("vera").cookies["withstand"]
    for cookies in (f"{other}; withstand={token}", f"withstand={token}; {other}"):
        told = [("host", "localhost"), ("cookie", cookies)]
        assert Visitor(pages.app).get("/nothing", **dict(told)).status == 404


def test_requests_that_are_none_are_refused(pages: Seeded) -> None:
    visitor = pages.as_("adam")
    assert visitor.ask("DELETE", "/", b"", {}).status == 405
    token = visitor.token()
    assert visitor.post("/incidents/3/note", {"token": token, "text": "x" * 70_000}).status == 413
    assert visitor.post("/incidents/3/note", {str(n): "" for n in range(99)}).status == 400
    assert visitor.get("/static/../_app.py").status == 404
    assert visitor.get("/static/%2e%2e/_app.py").status == 404
    head = visitor.ask("HEAD", "/clients", b"", {})
    assert (head.status, head.body) == (200, b"")
    assert visitor.get("/" + "/".join("a" * 50)).status == 404


def test_files_of_the_pages_are_ours_and_are_kept_by_browsers(pages: Seeded) -> None:
    for name in ("style.css", "live.js", "icon.svg"):
        seen = Visitor(pages.app).get(f"/static/{name}")
        assert seen.status == 200
        addresses = re.findall(r"https?://[^\s\"')]+", seen.text)
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}
        known = Visitor(pages.app).get(f"/static/{name}", if_none_match=seen.headers["etag"])
        assert (known.status, known.body) == (304, b"")
    assert len(Visitor(pages.app).get("/static/live.js").text.splitlines()) <= 120


def test_a_picture_is_the_recorded_input(pages: Seeded) -> None:
    visitor = pages.as_("vera")
    seen = visitor.get(f"/samples/{PICTURE}/picture.png")
    assert seen.headers["content-type"] == "image/png"
    shown = np.asarray(Image.open(io.BytesIO(seen.body)).resize((28, 28), Image.Resampling.NEAREST))
    record = pages.app._site.inputs.find(1, fingerprint=PICTURE)[0]
    x = pages.app._site.inputs.of(record).tensors[0].values[0, 0]
    assert np.abs(shown / 255 - x).max() <= 0.5 / 255 + 1e-6
    assert visitor.get(f"/samples/{TABLE}/picture.png").status == 404
    assert visitor.get(f"/samples/{PICTURE}/picture.png?which=other&n=9").status == 404
    assert visitor.get(f"/samples/{'0' * 64}/picture.png").status == 404
    odd = visitor.get(f"/samples/{PICTURE}/picture.png?row=-1&tensor=x&n=%F0")
    assert odd.body == seen.body
    assert visitor.get(f"/samples/{PICTURE}/picture.png?row=5").status == 404


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (28, 28, 1), (3, 28, 28), (28, 28, 3)])
def test_numbers_are_seen_on_their_scale(shape: tuple[int, ...]) -> None:
    x = np.broadcast_to(glyph(3, 0).reshape((28, 28) if len(shape) == 2 else
                        (1, 28, 28) if shape[0] < 4 else (28, 28, 1)), shape)  # fmt: skip
    whole = np.round(255 * x).astype(np.uint8)
    x = whole / 255
    assert np.asarray(Image.open(io.BytesIO(picture(x)))).shape[:2] == (224, 224)
    assert picture(whole) == picture(x)
    assert picture(x / 2) != picture(x)
    # Beyond its scale it is seen on its own range.
    assert (x.min(), x.max()) == (0, 1)
    assert picture(7 * x - 3) == picture(x)
    assert picture(np.full(shape, np.nan))


def test_a_difference_is_grey_where_there_is_none_and_full_where_it_is_largest() -> None:
    x = glyph(3, 0)
    other = x.copy()
    other[0, 0] += 0.01
    other[27, 27] -= 0.005
    body, times = difference(x, other)
    shown = np.asarray(Image.open(io.BytesIO(body)).resize((28, 28), Image.Resampling.NEAREST))
    assert times == pytest.approx(50, rel=1e-4)
    assert shown[0, 0] == 0
    assert shown[27, 27] == pytest.approx(255 * 0.75, abs=1)
    assert set(np.unique(shown[1:27])) == {128}


def test_a_sample_is_shown_beside_what_it_is_nearest_to(pages: Seeded) -> None:
    visitor = pages.as_("vera")
    text = visitor.get(f"/samples/{PICTURE}").text
    first, *_ = re.findall(r"<td>the client.{1,6}s earlier query</td><td>record (\d+)", text)
    site = pages.app._site
    chosen = site.inputs.find(1, fingerprint=PICTURE)[0]
    mine = site.inputs.of(chosen).tensors[0].values[0]
    row = next(
        r for r in site.inputs.find(500, kind="decision", key=ATTACKER) if str(r.seq) == first
    )
    near = site.inputs.of(row).tensors[0].values[0]
    gaps = [
        float(np.linalg.norm(site.inputs.of(r).tensors[0].values[0] - mine))
        for r in site.inputs.find(500, kind="decision", key=ATTACKER)
        if r.content["model"] == "digits" and r.wall < chosen.wall
    ]
    assert np.linalg.norm(near - mine) == pytest.approx(min(gaps))
    assert "made by Square" in text
    assert "label 3, answer 8" in text
    table = visitor.get(f"/samples/{TABLE}").text
    amount = re.search(r"<td>amount</td>.*?</tr>", table, re.S)
    assert amount is not None
    assert '<td class="num">1.5</td>' in amount[0]
    words = visitor.get(f"/samples/{TEXT}").text
    for told in ("U+200B ZERO WIDTH SPACE", "U+0430 CYRILLIC SMALL LETTER A", "U+20AC EURO SIGN"):
        assert told in words


def test_an_input_that_cannot_be_opened_is_told_of(tmp_path: Path) -> None:
    with project(tmp_path, calm=1) as (path, _):
        secrets = Secrets(tmp_path / "withstand-secrets", {})
        with opened(path) as app:
            record = app._site.inputs.find(1, fingerprint=PICTURE)[0]
            vault = Vault(tmp_path / "evidence" / "vault", secrets.get("master"))
            vault.erase(record.content["input"])
            vault.close()
            visitor = Visitor(app)
            visitor.log_in("vera")
            assert "it was erased" in visitor.get(f"/samples/{PICTURE}").text
            assert visitor.get(f"/samples/{PICTURE}/picture.png").status == 404
        (tmp_path / "withstand-secrets" / "master").unlink()
        with opened(path) as app:
            visitor = Visitor(app)
            visitor.log_in("vera")
            text = visitor.get(f"/samples/{TABLE}").text
            assert "master key is not in" in text
            assert visitor.get("/review").status == 200
        # Looking must not make a key that opens nothing.
        assert not (tmp_path / "withstand-secrets" / "master").exists()


def test_evidence_that_was_changed_is_told_on_top(tmp_path: Path) -> None:
    with project(tmp_path, calm=5) as (path, _):
        log = tmp_path / "evidence" / "00000001.log"
        log.write_bytes(log.read_bytes().replace(b'"decision":"flag"', b'"decision":"pass"', 1))
        with opened(path) as app:
            visitor = Visitor(app)
            visitor.log_in("rosa")
            assert "The chain breaks" in visitor.get("/evidence").text
            visitor.post("/evidence/check", {"token": visitor.token()})
            assert "1 faults" in visitor.get("/evidence").text


def test_an_audit_log_that_was_changed_is_told_on_top(tmp_path: Path) -> None:
    with project(tmp_path, calm=1) as (path, _), opened(path) as app:
        visitor = Visitor(app)
        visitor.log_in("vera")
        assert "in an unbroken chain" in visitor.get("/audit").text
        with app._site.store.writing() as file:
            file.execute("UPDATE audit SET told = replace(told, 'rosa', 'vera') WHERE seq = 1")
        assert "does not follow" in visitor.get("/audit").text


def test_a_review_takes_an_input_off_the_queue(pages: Seeded) -> None:
    visitor, fingerprint = pages.as_("rosa"), f"f{20:x}".ljust(64, "0")
    link = f'<a class="thumb" href="/samples/{fingerprint}?'
    assert link in visitor.get("/review").text
    form = {"fingerprint": fingerprint, "verdict": "release", "why": "ours", "label": "3"}
    visitor.post("/review", {**form, "token": visitor.token()})
    assert link not in visitor.get("/review").text
    found = pages.app._site.reviews.of(fingerprint)
    assert found is not None
    assert (found.verdict, found.who, found.why) == ("benign", "rosa", "ours")


def test_who_floods_buries_no_input_that_waits_and_no_run(
    pages: Seeded, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = pages.as_("vera")
    asked = "/review", f"/redteam/{RUN}"
    rows = r"class=\"card item\"|<td class=\"num\">\d+</td><td><time"
    whole = [len(re.findall(rows, visitor.get(path).text)) for path in asked]
    assert min(whole) > 10
    monkeypatch.setattr(_rows, "_LOOKS", (2, 8, 4000))
    assert [len(re.findall(rows, visitor.get(path).text)) for path in asked] == whole
    monkeypatch.setattr(_rows, "_LOOKS", (1,))
    pages.app._site.reviews.put(f"f{38:x}".ljust(64, "0"), "benign", "rosa", seq=1, why="")
    texts = [visitor.get(path).text for path in asked]
    assert "Nothing waits among the newest flagged requests; there are older ones" in texts[0]
    assert "1 or more requests" in texts[1]


def test_a_log_that_cannot_be_read_is_told(pages: Seeded, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    visitor = pages.as_("rosa")
    monkeypatch.setattr(_inputs, "verify", fails)
    visitor.post("/evidence/check", {"token": visitor.token()})
    assert "cannot be read: Permission denied" in visitor.get("/evidence").text


def test_a_score_without_end_is_drawn_on_top_and_not_as_calm() -> None:
    def scored(score: float) -> _rows.Row:
        content = {"decision": "flag", "signals": [["queries", score, 25.0, True, False]]}
        return _rows.row(
            Record(
                seq=1,
                wall=1e9,
                mono=1.0,
                boot="",
                prev="",
                kind="decision",
                content=content,
                hash="",
            )
        )

    chart = _story([scored(math.inf), scored(math.nan), scored(25.0)])
    endless, unknown, plain_one = [y for _, y, *_ in reversed(chart.dots)]
    assert endless == chart.up(1) < plain_one < unknown == chart.up(0)


def test_without_data_or_inspection_nothing_is_good() -> None:
    assert _verdict([], [], [], False)[0] == "none"
    slo = SimpleNamespace(left=0.5, firing=[], status=SimpleNamespace(n=9))
    assert _verdict([], [], [slo], False)[0] == "good"
    assert _verdict([], [], [slo], True)[:2] == ("warn", "Not inspected")


def test_of_a_corpus_the_newest_are_held_for_which_there_is_room(
    pages: Seeded, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pages.app._site.corpora.folder
    every = Corpora(folder)._all()
    assert len(every) > 2
    monkeypatch.setattr(_past, "_BYTES", 2 * every[0][0].nbytes)
    monkeypatch.setattr(_past, "_TOGETHER", 1)
    held = Corpora(folder)._all()
    assert [entry.digest for _, entry in held] == [entry.digest for _, entry in every[:2]]
    assert held[0][1].digest == list(Corpus(folder).entries())[-1].digest


def test_text_that_hides_or_reorders_is_shown_as_code_points() -> None:
    assert (
        plain("a\u202eb\x00c\u200b\n\td")
        == "a\u301aU+202E\u301bb\u301aU+0000\u301bc\u301aU+200B\u301b\n\td"
    )
    assert plain("Grüße, 世界 <b>") == "Grüße, 世界 <b>"
