"""What is promised, how much of it is left, and how the detectors do."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from typing import Any

from ...monitor import figures
from .._charts import scores
from .._site import Site
from .._web import Ask, Page, Route
from ._budgets import budgets
from ._rows import Row, attempt, decisions

_MOST = 1500


def detectors(site: Site, ask: Ask) -> Page:
    """Objectives with budget and burn rates, the ten indicators, and each detector's scores."""
    slos, told = attempt(lambda: budgets(site), [])
    told_figures, _ = attempt(lambda: figures(site.store, time.time()), [])
    rows, broken = attempt(lambda: decisions(site, _MOST), [])
    section = site.config.guard
    values = {
        "here": "detectors",
        "slos": slos,
        "slos_told": told,
        "figures": told_figures,
        "detectors": _detectors([one for one in rows if not one.experiment]),
        "configured": [] if section is None else section.detectors or [],
        "asked": len(rows),
        "broken": broken,
        "reviews": site.reviews.all(),
    }
    return Page("detectors.html.j2", "Detectors & SLOs", values)


def _detectors(rows: list[Row]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], list[tuple[Row, Any]]] = defaultdict(list)
    for one in rows:
        for signal in one.signals:
            found[one.model, signal.sensor].append((one, signal))
    drawn = []
    for (model, sensor), seen in sorted(found.items()):
        sound = [signal for _, signal in seen if not signal.failed]
        benign = [signal.score for row, signal in seen if row.decision == "pass"
                  and not signal.failed]  # fmt: skip
        threshold = sound[0].threshold if sound else math.nan
        drawn.append(
            {
                "model": model, "sensor": sensor, "n": len(seen), "threshold": threshold,
                "flagged": sum(signal.flagged for signal in sound),
                "failed": len(seen) - len(sound),
                "chart": scores(benign, threshold, None, sensor)
                if benign and math.isfinite(threshold) else None,
            }
        )  # fmt: skip
    return drawn


ROUTES = (Route(path="/detectors", answer=detectors),)
