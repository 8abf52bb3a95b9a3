"""How well the models withstand, for who decides and has a minute."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ...monitor import Figure, Observation, figures
from ...stats import Interval, wilson
from .._charts import bars, trend
from .._site import Site
from .._web import Ask, Page, Route
from ._budgets import budgets
from ._oncall import grouped
from ._rows import attempt

_DAY = 86_400.0
_DAYS = 30.0


def overview(site: Site, ask: Ask) -> Page:
    """The verdict in words, the budgets, the trend of the fooling rate, incidents, times."""
    now = time.time()
    incidents = site.incidents.all()
    pages = [one for _, group in grouped(site) for one in group if one.severity == "page"]
    slos, told = attempt(lambda: budgets(site), [])
    canary, _ = attempt(lambda: site.guard.canary().get("models", {}), {})
    status, silent = attempt(lambda: site.guard.status(), {})
    probes = _since(site, "M1", now)
    values = {
        "here": "overview",
        "verdict": _verdict(incidents, pages, slos, status.get("killed") is True),
        "pages": pages,
        "open": [one for one in incidents if one.state != "resolved"],
        "slos": slos,
        "slos_told": told,
        "models": _models(probes),
        "found": _figures(site, now),
        "months": bars(_months(incidents, now), "incidents of each month"),
        "recent": incidents[:5],
        "runs": site.runs.all(last=5),
        "canary": canary,
        "guard": status,
        "silent": silent,
        "days": int(_DAYS),
        "now": now,
    }
    return Page("overview.html.j2", "Overview", values)


def _since(site: Site, sli: str, now: float) -> list[Observation]:
    return site.observations.of(sli, now - _DAYS * _DAY)


def _share(seen: Sequence[Observation]) -> Interval:
    known = [one for one in seen if one.bad is not None]
    return wilson(sum(bool(one.bad) for one in known), len(known))


def _figures(site: Site, now: float) -> dict[str, Figure]:
    """The indicators by id; of those that are told of several models, the first."""
    found: dict[str, Figure] = {}
    for one in figures(site.store, now, days=_DAYS):
        found.setdefault(one.sli.id, one)
    return found


def _models(probes: Sequence[Observation]) -> list[dict[str, Any]]:
    """Of each model: its fooling rate by day with intervals, and over all days."""
    found = []
    for model in sorted({one.model for one in probes}):
        mine = [one for one in probes if one.model == model]
        days: dict[int, list[Observation]] = {}
        for one in mine:
            days.setdefault(int(one.wall // _DAY), []).append(one)
        points = [(_DAY * (day + 0.5), _share(seen)) for day, seen in sorted(days.items())]
        about = f"the fooling rate of {model or 'the model'} by day, with 95 % intervals"
        found.append({"model": model, "chart": trend(points, about), "share": _share(mine)})
    return found


def _months(incidents: Sequence[Any], now: float) -> list[tuple[str, int, int]]:
    today = datetime.fromtimestamp(now, UTC)
    months = [divmod(today.year * 12 + today.month - 1 - back, 12) for back in range(5, -1, -1)]
    counts = {(year, month + 1): [0, 0] for year, month in months}
    for one in incidents:
        opened = datetime.fromtimestamp(one.opened, UTC)
        place = counts.get((opened.year, opened.month))
        if place is not None:
            place[one.severity != "page"] += 1
    return [
        (f"{datetime(year, month, 1):%b}", pages, tickets)
        for (year, month), (pages, tickets) in counts.items()
    ]


def _verdict(
    incidents: Sequence[Any], pages: Sequence[Any], slos: Sequence[Any], killed: bool
) -> tuple[str, str, str]:
    """Kind, headline and sentence; that there is no data is never good news."""
    under_way = [one for one in incidents if one.state == "open"]
    if pages or any(one.severity == "page" for one in under_way):
        told = f"{_counted(len(pages), 'alert pages', 'alerts page')}, "
        told += f"{_counted(len(under_way), 'incident is', 'incidents are')} open."
        return "bad", "Under attack", told
    spent = [one for one in slos if one.left is not None and one.left <= 0]
    if spent:
        names = ", ".join(one.status.slo.name for one in spent)
        return "bad", "Budget spent", f"Nothing is left of {names}: hold releases until it is."
    if killed:
        return "warn", "Not inspected", "The kill switch is on: every request passes as it is."
    if under_way or any(one.firing for one in slos):
        return "warn", "Being looked at", "Somebody works on an incident or a ticket; nobody pages."
    if not any(one.status.n for one in slos):
        told = "No objective has data, so that nothing can be said."
        return "none", "Nothing is known yet", told
    return "good", "Holding", "Nobody pages, and every objective with data has budget left."


def _counted(n: int, one: str, more: str) -> str:
    return f"{n} {one if n == 1 else more}"


ROUTES = (Route(path="/", answer=overview),)
