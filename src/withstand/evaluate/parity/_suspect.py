"""What a served pipeline may do differently, one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ._route import Route, Step


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One step that may be done differently where the model is served.

    step: its name; change: what the served pipeline would be doing; fix: how to mend it; alter:
    the reference's route with that change, `before(function)` for one of raw input.
    """

    step: str
    change: str
    fix: str
    alter: Callable[[Route], Route]


def before(function: Step) -> Callable[[Route], Route]:
    """The change of a route whose raw input (B, ...) goes through a function first."""
    return lambda route: route.inserted(0, function)


def missing_or_twice(
    step: str, what: str, fix: str, *, forward: Step, backward: Step
) -> list[Suspect]:
    """A step that is left out, or done once more; the two are functions of raw input."""
    return [
        Suspect(step=step, change=f"{what} is missing", fix=fix, alter=before(backward)),
        Suspect(step=step, change=f"{what} is done twice", fix=fix, alter=before(forward)),
    ]
