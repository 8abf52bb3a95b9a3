"""What holds now, and what to do at once."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from ...guard import ACTIONS
from ...monitor import Alert
from .._charts import since_hours, traffic
from .._site import Site
from .._web import Ask, Page, Route
from ._rows import attempt, decisions

_MOST, _HOURS = 2000, 6.0
SPANS = ((900, "15 minutes"), (3600, "1 hour"), (14_400, "4 hours"), (86_400, "1 day"))


def oncall(site: Site, ask: Ask) -> Page:
    """Alerts that fire, who is suspicious, which mitigations hold, and the switch."""
    since, until = since_hours(_HOURS)
    rows, broken = attempt(lambda: decisions(site, _MOST, since=since), [])
    flags = Counter(one.key for one in rows if one.decision == "flag" and not one.experiment)
    values = {
        "here": "oncall",
        "groups": grouped(site),
        "suppressed": [one for one in site.alerts.all(open=True) if one.suppressed],
        "incidents": site.incidents.unresolved(),
        "chart": traffic([(one.wall, one.decision) for one in rows], since, until),
        "counts": Counter(one.decision for one in rows),
        "asked": len(rows),
        "capped": len(rows) == _MOST,
        "hours": int(_HOURS),
        "broken": broken,
        "suspects": [_suspect(rows, key, n) for key, n in flags.most_common(8)],
        "now": time.time(),
        **ordered(site),
    }
    return Page("oncall.html.j2", "On call", values)


def ordered(site: Site) -> dict[str, Any]:
    """How the guard is, and the mitigations that hold."""
    status, silent = attempt(lambda: site.guard.status(), {})
    held, _ = attempt(lambda: site.guard.mitigations(), []) if not silent else ([], "")
    models = sorted(site.config.guard.models) if site.config.guard else []
    return {
        "guard": status, "silent": silent, "mitigations": held, "actions": ACTIONS,
        "spans": SPANS, "models": models,
    }  # fmt: skip


def grouped(site: Site) -> list[tuple[str, list[Alert]]]:
    """The alerts that fire and that no experiment explains, by campaign, pages first."""
    found: dict[str, list[Alert]] = {}
    for alert in site.alerts.all(open=True):
        if not alert.suppressed:
            found.setdefault(alert.campaign, []).append(alert)
    return sorted(
        found.items(), key=lambda one: (all(a.severity != "page" for a in one[1]), one[1][0].starts)
    )


def _suspect(rows: list[Any], key: str, flagged: int) -> dict[str, Any]:
    mine = [one for one in rows if one.key == key]
    sensors = Counter(name for one in mine for name in one.flags)
    return {
        "key": key, "tenant": mine[0].tenant, "flagged": flagged, "requests": len(mine),
        "sensors": [name for name, _ in sensors.most_common(3)], "last": mine[0].wall,
        "models": sorted({one.model for one in mine}),
    }  # fmt: skip


ROUTES = (Route(path="/oncall", answer=oncall),)
