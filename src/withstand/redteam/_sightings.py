"""Which probes the guard has flagged, as its evidence tells."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from .._errors import EvidenceError
from ..evidence.log import Place, Query, Record, indexed, read

_PATIENCE = 3.0
_NAP = 0.2


def flagged_probes(
    evidence: Path | None, run: str, key: str, since: float, wanted: Iterable[str]
) -> dict[str, bool]:
    """For each input of a run whose records are there, whether a query of it was flagged.

    evidence: folder of the log, None where there is none. wanted: the inputs that were asked about;
    records are written in groups, so that the last ones are waited for a little. A record tells its
    experiment and its probe, `INPUT.NUMBER`; refusals by policy count as flagged.
    """
    if evidence is None or not evidence.is_dir():
        return {}
    asked, until, before = set(wanted), time.monotonic() + _PATIENCE, -1
    while True:
        try:
            count, found = _found(evidence, run, key, since)
        except EvidenceError:
            return {}
        if (asked <= set(found) and count == before) or time.monotonic() > until:
            return found
        before = count
        time.sleep(_NAP)


def _found(evidence: Path, run: str, key: str, since: float) -> tuple[int, dict[str, bool]]:
    """How many records of a run there are, and whether those of each input are suspicious."""
    query = Query(kind="decision", key=key, since=since)
    records = indexed(evidence, query)
    if records is None:
        records = (one.record for one in read(evidence) if isinstance(one, Place))
    count = 0
    found: dict[str, bool] = {}
    for record in records:
        content = record.content
        if query.matches(record) and content.get("experiment") == run:
            count += 1
            name = str(content.get("probe", "")).rpartition(".")[0]
            found[name] = found.get(name, False) or _suspicious(record)
    return count, found


def _suspicious(record: Record) -> bool:
    content = record.content
    return content.get("decision") == "flag" or content.get("reason") == "policy" or any(
        signal[3] for signal in content.get("signals", ())
    )  # fmt: skip
