"""What is left of each objective's budget."""

from __future__ import annotations

import time
from typing import NamedTuple

from ...monitor import Burn, SloStatus, slos_of, status
from ...stats import wilson
from .._charts import Chart, trend
from .._site import Site

_DAY = 86_400.0


class Budget(NamedTuple):
    """How an objective stands, its promise in words, and the share of bad events over time."""

    status: SloStatus
    promise: str
    chart: Chart | None

    @property
    def left(self) -> float | None:
        """The share of the budget that is left; None for no data."""
        return self.status.budget_left

    @property
    def firing(self) -> list[Burn]:
        """The rules that fire, pages first."""
        return [one for one in self.status.burns if one.fires]


def budgets(site: Site) -> list[Budget]:
    """All objectives of withstand.yaml, in their order."""
    found = status(site.store, slos_of(site.config.monitor), time.time())
    return [_budget(one) for one in found]


def _budget(found: SloStatus) -> Budget:
    slo = found.slo
    days: dict[int, list[int]] = {}
    for one in found.series:
        told = days.setdefault(int(one.start // _DAY), [0, 0])
        told[0] += one.bad
        told[1] += one.events
    points = [((day + 0.5) * _DAY, wilson(*told)) for day, told in sorted(days.items())]
    if slo.objective is None:
        promise, limit = f"at most {slo.budget} bad in {slo.days:g} days", None
    else:
        promise = f"{100 * slo.objective:.6g} % good over {slo.days:g} days"
        limit = 1 - slo.objective
    about = f"share of bad events of {slo.name} by day"
    return Budget(found, promise, trend(points, about, limit) if points else None)
