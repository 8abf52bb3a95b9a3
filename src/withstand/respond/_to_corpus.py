"""From an incident into the corpus, past the people who must agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from .._errors import OperationError
from ..evidence import Corpus, Entry, Origin, Remark, content_digest
from ._desk import Desk
from ._incidents import Incident
from ._recorded import Recorded
from ._replay import JSON, inputs_of
from ._reviews import Review


@dataclass(frozen=True, kw_only=True)
class Added:
    """What of an incident is in the corpus now: for training, and to be looked at.

    proven: inputs near a labelled sample that the model had got wrong. confirmed: inputs that a
    person has called adversarial and given a class; unlabelled: those without a class, which are
    kept, and which nothing is trained on. released: inputs that a person has called benign; left:
    inputs that nobody has looked at. Neither of them is in the corpus. new: entries that were not
    there before.
    """

    proven: int
    confirmed: int
    unlabelled: int
    released: int
    left: int
    new: int

    def __str__(self) -> str:
        return (
            f"{self.new} new entries; {self.proven} proven wrong, {self.confirmed} confirmed, "
            f"{self.unlabelled} confirmed without a class, {self.released} released and "
            f"{self.left} not looked at are left out"
        )


def add_to_corpus(desk: Desk, incident: Incident) -> Added:
    """Add an incident's adversarial inputs, as the models take them; nothing is added twice.

    Those go in whose answer the replay has proven wrong, and those that a person has confirmed.
    What a client sends is otherwise never training data, flagged or not. A person's word counts
    before the replay's; a class that they gave, where the input is one row, since nobody can say
    which of several it is. Raises OperationError and CorpusError.
    """
    proven = _proven(desk, incident)
    corpus = Corpus(desk.root / desk.config.respond.corpus)
    before = corpus.head.total if corpus.head else 0
    rows: list[Any] = []
    entries: list[Entry] = []
    remarks: list[Remark] = []
    counts = dict.fromkeys(("proven", "confirmed", "unlabelled", "released", "left"), 0)
    said = {remark.entry for remark in _said(corpus)}
    there = {entry.digest for entry in corpus.entries() if entry.lineage}
    inputs = inputs_of(desk, incident).inputs
    several = {one.record.seq for one in inputs if one.row}
    for one in inputs:
        review = desk.reviews.of(one.fingerprint)
        if review is not None and one.record.seq in several:
            review = replace(review, label=None)
        told = proven.get((one.record.seq, one.row))
        entry, kind = _entry(incident, one, review, told)
        counts[kind] += 1
        if kind == "released" and review is not None:
            # The same content may be there by another request of its.
            digest = content_digest(one.values)
            if digest in there and digest not in said:
                remarks.append(Remark(by=review.who, entry=digest, verdict="benign"))
                said.add(digest)
        if entry is None:
            continue
        rows.append(one.values)
        entries.append(entry)
        if kind == "unlabelled" and review is not None:
            digest = content_digest(one.values)
            if digest not in said:
                remarks.append(Remark(by=review.who, entry=digest, verdict="attack"))
                said.add(digest)
    if entries or remarks:
        corpus.add(rows, entries, remarks)
    new = (corpus.head.total if corpus.head else 0) - before
    return Added(**counts, new=new)


def tell_corpus(desk: Desk, review: Review) -> None:
    """Say of what the corpus has of an input what a person now says of it; raises CorpusError.

    What is benign is not trained on any more.
    """
    corpus = Corpus(desk.root / desk.config.respond.corpus)
    verdict: Literal["attack", "benign"] = "benign" if review.verdict == "benign" else "attack"
    mine = {
        entry.digest
        for entry in corpus.entries(distrusted=True)
        if entry.lineage
        and (
            entry.lineage.get("fingerprint") == review.fingerprint
            or entry.lineage.get("record") == review.seq
        )
    }
    if mine:
        corpus.add([], [], [Remark(by=review.who, entry=one, verdict=verdict) for one in mine])


def _entry(
    incident: Incident, one: Recorded, review: Review | None, told: dict[str, Any] | None
) -> tuple[Entry | None, str]:
    content = one.record.content
    origin = Origin(model=str(content.get("weights", "")))
    made = f"incident {incident.id}"
    lineage: dict[str, Any] = {
        "record": one.record.seq,
        "hash": one.record.hash,
        "input": content["input"],
        "fingerprint": one.fingerprint,
        "row": one.row,
        "decision": content["decision"],
        "sensors": list(one.sensors),
    }
    common: dict[str, Any] = {"attack": made, "origin": origin, "lineage": lineage}
    if review is not None and review.verdict == "benign":
        return None, "released"
    if review is not None and review.label is not None:
        entry = Entry(original=None, label=review.label, answer=one.answer, **common)
        return entry, "confirmed"
    if told is not None:
        entry = Entry(
            original=told["original"], label=told["label"], answer=one.answer,
            distance=told["distance"], **common,
        )  # fmt: skip
        return entry, "proven"
    if review is not None:
        return Entry(original=None, label=None, answer=None, kind="flagged", **common), "unlabelled"
    return None, "left"


def _proven(desk: Desk, incident: Incident) -> dict[tuple[int, int], dict[str, Any]]:
    """What the last replay has proven wrong, by record and row."""
    path = desk.folder(incident.id) / JSON
    try:
        told = json.loads(path.read_text())["inputs"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError) as error:
        raise OperationError(
            f"{path} cannot be read ({error}); replay the incident again"
        ) from None
    return {(one["seq"], one["row"]): one for one in told if one["proven"] is True}


def _said(corpus: Corpus) -> Iterator[Remark]:
    for entry in corpus.entries(kind="flagged"):
        if entry.verdict:
            yield Remark(by="", entry=entry.digest, verdict="attack")
