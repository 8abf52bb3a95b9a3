"""Can the records be believed, and who did what."""

from __future__ import annotations

from ..._errors import OperationError
from .._site import Site
from .._web import Ask, Done, Page, Route
from ._rows import attempt, decisions

_SHOWN = 50
_ACTS = 300


def evidence(site: Site, ask: Ask) -> Page:
    """Whether the chain holds, the newest records, and what vouches for them elsewhere."""
    told = site.config.guard.evidence if site.config.guard else None
    broken, unreadable = attempt(lambda: site.inputs.broken if site.inputs else "", "")
    wanted = {name: ask.query[name] for name in ("tenant", "decision") if ask.query.get(name)}
    rows, why = attempt(lambda: decisions(site, _SHOWN, **wanted), [])
    newest, _ = attempt(lambda: site.inputs.find(200) if site.inputs else [], [])
    values = {
        "here": "evidence",
        "settings": told,
        "folder": site.inputs.folder if site.inputs else "",
        "broken": broken,
        "unreadable": unreadable or why,
        "rows": rows,
        "wanted": wanted,
        "others": [one for one in newest if one.kind != "decision"][:30],
        "head": newest[0] if newest else None,
        "check": site.inputs.checked if site.inputs else None,
    }
    return Page("evidence.html.j2", "Evidence", values)


def check(site: Site, ask: Ask) -> Done:
    """Read every byte of the log, beside; the page tells what was found."""
    if site.inputs is None:
        raise OperationError(f"{site.path} keeps no evidence; add guard.evidence")
    site.inputs.check()
    return Done("the whole log is being read and checked", "/evidence")


def audit(site: Site, ask: Ask) -> Page:
    """Who did what, and whether somebody has changed that."""
    count, broken = attempt(site.audit.verify, 0)
    wanted = ask.query.get("who", "")
    acts = [one for one in site.audit.last(5 * _ACTS) if wanted in ("", one.who)][:_ACTS]
    values = {"here": "audit", "acts": acts, "count": count, "broken": broken, "who": wanted}
    return Page("audit.html.j2", "Audit log", values)


ROUTES = (
    Route(path="/evidence", answer=evidence),
    Route(path="/evidence/check", answer=check, role="responder", action="check evidence"),
    Route(path="/audit", answer=audit),
)
