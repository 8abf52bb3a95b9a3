"""Every page in a real browser: with scripts and without, and nothing from elsewhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import CHROMIUM, Browser, browsing
from guarding import served
from pages import ATTACKER, CAMPAIGN, PASSWORD, RUN, XSS, opened, project

from withstand.ui.pages import PAGES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed"),
    pytest.mark.timeout(300),
]
PICTURE = f"f{30:x}".ljust(64, "0")
PLACES = {
    "{key}": ATTACKER, "{fingerprint}": PICTURE, "/campaigns/{id}": f"/campaigns/{CAMPAIGN}",
    "/redteam/{id}": f"/redteam/{RUN}", "{id}": "3",
}  # fmt: skip


def _addresses() -> list[str]:
    found = []
    for route in PAGES:
        path = route.path
        if route.action or path.endswith((".png", ".md")):
            continue
        for name, value in PLACES.items():
            path = path.replace(name, value)
        found.append(path)
    return [*found, *(f"/samples/f{number:x}".ljust(73, "0") for number in (37, 38)), "/nothing"]


Site = tuple[str, Any, Any]


@pytest.fixture(scope="module", params=["plain", "evil"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    with (
        project(folder, evil=request.param == "evil") as (path, operated),
        opened(path) as app,
        served(app) as port,
    ):
        yield f"http://127.0.0.1:{port}", app, operated


def in_browser(work: Callable[[Browser], Awaitable[None]]) -> None:
    async def main() -> None:
        async with browsing() as browser:
            await work(browser)

    asyncio.run(main())


def test_every_page_shows_its_tables_without_scripts_and_asks_nobody_else(site: Site) -> None:
    address, _, _ = site

    async def work(browser: Browser) -> None:
        await browser.log_in(address, "adam", PASSWORD)
        await browser.call("Emulation.setScriptExecutionDisabled", value=True)
        for path in _addresses():
            before = len(browser.requests)
            await browser.go(address + path)
            assert len(browser.requests) > before
            text = await browser.evaluate("document.body.innerText")
            assert await browser.evaluate("document.querySelector('h1').innerText")
            if path not in ("/nothing", "/incidents/3/postmortem"):
                rows = await browser.evaluate(
                    "document.querySelectorAll('table tbody tr, .timeline li, .item').length"
                )
                assert rows, path
            assert "something went wrong" not in text
            # A page that is wider than its window cannot be read on a small one.
            await browser.call(
                "Emulation.setDeviceMetricsOverride", width=400, height=800, mobile=False,
                deviceScaleFactor=1,
            )  # fmt: skip
            wide = await browser.evaluate("document.documentElement.scrollWidth")
            assert wide <= 400, (path, wide)
            await browser.call("Emulation.clearDeviceMetricsOverride")
        await _quiet(browser, address)

    in_browser(work)


async def _quiet(browser: Browser, address: str) -> None:
    """Nothing was asked elsewhere, nothing ran, and nothing had to be blocked."""
    elsewhere = [one for one in browser.requests if not one.startswith(address + "/")]
    assert elsewhere == [one for one in elsewhere if one in ("about:blank",)]
    assert browser.dialogs == []
    faults = [one for one in browser.complaints if "404" not in one and "403" not in one]
    assert faults == []


def test_what_comes_from_outside_runs_nowhere(site: Site) -> None:
    address, _, _ = site

    async def work(browser: Browser) -> None:
        await browser.call("Network.setUserAgentOverride", userAgent=f"x {XSS[:-1]}")
        await browser.log_in(address, "adam", PASSWORD)
        hostile = [
            "/clients/%3Cscript%3Ealert(3)%3C%2Fscript%3E",
            "/evidence?tenant=%22%3E%3Cscript%3Ealert(4)%3C/script%3E",
            "/incidents/3?runbook=%3Cimg%20src=x%20onerror=alert(5)%3E",
        ]
        for path in _addresses() + hostile:
            text = await browser.go(address + path)
            assert await browser.evaluate("document.querySelectorAll('main script').length") == 0
            assert await browser.evaluate("document.querySelectorAll('[src=x]').length") == 0
            assert "\u202e" not in text
        await _quiet(browser, address)

    in_browser(work)


def test_the_policy_holds_where_escaping_would_not(site: Site) -> None:
    address, _, _ = site

    async def work(browser: Browser) -> None:
        await browser.log_in(address, "vera", PASSWORD)
        for made in (
            "const s = document.createElement('script'); s.textContent = 'window.hit = 1'",
            "const s = document.createElement('img'); s.src = 'x'; "
            "s.setAttribute('onerror', 'window.hit = 1')",
            "const s = document.createElement('img'); s.src = 'http://127.0.0.1:9/leak'",
            "const s = document.createElement('iframe'); s.src = '/clients'",
        ):
            await browser.evaluate(f"(() => {{ {made}; document.body.append(s); }})()")
        await asyncio.sleep(0.5)
        assert await browser.evaluate("window.hit") is None
        assert sum("Content Security Policy" in one for one in browser.complaints) >= 3
        leaked = await browser.evaluate(
            "fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'blocked')"
        )
        assert leaked == "blocked"

    in_browser(work)


def test_a_link_on_another_site_finds_who_is_logged_in(site: Site) -> None:
    address, _, _ = site

    async def work(browser: Browser) -> None:
        await browser.log_in(address, "vera", PASSWORD)
        await browser.go(address.replace("127.0.0.1", "localhost") + "/login")
        await browser.evaluate(f"location.href = '{address}/clients?a=b'")
        until = asyncio.get_running_loop().time() + 20
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.2)
            if await browser.evaluate("document.title") == "Clients & campaigns · withstand":
                break
        assert await browser.evaluate("location.href") == f"{address}/clients?a=b"

    in_browser(work)


def test_a_viewer_sees_no_button_and_can_force_nothing(site: Site) -> None:
    address, app, operated = site

    async def work(browser: Browser) -> None:
        text = await browser.log_in(address, "vera", PASSWORD)
        assert "Overview" in text
        told = len(operated.told)
        for path in _addresses():
            await browser.go(address + path)
            forms = await browser.evaluate(
                "[...document.querySelectorAll('form[method=post]')].map(f => f.action).join()"
            )
            assert forms == f"{address}/logout", path
        for route in PAGES:
            if route.action and route.path != "/logout":
                path = route.path.replace("{id}", "3")
                status = await browser.evaluate(
                    f"""fetch('{path}', {{method: 'POST', headers:
                    {{'content-type': 'application/x-www-form-urlencoded'}}, body: new
                    URLSearchParams({{token: document.querySelector('[name=token]').value,
                    why: 'a try'}})}}).then(a => a.status)"""
                )
                assert status == 403, path
        assert len(operated.told) == told
        noted = [act for act in app._site.audit.last(200) if act.who == "vera"]
        refused = [act for act in noted if act.detail.get("result") == "refused: viewer"]
        acting = [route for route in PAGES if route.action and route.path != "/logout"]
        assert {act.action for act in refused} >= {route.action for route in acting}

    in_browser(work)


def test_a_responder_acts_by_the_forms_and_is_asked_before(site: Site) -> None:
    address, app, operated = site

    async def work(browser: Browser) -> None:
        await browser.log_in(address, "rosa", PASSWORD)
        await browser.go(f"{address}/clients/{ATTACKER}")
        fill = (
            "const f = document.querySelector('form[action=\"/mitigate\"]');"
            "f.querySelector('[name=action]').value = 'coarsen';"
            "f.querySelector('[name=why]').value = 'too curious';"
        )
        told = len(operated.told)
        await browser.evaluate(f"(() => {{ {fill} f.requestSubmit(); }})()")
        await asyncio.sleep(0.5)
        # The browser's dialog was dismissed, so that nothing was sent.
        assert browser.dialogs == ["Order this mitigation?"]
        assert len(operated.told) == told
        text = await browser.submit(f"(() => {{ {fill} f.submit(); }})()")
        assert "coarsen is ordered for" in text
        assert operated.told[-1][1]["why"] == "too curious"
        await browser.go(f"{address}/review")
        waiting = await browser.evaluate("document.querySelectorAll('.item').length")
        left = await browser.evaluate("document.querySelector('.tile .value').innerText")
        assert waiting
        await browser.submit("document.querySelector('.item button[value=confirm]').click()")
        now = await browser.evaluate("document.querySelector('.tile .value').innerText")
        assert int(now) == int(left) - 1
        verdicts = [one.verdict for one in app._site.reviews.all()]
        assert verdicts.count("adversarial") >= 2
        assert "Kill switch" in await browser.go(f"{address}/oncall")
        assert not re.search(r'action="/kill"', await browser.html())

    in_browser(work)


def test_marked_parts_refresh_themselves_and_spare_who_is_typing(site: Site) -> None:
    address, app, _ = site

    async def work(browser: Browser) -> None:
        await browser.log_in(address, "rosa", PASSWORD)
        await browser.go(f"{address}/incidents/3")
        await browser.evaluate("document.querySelector('[name=text]').value = 'half a thought'")
        lines = len(app._site.incidents.timeline(3))
        incident = app._site.incidents.get(3)
        entry = app._site.incidents.timeline(3)[0]
        app._site.incidents.note(incident.id, entry)
        shown = await browser.evaluate("document.querySelectorAll('.timeline li').length")
        assert shown == lines
        await browser.evaluate("refresh()")
        shown = await browser.evaluate("document.querySelectorAll('.timeline li').length")
        assert shown == lines + 1
        typed = await browser.evaluate("document.querySelector('[name=text]').value")
        assert typed == "half a thought"

    in_browser(work)


def test_everything_can_be_reached_by_keys_and_has_a_name(site: Site) -> None:
    address, _, _ = site
    nameless = """[...document.querySelectorAll('input:not([type=hidden]), select, textarea')]
        .filter(one => !one.labels.length && !one.getAttribute('aria-label')).length"""
    pictures = """[...document.querySelectorAll('img')].filter(one => one.alt === null ||
        !one.hasAttribute('alt')).length + [...document.querySelectorAll('svg')]
        .filter(one => !one.getAttribute('aria-label')).length"""

    async def work(browser: Browser) -> None:
        await browser.log_in(address, "adam", PASSWORD)
        for path in _addresses():
            await browser.go(address + path)
            assert await browser.evaluate(nameless) == 0, path
            assert await browser.evaluate(pictures) == 0, path
            assert await browser.evaluate("document.querySelectorAll('h1').length") == 1
            for scheme in ("light", "dark"):
                told = [{"name": "prefers-color-scheme", "value": scheme},
                        {"name": "prefers-reduced-motion", "value": "reduce"}]  # fmt: skip
                await browser.call("Emulation.setEmulatedMedia", features=told)
                low = await browser.evaluate(_CONTRAST)
                assert low == [], (path, scheme, low)

    in_browser(work)


# Text against what is behind it (WCAG 2.2, 1.4.3: at least 4.5 to 1).
_CONTRAST = """(() => {
  const light = (c) => {
    const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map((v) => {
      v /= 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const c = getComputedStyle(one).backgroundColor;
      if (c.startsWith("rgb(")) return c;
    }
    return "rgb(255, 255, 255)";
  };
  const low = new Set();
  for (const one of document.querySelectorAll("main *, header *")) {
    const own = [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !one.checkVisibility() || one.closest("svg, time + *, option")) continue;
    const ink = getComputedStyle(one).color;
    if (!ink.startsWith("rgb(")) continue;
    const [a, b] = [light(ink), light(ground(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.add(one.className + " " + one.tagName + " " + ink);
  }
  return [...low];
})()"""


_ID = re.compile(r"[0-9a-f]{20,}|\d+")


def test_addresses_of_pages_stay_on_the_site(site: Site) -> None:
    address, _, _ = site

    async def work(browser: Browser) -> None:
        await browser.log_in(address, "vera", PASSWORD)
        seen, waiting = set(), ["/"]
        while waiting:
            path = waiting.pop()
            seen.add(path)
            await browser.go(address + path)
            assert "something went wrong" not in await browser.html()
            links = await browser.evaluate(
                "[...document.querySelectorAll('main a')].map(a => a.href).join(' ')"
            )
            for link in links.split():
                parts = urlsplit(link)
                assert f"{parts.scheme}://{parts.netloc}" == address, (path, link)
                known = {re.sub(_ID, "", one) for one in seen | {*waiting}}
                if re.sub(_ID, "", parts.path) not in known and not parts.path.endswith(".md"):
                    waiting.append(parts.path)
        assert len(seen) > 12

    in_browser(work)
