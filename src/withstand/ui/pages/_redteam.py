"""Permitted attacks, and what has been tried at all."""

from __future__ import annotations

from ...redteam import Run, coverage
from ...stats import wilson
from ...threat import Technique, techniques
from .._site import Site
from .._web import Ask, MissingError, Page, Route
from ._rows import attempt, search

_SHOWN = 100


def redteam(site: Site, ask: Ask) -> Page:
    """The runs, what they covered, and the techniques of the catalogues that nobody has tried."""
    runs = site.runs.all()
    covered = coverage([run for run in runs if len(run.attack.split()) == 3])
    tried: dict[str, int] = {}
    for one in covered:
        for technique in one.techniques:
            tried[technique.id] = tried.get(technique.id, 0) + one.tried
    values = {
        "here": "redteam",
        "runs": [(run, _fooling(run)) for run in runs[:_SHOWN]],
        "running": [run for run in runs if run.state == "running"],
        "covered": covered,
        "catalogue": [(one, tried.get(one.id, 0)) for one in _catalogue()],
        "coverage": next(iter(site.observations.of("M10", last=1)), None),
        "scope": site.config.redteam.scope,
    }
    return Page("redteam.html.j2", "Red team & coverage", values)


def run(site: Site, ask: Ask) -> Page:
    """One run, and what the guard decided on its requests."""
    found = site.runs.get(ask.path["id"])
    if found is None:
        raise MissingError(f"there is no run {ask.path['id'][:64]!r}")
    until = None if found.ended is None else found.ended + 60
    (mine, more), broken = attempt(
        lambda: search(
            site, lambda one: one.experiment == found.id, lambda rows: len(rows) >= _SHOWN,
            since=found.began - 60, until=until,
        ),
        ([], False),
    )  # fmt: skip
    values = {
        "here": "redteam", "run": found, "fooling": _fooling(found),
        "detected": wilson(found.detected, found.tried), "rows": mine[:_SHOWN],
        "asked": len(mine), "more": more, "broken": broken,
    }  # fmt: skip
    return Page("run.html.j2", f"Run {found.id[:16]}", values)


def _fooling(run: Run) -> object:
    return wilson(run.fooled, run.tried)


def _catalogue() -> list[Technique]:
    """Every technique that an attack of ours may be filed under, each once."""
    found = {
        one.id: one
        for access in ("gradients", "scores", "labels", "none")
        for one in techniques(access)
    }
    return sorted(found.values(), key=lambda one: (one.catalogue, one.id))


ROUTES = (
    Route(path="/redteam", answer=redteam),
    Route(path="/redteam/{id}", answer=run),
)
