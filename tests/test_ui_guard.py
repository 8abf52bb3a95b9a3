"""The pages act on a guard that really serves, and show what it decided."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import yaml
from guarding import Model
from pages import CHEAP, PASSWORD, Visitor, opened
from serving import Running, model_server, serving

from withstand.evidence.log import Break, read
from withstand.ui.access import Accounts

WHY = {"why": "a try"}


def test_what_is_ordered_on_the_pages_is_done_by_the_guard(tmp_path: Path) -> None:
    path = tmp_path / "withstand-pages.yaml"
    for name in ("rosa", "adam"):
        accounts = Accounts(tmp_path / "withstand-accounts.json", cost=CHEAP)
        accounts.add(name, {"rosa": "responder"}.get(name, "admin"), PASSWORD)

    async def work(guard: Running) -> None:
        answers = [(await guard.infer()).status for _ in range(3)]
        assert answers == [200] * 3
        async with model_server(Model()) as port:
            told = {**guard.config, "canary": {"upstream": f"http://127.0.0.1:{port}"}}
            guard.rewrite(canary=told["canary"])
            assert (await guard.change("/reload")).status == 200
            path.write_text(
                yaml.safe_dump({"guard": {**told, "admin": f"127.0.0.1:{guard.admin_port}"}})
            )
            await asyncio.to_thread(look)
            guard.service.guard.journal.flush()
            assert (await guard.infer()).status == 403
            await asyncio.to_thread(mend)
            assert (await guard.infer()).status == 200

    def by(name: str, form: dict[str, str], to: str, shown: str) -> str:
        with opened(path) as app:
            visitor = Visitor(app)
            visitor.log_in(name)
            visitor.post(to, {**form, **WHY, "token": visitor.token()})
            return visitor.get(shown).text

    def look() -> None:
        text = by("adam", {"model": "*"}, "/canary/start", "/models")
        assert "Canary of all models" in text
        assert re.search(r"<strong>5(\.0)? %</strong> of traffic", text)
        assert "Compared so far" in text
        text = by("rosa", {"model": "*"}, "/canary/rollback", "/models")
        assert "rolled_back" in text
        text = by("adam", {}, "/kill", "/oncall")
        assert "inspection off" in text
        text = by("adam", {}, "/unkill", "/oncall")
        assert "inspection on" in text
        block = {"action": "block", "all": "yes", "seconds": "900"}
        text = by("rosa", block, "/mitigate", "/oncall")
        assert "block is ordered for all clients" in text
        throttle = {"action": "throttle", "all": "yes", "seconds": "900"}
        assert "no rate to throttle to" in by("rosa", throttle, "/mitigate", "/oncall")

    def mend() -> None:
        with opened(path) as app:
            (held,) = app._site.guard.mitigations()
        text = by("rosa", {"id": held["id"]}, "/lift", "/evidence")
        assert "the mitigation is lifted" in text
        assert text.count('<td class="num">') >= 4

    evidence: dict[str, Any] = {"folder": "evidence", "inputs": "all"}
    serving(tmp_path, work, evidence=evidence)
    told = [
        place.record.content
        for place in read(tmp_path / "evidence")
        if not isinstance(place, Break) and place.record.kind in ("switch", "mitigation", "lifted")
    ]
    assert [one["who"] for one in told] == ["adam", "adam", "rosa", "rosa"]
    assert {one["why"] for one in told} == {"a try"}
