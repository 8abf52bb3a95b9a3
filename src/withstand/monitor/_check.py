"""What of a configuration will not do what it seems to."""

from __future__ import annotations

from pathlib import Path

from ..config import GuardConfig, Operations
from .slo import slos_of, unreachable
from .tell import sound


def warnings(told: Operations, folder: Path) -> list[str]:
    """One line each, with the fix; folder: of withstand.yaml. Raises ConfigError for a mistake."""
    config, slos = told.monitor, slos_of(told.monitor)
    sound(config.receivers, folder)
    found = [line for slo in slos for line in unreachable(slo)]
    if not slos:
        found.append("monitor.slos is empty, so that no budget is watched; add one")
    if not config.receivers:
        found.append("monitor.receivers is empty, so that nobody is told of alerts; add one")
    if told.guard is None or told.guard.evidence is None:
        found.append("guard.evidence is missing, so that M4, M5 and M7 have no data; add it")
        return found
    named = told.guard.models
    found += [
        f"SLO {slo.name} is about model {slo.model}, which guard.models does not have; give one of "
        f"{', '.join(named)}"
        for slo in slos
        if slo.model and named and slo.model not in named
    ]
    return found + _blind(told.guard, told.guard.evidence.records)


def _blind(guard: GuardConfig, records: float) -> list[str]:
    found = []
    if records < 1:
        times = f"up to {1 / records:.3g} times" if records else "much"
        found.append(
            f"guard.evidence.records is {records:g}, so that benign decisions are missing, and M5 "
            f"and M7 are {times} too high; set it to 1"
        )
    if guard.mode == "observe":
        found.append(
            "guard.mode is observe: requests that there is no time to look at leave no record; set "
            "it to shadow"
        )
    return found
