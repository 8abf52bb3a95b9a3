"""How long evidence is kept, and what is done when its time is over."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..._errors import ConfigError, EvidenceError
from .._shard import sync_folder
from ._log import Log
from ._segment import beginning, last_record, number_of, segments
from ._vault import Vault

_DAY = 86_400.0
_INPUTS = 500
_SEGMENTS = 200


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Seconds for which inputs and records are kept, None for ever.

    Inputs are kept no longer than the records that name them. Raises ConfigError.
    """

    inputs: float | None = None
    records: float | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "records"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} are kept {value:g} s; give more than 0")
        if self.records is not None and (self.inputs or 0) > self.records:
            raise ConfigError(
                f"inputs are kept {self.inputs:g} s and records {self.records:g} s; records name "
                "inputs, so keep them at least as long"
            )


@dataclass(frozen=True, kw_only=True)
class Retained:
    """What was over: inputs erased, and segments removed with the records in them."""

    inputs: int
    segments: int
    records: int


def erase(log: Log, vault: Vault, references: list[str], why: str) -> int:
    """Tell that inputs are erased, and destroy their keys; how many there still were.

    Raises EvidenceError where it cannot be told, and then nothing is erased.
    """
    gone = 0
    for begin in range(0, len(references), _INPUTS):
        some = references[begin : begin + _INPUTS]
        # Told first: a key that is gone without a record would look like a loss.
        _tell(log, "erased", {"inputs": some, "why": why})
        gone += vault.erase(*some)
    return gone


def retain(
    log: Log, vault: Vault | None, retention: Retention, *, now: float | None = None
) -> Retained:
    """Erase inputs and remove whole segments that are older than is said; raises EvidenceError.

    A segment is as old as its last record. The log tells the last record and hash of each one that
    is removed, so that the rest still verifies, from there on.
    """
    now = time.time() if now is None else now
    limits = [one for one in (retention.inputs, retention.records) if one is not None]
    inputs = 0
    if vault is not None and limits:
        old = vault.references(before=now - min(limits))
        inputs = erase(log, vault, old, f"kept for {min(limits) / _DAY:g} days")
    if retention.records is None:
        return Retained(inputs=inputs, segments=0, records=0)
    over, known = [], segments(log.folder)
    start = beginning(known).seq
    for segment in known[:-1]:
        last = last_record([segment])
        if last is not None and last.wall >= now - retention.records:
            break
        if last is not None:
            over.append((segment, last))
    removed = 0
    for begin in range(0, len(over), _SEGMENTS):
        some = over[begin : begin + _SEGMENTS]
        told = [[number_of(segment), last.seq, last.hash] for segment, last in some]
        why = f"kept for {retention.records / _DAY:g} days"
        _tell(log, "purged", {"segments": told, "why": why})
        for segment, _ in some:
            segment.unlink(missing_ok=True)
            removed += 1
        sync_folder(log.folder)
    return Retained(inputs=inputs, segments=removed, records=over[-1][1].seq - start if over else 0)


def _tell(log: Log, kind: str, content: dict[str, object]) -> None:
    if not log.append(content, kind=kind) or not log.flush():
        raise EvidenceError(f"{log.folder} cannot be written; nothing is erased")
