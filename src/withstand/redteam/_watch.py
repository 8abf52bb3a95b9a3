"""Campaigns again and again, within their hours."""

from __future__ import annotations

import time
from collections.abc import Callable

from .._errors import OperationError, WithstandError
from ._campaign import Campaign
from ._runs import Run, Runs

_NAP = 1.0


def watch(
    opened: Callable[[], Campaign],
    runs: Runs,
    every: float,
    *,
    ended: Callable[[], bool],
    told: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    wall: Callable[[], float] = time.time,
) -> list[Run]:
    """Run a campaign every so many seconds until `ended`, and return the runs of all of them.

    opened: reads configuration and scope anew for each one, so that a scope that is withdrawn
    counts. Where one may not begin, the reason is told once, and it is tried again; a mistake in
    the configuration is raised before the first one has run, and told like that afterwards.
    """
    found: list[Run] = []
    last = ""
    while not ended():
        newest = runs.all(1)
        due = newest[0].began + every if newest and newest[0].state != "running" else 0.0
        if wall() >= due:
            try:
                found += opened().run()
                last = ""
            except WithstandError as error:
                # Somebody may be in the middle of writing a file of a service that has run well.
                if not found and not isinstance(error, OperationError):
                    raise
                if str(error) != last:
                    told(str(error))
                last = str(error)
        sleep(_NAP)
    return found
