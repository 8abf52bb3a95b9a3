"""withstand evidence"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._evidence_changes import erase, export, import_, retain
from ._evidence_folder import Folder, Inputs, place_of, there
from ._streams import put

if TYPE_CHECKING:
    from ..evidence.log import Query, Record, Verified

evidence = typer.Typer(help="Prove, read, export and erase evidence.", no_args_is_help=True)
evidence.command()(export)
evidence.command("import")(import_)
evidence.command()(erase)
evidence.command()(retain)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]


@evidence.callback()
def _group() -> None:
    """Prove, read, export and erase evidence."""


@evidence.command()
def verify(
    folder: Folder,
    vault: Inputs = None,
    anchor: Annotated[
        str | None,
        typer.Option(help="Signed checkpoints kept elsewhere: a file, or s3://bucket/prefix."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="The public key (hex) that signed them.")] = None,
    json: _Json = False,
) -> None:
    """Read every byte of a log and its inputs; exit code 1 where something was changed.

    Without an anchor it shows any change but one: whoever can write the whole log can make another.
    """
    from .._errors import ConfigError
    from ..evidence.log import checkpoints_at
    from ..evidence.log import verify as verified

    if (anchor is None) != (key is None):
        raise ConfigError("--anchor and --key belong together; give both or neither")
    heads = [] if anchor is None or key is None else checkpoints_at(anchor, key)
    found = verified(there(folder), [one.head for one in heads], place_of(folder, vault))
    if json:
        _print({"sound": not found.faults, **asdict(found), "head": found.head._asdict()})
    else:
        put(_story(found))
    if found.faults:
        raise typer.Exit(1)


@evidence.command()
def show(
    folder: Folder,
    kind: Annotated[str | None, typer.Option(help="Only such records, e.g. decision.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only with this value, e.g. tenant=acme; repeatable.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Only this tenant's, whatever else is asked for.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="Only of this API key, by its id or 8 or more characters of its beginning."
        ),
    ] = None,
    decision: Annotated[str | None, typer.Option(help="pass, flag or refuse.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Only of this very input.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only from this time on (ISO 8601, UTC if not said).")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only from before this time.")] = None,
    last: Annotated[int, typer.Option(min=1, help="The most records; the newest are shown.")] = 20,
    json: _Json = False,
) -> None:
    """Show records, the newest last, one on a line; quickly where there is an index."""
    from .._errors import ConfigError
    from ..evidence.log import Query

    if decision not in (None, "pass", "flag", "refuse"):
        raise ConfigError(f"--decision is {decision!r}; it is pass, flag or refuse")
    query = Query(
        kind=kind,
        tenant=tenant,
        key=key,
        decision=decision,
        fingerprint=fingerprint,
        since=_moment(since),
        until=_moment(until),
    )
    found = deque(_chosen(there(folder), query, where or [], last), maxlen=last)
    if json:
        _print([asdict(record) for record in found])
        return
    put("".join(f"{_line(record)}\n" for record in found) or "no such records\n")


@evidence.command()
def index(folder: Folder) -> None:
    """Make or update an index, which `show` then uses; it can be removed at any time."""
    from .._errors import EvidenceError
    from ..evidence.log import Index

    made = Index(there(folder))
    broken = made.update()
    if broken is not None:
        raise EvidenceError(f"{folder} was changed: {broken}; see `withstand evidence verify`")
    typer.echo(f"written: {made.path}", err=True)


def _moment(told: str | None) -> float | None:
    from datetime import UTC, datetime

    from .._errors import ConfigError

    if told is None:
        return None
    try:
        found = datetime.fromisoformat(told)
    except ValueError:
        raise ConfigError(f"{told!r} is no time; write e.g. 2026-01-31T18:00") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _chosen(folder: Path, query: Query, where: list[str], last: int) -> Iterator[Record]:
    from .._errors import ConfigError
    from ..evidence.log import indexed

    pairs = [one.partition("=") for one in where]
    for name, equals, _ in pairs:
        if not equals:
            raise ConfigError(f"--where is {name!r}; write field=value, e.g. tenant=acme")
    found = indexed(folder, query, None if pairs else last)
    for record in _scanned(folder, query) if found is None else found:
        if all(str(record.content.get(name)) == value for name, _, value in pairs):
            yield record


def _scanned(folder: Path, query: Query) -> Iterator[Record]:
    from .._errors import EvidenceError
    from ..evidence.log import Break, read

    for place in read(folder):
        if isinstance(place, Break):
            raise EvidenceError(f"{folder} was changed: {place}; see `withstand evidence verify`")
        if query.matches(place.record):
            yield place.record


def _line(record: Record) -> str:
    import json
    from datetime import UTC, datetime

    # ASCII alone, so that nothing that a client sent steers a terminal.
    when = datetime.fromtimestamp(record.wall, UTC).isoformat(" ", "milliseconds")[:-6]
    return f"{record.seq:>8}  {when}  {record.kind:<9} {json.dumps(record.content)}"


def _story(found: Verified) -> str:
    if found.faults:
        return "".join(f"{fault}\n" for fault in found.faults)
    count = found.head.seq - found.purged
    told = [f"sound: {count:,} records, head {found.head.hash}"]
    if found.purged:
        told.append(
            f"it begins with record {found.purged + 1:,}: those before were removed for their age"
        )
    told.append(
        f"anchored up to record {found.anchored:,}" if found.anchored else
        "not anchored: it is not what it was if somebody wrote all of it anew"
    )  # fmt: skip
    if found.unclean:
        told.append(
            f"{found.unclean} of {found.boots} times the writer had not ended properly: up to a "
            "group of records may be lost each time"
        )
    if found.lost:
        told.append(f"{found.lost:,} records were counted instead of kept, for want of room")
    if found.erased:
        told.append(f"{found.erased:,} inputs were erased")
    return "".join(f"{line}\n" for line in told)


def _print(content: Any) -> None:
    import json

    put(json.dumps(content, indent=2) + "\n")
