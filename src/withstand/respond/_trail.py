"""What the evidence holds of an incident."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from .._errors import EvidenceError
from ..evidence.log import Break, Query, Record, indexed, read
from ..monitor import Campaign

MARGIN = 600.0
"""Seconds before a campaign's first flag and after its last that belong to it, too."""


def trail(folder: Path, campaign: Campaign | None, *, margin: float = MARGIN) -> list[Record]:
    """The decisions on a campaign's requests, flagged or not, oldest first; none without one.

    Raises EvidenceError where the log was changed.
    """
    if campaign is None:
        return []
    mine = part_of(campaign, margin=margin)
    since, until = campaign.first - margin, campaign.last + margin
    # An input of the campaign belongs to it whoever sent it, so that a key does not narrow it down.
    found = indexed(folder, Query(kind="decision", since=since, until=until))
    return [record for record in (_read(folder) if found is None else found) if mine(record)]


def part_of(campaign: Campaign, *, margin: float = MARGIN) -> Callable[[Record], bool]:
    """Whether a record is a decision on a request of a campaign: its clients', or its inputs."""
    keys, inputs = set(campaign.keys), set(campaign.inputs)
    since, until = campaign.first - margin, campaign.last + margin

    def mine(record: Record) -> bool:
        told = record.content
        return (
            record.kind == "decision"
            and since <= record.wall < until
            and told.get("model") == campaign.model
            and (told.get("key") in keys or told.get("fingerprint") in inputs)
            and told.get("experiment", "") == campaign.experiment
        )

    return mine


def first_record(folder: Path, fingerprint: str) -> Record | None:
    """The first decision on an input, None where there is none; raises EvidenceError."""
    asked = Query(kind="decision", fingerprint=fingerprint)
    found = indexed(folder, asked)
    return next(
        (one for one in (_read(folder) if found is None else found) if asked.matches(one)), None
    )


def _read(folder: Path) -> Iterator[Record]:
    for place in read(folder):
        if isinstance(place, Break):
            raise EvidenceError(f"{folder} was changed: {place}; see `withstand evidence verify`")
        yield place.record
