"""Records of decisions as the tables show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from ..._errors import WithstandError
from ...evidence.log import Record
from .._site import Site

_T = TypeVar("_T")
_LOOKS = (1000, 8000)


class Signal(NamedTuple):
    """What a sensor said of an input; `failed` that it could not say."""

    sensor: str
    score: float
    threshold: float
    flagged: bool
    failed: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """A decision, whatever may be missing in its record."""

    seq: int
    wall: float
    decision: str
    reason: str
    model: str
    key: str
    tenant: str
    experiment: str
    arm: str
    fingerprint: str
    answer: str
    top: float | None
    flags: tuple[str, ...]
    signals: tuple[Signal, ...]
    done: tuple[str, ...]
    record: Record


def row(record: Record) -> Row:
    """A record's decision; what is not of the form that a guard writes is left out."""
    told = record.content
    signals = tuple(_signals(told.get("signals")))
    answer, top = _answer(told.get("answered"))
    return Row(
        seq=record.seq, wall=record.wall, decision=_text(told, "decision"),
        reason=_text(told, "reason"), model=_text(told, "model"), key=_text(told, "key"),
        tenant=_text(told, "tenant"), experiment=_text(told, "experiment"), arm=_text(told, "arm"),
        fingerprint=_text(told, "fingerprint"), answer=answer, top=top, signals=signals,
        flags=tuple(one.sensor for one in signals if one.flagged),
        done=tuple(str(one) for one in told.get("done") or ()), record=record,
    )  # fmt: skip


def decisions(site: Site, last: int, **asked: Any) -> list[Row]:
    """The newest decisions of a query, newest first; none where there is no evidence."""
    if site.inputs is None:
        return []
    return [row(one) for one in site.inputs.find(last, kind="decision", **asked)]


def search(
    site: Site, wanted: Callable[[Row], bool], enough: Callable[[list[Row]], bool], **asked: Any
) -> tuple[list[Row], bool]:
    """The newest decisions that are wanted, from further back until they are enough.

    And whether there are older ones, at which nobody looked.
    """
    found: list[Row] = []
    for last in _LOOKS:
        rows = decisions(site, last, **asked)
        found = [one for one in rows if wanted(one)]
        if len(rows) < last:
            return found, False
        if enough(found):
            break
    return found, True


def attempt(work: Callable[[], _T], otherwise: Any) -> tuple[_T, str]:
    """What is found, or something else and in words why: one part must not take a page along."""
    try:
        return work(), ""
    except WithstandError as error:
        return otherwise, str(error)


def _text(told: dict[str, Any], name: str) -> str:
    found = told.get(name)
    return found if isinstance(found, str) else ""


def _signals(told: Any) -> list[Signal]:
    found = []
    for one in told if isinstance(told, list) else ():
        if isinstance(one, list) and len(one) == 5:
            try:
                # A score that is no finite number is written in words.
                found.append(Signal(str(one[0]), float(one[1]), float(one[2]), bool(one[3]),
                                    bool(one[4])))  # fmt: skip
            except (TypeError, ValueError):
                continue
    return found


def _answer(told: Any) -> tuple[str, float | None]:
    """The highest class of each row in words, and the first one's score."""
    try:
        highest = [max(one, key=lambda pair: pair[1]) for one in told]
        text = ", ".join(str(name) for name, _ in highest[:4]) + (", …" if len(highest) > 4 else "")
        return text, float(highest[0][1]) if len(highest) == 1 else None
    except (TypeError, ValueError, IndexError):
        return "", None
