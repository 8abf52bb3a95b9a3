"""Who asks, and which of them belong together."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from itertools import pairwise
from typing import Any

from .._charts import strip, traffic
from .._site import Site
from .._web import Ask, MissingError, Page, Route
from ._oncall import ordered
from ._rows import Row, attempt, decisions

_MOST = 2000
_SHOWN = 100


def clients(site: Site, ask: Ask) -> Page:
    """Campaigns, and the clients of the newest decisions by how often they were flagged."""
    rows, broken = attempt(lambda: decisions(site, _MOST), [])
    by_key: dict[str, list[Row]] = {}
    for one in rows:
        by_key.setdefault(one.key, []).append(one)
    found = [_client(key, mine) for key, mine in by_key.items()]
    values = {
        "here": "clients",
        "campaigns": site.alerts.campaigns(last=50),
        "clients": sorted(found, key=lambda one: (-one["flagged"], -one["requests"]))[:_SHOWN],
        "asked": len(rows),
        "broken": broken,
    }
    return Page("clients.html.j2", "Clients & campaigns", values)


def client(site: Site, ask: Ask) -> Page:
    """What one client asked: scores over time, answers that changed, and all of its requests."""
    key = ask.path["key"]
    rows, broken = attempt(lambda: decisions(site, _MOST, key=key), [])
    campaigns = [one for one in site.alerts.campaigns() if key in one.keys]
    if not rows and not campaigns and not broken:
        raise MissingError(f"nothing is known of a client {key[:64]!r}")
    answers = [one.answer for one in reversed(rows) if one.answer]
    flips = sum(a != b for a, b in pairwise(answers))
    values = {
        "here": "clients",
        "key": key,
        "summary": _client(key, rows) if rows else None,
        "campaigns": campaigns,
        "flips": flips,
        "answers": Counter(answers).most_common(6),
        "chart": _story(rows),
        "rows": rows[:_SHOWN],
        "asked": len(rows),
        "broken": broken,
        **ordered(site),
    }
    return Page("client.html.j2", f"Client {key[:12]}", values)


def campaign(site: Site, ask: Ask) -> Page:
    """Flagged requests that belong together: their clients, their inputs, their alerts."""
    found = site.alerts.campaign(ask.path["id"])
    if found is None:
        raise MissingError(f"there is no campaign {ask.path['id'][:64]!r}")
    rows: list[Row] = []
    broken = ""
    for key in found.keys[:5]:
        asked = {"key": key, "since": found.first - 1, "until": found.last + 1}
        more, why = attempt(partial(decisions, site, 200, **asked), [])
        rows, broken = rows + more, broken or why
    since, until = found.first, max(found.last, found.first + 60)
    values = {
        "here": "clients",
        "campaign": found,
        "alerts": [one for one in site.alerts.all() if one.campaign == found.id],
        "incidents": [one for one in site.incidents.all() if one.campaign == found.id],
        "chart": traffic([(one.wall, one.decision) for one in rows], since, until + 1),
        "rows": sorted(rows, key=lambda one: -one.seq)[:_SHOWN],
        "broken": broken,
    }
    return Page("campaign.html.j2", f"Campaign {found.id[:16]}", values)


def _client(key: str, rows: list[Row]) -> dict[str, Any]:
    sensors = Counter(name for one in rows for name in one.flags)
    return {
        "key": key, "tenant": rows[0].tenant, "requests": len(rows),
        "flagged": sum(one.decision == "flag" for one in rows),
        "refused": sum(one.decision == "refuse" for one in rows),
        "inputs": len({one.fingerprint for one in rows if one.fingerprint}),
        "models": sorted({one.model for one in rows}), "sensors": sensors.most_common(4),
        "first": rows[-1].wall, "last": rows[0].wall,
        "experiment": next((one.experiment for one in rows if one.experiment), ""),
    }  # fmt: skip


def _story(rows: list[Row]) -> Any:
    points = []
    for one in reversed(rows):
        shares = [
            (signal.score / signal.threshold, signal.sensor)
            for signal in one.signals
            if signal.threshold > 0 and not math.isnan(signal.score)
        ]
        value, sensor = max(shares, default=(0.0, "no sensor"))
        told = f"record {one.seq}: {value:.2f} times the threshold of {sensor}"
        points.append((one.wall, max(value, 0.0), one.decision == "flag", told))
    return strip(points, 1.0, f"the highest score of {len(rows)} requests over time")


ROUTES = (
    Route(path="/clients", answer=clients),
    Route(path="/clients/{key}", answer=client),
    Route(path="/campaigns/{id}", answer=campaign),
)
