"""A copy of an incident's evidence, with the digests that prove it."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from pydantic import Field

from ..._errors import EvidenceError, OperationError
from ...evidence.log import Break, read, verify
from .._files import digest, private, put
from .._trail import MARGIN, part_of
from ._contract import Action, Arguments, Case, Outcome


class Around(Arguments):
    """Seconds before the campaign's first flag and after its last."""

    margin: float = Field(default=MARGIN, ge=0)


class Snapshot(Action[Around]):
    """Copy the campaign's records, and all that the guard says of itself meanwhile.

    Records are copied byte for byte, so that their hashes can be checked; inputs stay in the vault,
    so that they can still be erased. The whole chain is verified, and manifest.json, which comes
    last, holds the result and the digests. An earlier copy is kept beside, its manifest's digest in
    the names.
    """

    name = "snapshot_evidence"
    told = Around

    def plan(self, case: Case, told: Around) -> list[str]:
        return [f"verify {case.desk.evidence} and copy the incident's records to {case.folder}"]

    def act(self, case: Case, told: Around) -> Outcome:
        source, campaign = case.desk.evidence, case.campaign
        if campaign is None:
            since, until = case.incident.opened - told.margin, time.time()
        else:
            since, until = campaign.first - told.margin, campaign.last + told.margin
        mine = None if campaign is None else part_of(campaign, margin=told.margin)
        copy, count, broken = case.folder / "evidence.jsonl", 0, ""
        _set_aside(case.folder)
        with private(copy) as out:
            for place in read(source):
                if isinstance(place, Break):
                    broken = str(place)
                    break
                record = place.record
                said = record.kind != "decision" and since <= record.wall < until
                if said or (mine is not None and mine(record)):
                    with place.segment.open("rb") as segment:
                        segment.seek(place.begin)
                        out.write(segment.read(place.end - place.begin))
                    count += 1
        try:
            found = verify(source)
            chain = {**asdict(found), "head": found.head._asdict()}
        except EvidenceError as error:
            chain = {"faults": [str(error)]}
        manifest = {
            "incident": case.incident.id,
            "taken": time.time(),
            "records": count,
            "since": since,
            "until": until,
            "sha256": digest(copy),
            "chain": chain,
        }
        put(case.folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")
        if broken or chain["faults"]:
            raise OperationError(f"the evidence is broken: {broken or chain['faults'][0]}")
        return Outcome(
            state="done",
            text=f"{count} records kept in {copy.name}, and the chain is whole",
            detail={key: manifest[key] for key in ("records", "sha256", "chain")},
        )


def _set_aside(folder: Path) -> None:
    """Keep an earlier copy, which may hold records that were purged since."""
    manifest = folder / "manifest.json"
    if not manifest.exists():
        return
    # Its own, as two copies of the same records were taken at different times.
    mark = digest(manifest)[:12]
    # The manifest goes last: a copy that has one is never written over, whoever is killed.
    for name, kind in (("evidence", "jsonl"), ("manifest", "json")):
        with suppress(FileNotFoundError):
            (folder / f"{name}.{kind}").rename(folder / f"{name}-{mark}.{kind}")
