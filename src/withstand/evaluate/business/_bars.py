"""Shares as horizontal bars: the features that give way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..._errors import one_line
from ._business import Weakness
from ._words import share

_MOST = 12
_WIDTH, _LEFT, _RIGHT, _ROW = 640, 190, 130, 28


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One feature in the drawing's coordinates; alone: the part in which nothing else changed."""

    label: str
    top: int
    width: float
    alone: float
    told: str


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Everything the template draws; hidden: features that changed and are not shown."""

    bars: tuple[Bar, ...]
    hidden: int
    height: int
    left: int = _LEFT
    width: int = _WIDTH
    thick: int = _ROW - 10


def bars(features: Sequence[Weakness]) -> Bars | None:
    """The features that changed in most of the fooled rows; None where none did."""
    changed = [one for one in features if one.share.n and one.share.value > 0]
    if not changed:
        return None
    room = _WIDTH - _LEFT - _RIGHT
    drawn = tuple(
        Bar(
            label=one_line(one.feature, 18),
            top=place * _ROW + 5,
            width=round(room * one.share.value, 1),
            alone=round(room * one.alone / one.share.n, 1),
            told=share(one.share),
        )
        for place, one in enumerate(changed[:_MOST])
    )
    return Bars(bars=drawn, hidden=len(changed) - len(drawn), height=len(drawn) * _ROW + 10)
