"""What has been tried: attack, norm, radius and model, with the ids of the catalogues."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ..stats import Interval, wilson
from ..threat import Technique, techniques
from ._plan import TRANSFER
from ._runs import Run


@dataclass(frozen=True, kw_only=True)
class Covered:
    """One attack on one model, over all runs: tried and fooled inputs, and those it was seen on.

    fooling: share of the tried that were fooled, None where none was tried. last: seconds since
    1970.
    """

    attack: str
    norm: str
    eps: float
    model: str
    tried: int
    fooled: int
    detected: int
    queries: int
    last: float
    fooling: Interval | None
    techniques: tuple[Technique, ...]


def coverage(runs: Iterable[Run]) -> list[Covered]:
    """The table of what was tried, by model, attack and radius."""
    by: dict[tuple[str, str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        attack, norm, eps = run.attack.split()
        by[run.model, attack, norm, eps].append(run)
    return [_covered(place, found) for place, found in sorted(by.items())]


def _covered(place: tuple[str, str, str, str], runs: list[Run]) -> Covered:
    model, attack, norm, eps = place
    tried, fooled = sum(run.tried for run in runs), sum(run.fooled for run in runs)
    return Covered(
        attack=attack, norm=norm, eps=float(eps), model=model, tried=tried, fooled=fooled,
        detected=sum(run.detected for run in runs), queries=sum(run.queries for run in runs),
        last=max(run.ended or run.began for run in runs),
        fooling=wilson(fooled, tried) if tried else None,
        techniques=techniques("none" if attack == TRANSFER else "scores"),
    )  # fmt: skip
