"""Is a log what was written? Every byte is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ._record import Head
from ._segment import Break, beginning, read, segments
from ._vault import Vault, is_vault


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found in a log.

    head: the last record that is sure. purged: the last record of those that were removed for their
    age, as a record that is still there tells, 0 for none. boots: times that it was opened;
    unclean: how often a writer had ended without closing, so that up to a group of records may be
    lost. lost: records that were counted instead of kept. anchored: the last record that an anchor
    vouches for.
    erased: inputs that were erased. faults: what is wrong, a line each; none means that no record
    was changed, removed, added or put elsewhere up to the last anchor, and that none after it was
    but for the end, which nobody but an anchor can vouch for.
    """

    head: Head
    purged: int
    boots: int
    unclean: int
    lost: int
    anchored: int
    erased: int
    faults: tuple[str, ...]


def verify(
    folder: str | Path, anchors: Iterable[Head] = (), vault: Vault | Path | None = None
) -> Verified:
    """Read a log and say what is wrong with it; raises EvidenceError where it cannot be read.

    anchors: heads that were kept elsewhere, which the log must still contain. vault: where the
    inputs are that records name under `input`; each must be there as it was, or be told as erased.
    None: inputs are not looked at.
    """
    named: dict[str, int] = {}
    erased: set[str] = set()
    wanted: dict[int, set[str]] = {}
    for anchor in anchors:
        wanted.setdefault(anchor.seq, set()).add(anchor.hash)
    told_purged: set[tuple[int, str]] = set()
    boots = unclean = lost = anchored = 0
    start = beginning(segments(Path(folder)))
    head, faults, last = start, [], 0.0
    boot = ""
    for place in read(folder):
        if isinstance(place, Break):
            faults.append(str(place))
            break
        record = place.record
        head = Head(record.seq, record.hash)
        try:
            if record.kind == "boot":
                boots += 1
                unclean += not record.content.get("clean", True)
            elif record.kind == "gap":
                lost += sum(int(n) for n in record.content.values())
            elif record.kind == "purged":
                told_purged |= {(seq, digest) for _, seq, digest in record.content["segments"]}
            elif record.kind == "erased":
                erased |= set(record.content["inputs"])
            elif isinstance(reference := record.content.get("input"), str):
                named[reference] = record.seq
        except (KeyError, TypeError, ValueError):
            # Its hash fits: somebody has made it who knows how, but not all of it.
            faults.append(f"record {record.seq}: no {record.kind} was ever told like that")
        if record.boot == boot and record.mono < last:
            faults.append(f"record {record.seq}: it was made before the one that it follows")
        boot, last = record.boot, record.mono
        if record.seq in wanted:
            same = wanted.pop(record.seq) == {record.hash}
            anchored = record.seq if same else anchored
            if not same:
                faults.append(f"record {record.seq}: it is not the one that the anchor vouches for")
    if not faults and start.seq and start not in told_purged:
        faults.append(
            f"records 1 to {start.seq} are gone, and no record tells that they were purged"
        )
    if not faults:
        faults += [
            f"record {seq}: an anchor vouches for it, and it is gone"
            for seq, digests in wanted.items()
            if seq > start.seq or (seq == start.seq and digests != {start.hash})
        ]
    if isinstance(vault, Vault):
        faults += _of_inputs(named, erased, vault)
    elif vault is not None and is_vault(vault):
        with closing(Vault(vault)) as opened:
            faults += _of_inputs(named, erased, opened)
    elif vault is not None and (gone := named.keys() - erased):
        faults.append(
            f"{len(gone):,} inputs that records name are not there: {vault} is no vault; restore "
            "it, or give the folder of the log's inputs"
        )
    return Verified(
        head=head,
        purged=start.seq,
        boots=boots,
        unclean=unclean,
        lost=lost,
        anchored=anchored,
        erased=len(erased),
        faults=tuple(faults),
    )


def _of_inputs(named: dict[str, int], erased: set[str], vault: Vault) -> Iterator[str]:
    for reference, seq in named.items():
        why = vault.fault(reference)
        if not why and vault.erased(reference) and reference not in erased:
            why = "it was erased, and no record says so"
        if why:
            yield f"input {reference[:16]}… of record {seq}: {why}"
