"""Inputs that a guard flagged, from its evidence into the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import EvidenceError
from ._corpus import Corpus
from ._entry import Array, Entry, Origin, now
from .log import Break, Query, Record, Vault, read, unpack

_GROUP_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What became of the flagged requests in an evidence log.

    requests: with an input in the vault; inputs: rows of them that are in the corpus now; new: that
    were not before. erased: requests whose input was erased; unfit: whose input is
    of type BYTES (text, image files) or not one tensor, which a corpus cannot hold. stale: entries
    in the corpus whose input was erased since.
    """

    requests: int
    inputs: int
    new: int
    erased: int
    unfit: int
    stale: int


def collect(
    corpus: Corpus, folder: str | Path, vault: Vault, query: Query | None = None
) -> Collected:
    """Add the inputs that a guard flagged or refused, each row as an entry of kind flagged.

    Each entry names its record in `lineage`, with its time, and has the model's answer where the
    record tells it, as it does of the first rows; its model is the digest of the weights, or the
    model's name without one. query: only those decisions. What another logger saw, records of kind
    imported, is left out. Raises EvidenceError for a log that was changed, and CorpusError.
    """
    requests = erased = unfit = inputs = 0
    before = corpus.head.total if corpus.head else 0
    time, waiting, size = now(), [], 0
    for record in _flagged(folder, query or Query()):
        requests += 1
        reference = record.content["input"]
        if vault.erased(reference):
            erased += 1
            continue
        tensors = unpack(vault.get(reference))
        if len(tensors) != 1 or tensors[0].datatype == "BYTES":
            unfit += 1
            continue
        rows = np.atleast_1d(tensors[0].values)
        content = record.content
        origin = Origin(model=str(content.get("weights") or content.get("model", "")), time=time)
        waiting += [(x, _entry(record, reference, number, origin)) for number, x in enumerate(rows)]
        inputs += len(rows)
        size += rows.nbytes
        if size > _GROUP_BYTES:
            _add(corpus, waiting)
            waiting, size = [], 0
    _add(corpus, waiting)
    return Collected(
        requests=requests,
        inputs=inputs,
        new=(corpus.head.total if corpus.head else 0) - before,
        erased=erased,
        unfit=unfit,
        stale=sum(1 for _ in stale(corpus, folder)),
    )


def stale(corpus: Corpus, folder: str | Path) -> Iterator[Entry]:
    """The entries of a corpus whose input a log tells as erased since it was taken from there."""
    gone = {
        reference
        for place in read(folder)
        if not isinstance(place, Break) and place.record.kind == "erased"
        for reference in place.record.content["inputs"]
    }
    for entry in corpus.entries(kind="flagged"):
        if entry.lineage and entry.lineage.get("input") in gone:
            yield entry


def _flagged(folder: str | Path, query: Query) -> Iterator[Record]:
    for place in read(folder):
        if isinstance(place, Break):
            raise EvidenceError(f"{folder} was changed: {place}; see `withstand evidence verify`")
        content = place.record.content
        decided = place.record.kind == "decision" and content.get("decision") in ("flag", "refuse")
        if decided and isinstance(content.get("input"), str) and query.matches(place.record):
            yield place.record


def _entry(record: Record, reference: str, row: int, origin: Origin) -> Entry:
    content = record.content
    signals = content.get("signals", [])
    lineage: dict[str, Any] = {
        "record": record.seq,
        "hash": record.hash,
        "input": reference,
        "row": row,
        "time": datetime.fromtimestamp(record.wall, UTC).isoformat(timespec="seconds"),
        "decision": content["decision"],
        "sensors": [one[0] for one in signals if isinstance(one, list) and one[3]],
    }
    return Entry(
        original=None, label=None, answer=_answer(content.get("answered"), row), attack="guard",
        origin=origin, kind="flagged", lineage=lineage,
    )  # fmt: skip


def _answer(answered: Any, row: int) -> int | None:
    """The model's class for a row, of the highest scores that a record has of the first rows."""
    try:
        return int(answered[row][0][0]) if isinstance(answered, list) else None
    except (IndexError, KeyError, TypeError, ValueError):
        # Redaction may have left something else.
        return None


def _add(corpus: Corpus, waiting: list[tuple[Array, Entry]]) -> None:
    if waiting:
        corpus.add([x for x, _ in waiting], [entry for _, entry in waiting])
