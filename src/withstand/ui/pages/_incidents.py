"""What somebody works on: its timeline, its runbooks, what is left to decide."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..._errors import OperationError
from ...respond import Entry, Incident, Job, dry_run, postmortem, resolve, run_runbook, runbooks
from ...respond import approve as agree
from ...respond import note as noted
from .._site import Site
from .._web import Ask, Content, Done, MissingError, Page, Route, at
from ._rows import attempt

_SHOWN = 200


def incidents(site: Site, ask: Ask) -> Page:
    """All incidents, those that are open first."""
    found = site.incidents.all()
    order = {"open": 0, "mitigated": 1, "resolved": 2}
    waiting = {
        one.id: sum(step.state == "approval" for step in site.incidents.steps(one.id))
        for one in found
        if one.state != "resolved"
    }
    values = {
        "here": "incidents",
        "incidents": sorted(found, key=lambda one: (order[one.state], -one.id))[:_SHOWN],
        "waiting": waiting,
        "now": time.time(),
    }
    return Page("incidents.html.j2", "Incidents", values)


def incident(site: Site, ask: Ask) -> Page:
    """One incident, with what a runbook would do where one is chosen."""
    found = _found(site, ask)
    known, untold = attempt(lambda: runbooks(site.desk), {})
    chosen = ask.query.get("runbook", "")
    plan: list[str] = []
    if chosen in known:
        plan, untold = attempt(lambda: dry_run(site.desk, found.id, chosen), [])
    values = {
        "here": "incidents",
        "incident": found,
        "timeline": site.incidents.timeline(found.id),
        "steps": site.incidents.steps(found.id),
        "alerts": [one for one in site.alerts.all() if one.fingerprint in found.alerts],
        "campaign": site.alerts.campaign(found.campaign) if found.campaign else None,
        "runbooks": known,
        "chosen": chosen if chosen in known else "",
        "plan": plan,
        "untold": untold,
        "replay": _replayed(site, found.id),
        "now": time.time(),
    }
    return Page("incident.html.j2", f"Incident {found.id}", values)


def document(site: Site, ask: Ask) -> Page:
    """The postmortem as it stands."""
    found = _found(site, ask)
    values = {"here": "incidents", "incident": found, "text": postmortem(site.desk, found.id)}
    return Page("postmortem.html.j2", f"Postmortem of incident {found.id}", values)


def download(site: Site, ask: Ask) -> Content:
    """The postmortem as a file."""
    identity = _found(site, ask).id
    text = postmortem(site.desk, identity)
    return Content("text/markdown; charset=utf-8", text.encode(), f"postmortem-{identity}.md")


def lead(site: Site, ask: Ask) -> Done:
    """Take an incident over."""
    name = ask.account.name
    found = site.incidents.change(_number(ask), lead=name)
    entry = Entry(wall=time.time(), who=name, kind="lead", text=f"{name} leads")
    site.incidents.note(found.id, entry)
    return _done(ask, f"you lead incident {found.id}")


def note(site: Site, ask: Ask) -> Done:
    """Add a line to the timeline."""
    text = ask.form.get("text", "").strip()
    if not text:
        raise OperationError("the note is empty; write one")
    noted(site.desk, _found(site, ask).id, text[:4000], who=ask.account.name, role=ask.account.role)
    return _done(ask, "the note is on the timeline")


def run(site: Site, ask: Ask) -> Done:
    """Begin a runbook, or go on with it, as far as it goes."""
    name = ask.form.get("runbook", "")
    steps = run_runbook(
        site.desk, _number(ask), name, who=ask.account.name, role=ask.account.role,
        again=ask.form.get("again") == "yes",
    )  # fmt: skip
    mine = [step for step in steps if step.runbook == name]
    ended = sum(step.state in ("done", "failed", "skipped") for step in mine)
    return _done(ask, f"{name}: {ended} of {len(mine)} steps are over")


def approve(site: Site, ask: Ask) -> Done:
    """Agree to a step that asks for it, or decline it."""
    given = ask.form.get("step", "")
    if not given.isascii() or not given.isdecimal():
        raise OperationError(f"step is {given[:32]!r}; give its number")
    agreed = ask.form.get("agreed") == "yes"
    step = agree(
        site.desk, _number(ask), int(given), who=ask.account.name, role=ask.account.role,
        agreed=agreed,
    )  # fmt: skip
    said = "agreed to" if agreed else "declined"
    return _done(ask, f"step {step.number} is {said}, and is {step.state}")


def close(site: Site, ask: Ask) -> Done:
    """Close an incident."""
    why = ask.form.get("why", "").strip()
    if not why:
        raise OperationError("a reason is missing; write one, since it is kept for later")
    resolve(site.desk, _number(ask), who=ask.account.name, role=ask.account.role, why=why[:1000])
    return _done(ask, "the incident is resolved")


def again(site: Site, ask: Ask) -> Done:
    """Show the recorded inputs to the models of today, in a process of its own."""
    identity = _found(site, ask).id
    if _job(site, identity).progress.state == "running":
        raise OperationError(f"incident {identity} is being replayed already; wait for it")
    place = site.desk.folder(identity) / f"replay-{time.time_ns()}"
    place.mkdir(mode=0o700)
    config = str(site.path.absolute())
    Job(place).start([["incident", "replay", str(identity), "--config", config]], Path())
    return _done(ask, "the inputs are shown to the models again; reload for what came of it")


def _replayed(site: Site, identity: int) -> dict[str, Any]:
    """The newest replay: how far it has got, and its figures where there are any."""
    found: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        found = json.loads((site.desk.folder(identity) / "replay.json").read_text())
    progress = _job(site, identity).progress
    log = _job(site, identity).log() if progress.state == "ended" and any(progress.codes) else ""
    return {"found": found, "state": progress.state, "log": log}


def _job(site: Site, identity: int) -> Job:
    folder = site.desk.folder(identity)
    return Job(max(folder.glob("replay-*/"), default=folder / "replay-0"))


def _done(ask: Ask, text: str) -> Done:
    return Done(text, at("incidents", ask.path["id"]))


def _found(site: Site, ask: Ask) -> Incident:
    try:
        return site.incidents.get(_number(ask))
    except OperationError as error:
        raise MissingError(str(error)) from None


def _number(ask: Ask) -> int:
    given = ask.path["id"]
    if not given.isascii() or not given.isdecimal() or len(given) > 9:
        raise MissingError(f"there is no incident {given[:32]!r}")
    return int(given)


def _acting(verb: str, answer: Any, action: str) -> Route:
    return Route(
        path=f"/incidents/{{id}}/{verb}", answer=answer, role="responder", action=action,
        about="incident:{id}",
    )  # fmt: skip


ROUTES = (
    Route(path="/incidents", answer=incidents),
    Route(path="/incidents/{id}", answer=incident),
    Route(path="/incidents/{id}/postmortem", answer=document),
    Route(path="/incidents/{id}/postmortem.md", answer=download),
    _acting("lead", lead, "take incident"),
    _acting("note", note, "note on incident"),
    _acting("run", run, "run runbook"),
    _acting("approve", approve, "approve step"),
    _acting("resolve", close, "resolve incident"),
    _acting("replay", again, "replay incident"),
)
