"""A guard from a file, for whoever serves it by other means than `withstand guard serve`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .._guard import Guard
from .._message import Upstream
from .._metrics import Metrics
from ..access import Secrets


def guard_from(path: str | Path, upstream: Upstream | None = None) -> Guard:
    """The guard that the section `guard` of a file describes, to be closed by whoever made it.

    upstream: what is asked instead of the servers that the file names, those of `reroute` excepted.
    A canary is only for `withstand guard serve`, which can roll it back.
    Raises WithstandError where the file or what it names is broken.
    """
    # What reads the file is for those who have one.
    from ...config import load_guard
    from ..plan import Parts, Plan

    config, folder, parts = load_guard(path), Path(path).parent, Parts()
    secrets = Secrets(folder / config.secrets)
    plan = Plan(config=config, folder=folder, secrets=secrets, parts=parts, metrics=Metrics())
    try:
        guard = plan.guard({})
    except BaseException:
        parts.close()
        raise
    guard.lines = {
        name: replace(one, canary=None, upstream=upstream or one.upstream)
        for name, one in guard.lines.items()
    }
    return guard
