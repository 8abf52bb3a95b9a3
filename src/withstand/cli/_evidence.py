"""withstand evidence"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._streams import put

if TYPE_CHECKING:
    from ..evidence.log import Record, Vault, Verified

evidence = typer.Typer(help="Prove, read, export and erase evidence.", no_args_is_help=True)

_Folder = Annotated[Path, typer.Argument(help="The folder of the log.")]
_Inputs = Annotated[
    Path | None, typer.Option("--vault", help="Its inputs; the folder vault in it if not given.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]


@evidence.callback()
def _group() -> None:
    """Prove, read, export and erase evidence."""


@evidence.command()
def verify(
    folder: _Folder,
    vault: _Inputs = None,
    anchor: Annotated[
        Path | None, typer.Option(help="A file of signed checkpoints that was kept elsewhere.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="The public key (hex) that signed them.")] = None,
    json: _Json = False,
) -> None:
    """Read every byte of a log and its inputs; exit code 1 where something was changed.

    Without an anchor it shows any change but one: whoever can write the whole log can make another.
    """
    from .._errors import ConfigError
    from ..evidence.log import read_checkpoints
    from ..evidence.log import verify as verified

    if (anchor is None) != (key is None):
        raise ConfigError("--anchor and --key belong together; give both or neither")
    heads = [] if anchor is None or key is None else read_checkpoints(anchor, key)
    found = verified(_there(folder), [one.head for one in heads], _vault(folder, vault))
    if json:
        _print({"sound": not found.faults, **asdict(found), "head": found.head._asdict()})
    else:
        put(_story(found))
    if found.faults:
        raise typer.Exit(1)


@evidence.command()
def show(
    folder: _Folder,
    kind: Annotated[str | None, typer.Option(help="Only such records, e.g. decision.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only with this value, e.g. tenant=acme; repeatable.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="The most records; the newest are shown.")] = 20,
    json: _Json = False,
) -> None:
    """Show records, the newest last, one on a line."""
    found = deque(_chosen(_there(folder), kind, where or []), maxlen=last)
    if json:
        _print([asdict(record) for record in found])
        return
    put("".join(f"{_line(record)}\n" for record in found) or "no such records\n")


@evidence.command()
def export(
    folder: _Folder,
    output: Annotated[Path, typer.Option(help="The file to write, a record on a line.")],
    begin: Annotated[int, typer.Option("--from", min=1, help="Its first record.")] = 1,
    end: Annotated[int | None, typer.Option("--to", min=1, help="Its last record.")] = None,
) -> None:
    """Write a range of records to a file, byte for byte, so that their hashes can be checked."""
    from .._errors import EvidenceError
    from ..evidence.log import Break, read

    part = output.with_name(f".{output.name}.part")
    count = 0
    try:
        with part.open("wb") as out:
            for place in read(_there(folder)):
                if isinstance(place, Break):
                    raise EvidenceError(f"{folder} was changed: {place}; nothing is exported")
                if begin <= place.record.seq <= (end or place.record.seq):
                    with place.segment.open("rb") as segment:
                        segment.seek(place.begin)
                        out.write(segment.read(place.end - place.begin))
                    count += 1
        if not count:
            raise EvidenceError(f"{folder} has no record from {begin} to {end}; see `show`")
        part.replace(output)
    except OSError as error:
        raise EvidenceError(
            f"{output} cannot be written: {error.strerror}; give another file"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    typer.echo(f"written: {output} ({count:,} records)", err=True)


@evidence.command()
def erase(
    folder: _Folder,
    reference: Annotated[str, typer.Argument(help="The input's reference, as records name it.")],
    why: Annotated[str, typer.Option(help="What the log shall say of the reason.")],
    vault: _Inputs = None,
) -> None:
    """Destroy the key of an input for good, and tell so in the log, which still verifies."""
    from .._errors import EvidenceError
    from ..evidence.log import Log

    inputs = _vault(_there(folder), vault)
    if inputs is None:
        raise EvidenceError(f"{folder} has no vault; give the folder of its inputs with --vault")
    if inputs.erased(reference):
        raise EvidenceError(f"input {reference[:16]}… is not in the vault; was it erased before?")
    with Log(folder) as log:
        # Told first: a key that is gone without a record would look like a loss.
        log.append({"input": reference, "why": why}, kind="erased")
        if not log.flush():
            raise EvidenceError(f"{folder} cannot be written; nothing is erased")
        inputs.erase(reference)
    typer.echo(f"erased: {reference}", err=True)


def _there(folder: Path) -> Path:
    from .._errors import EvidenceError

    if not any(folder.glob("*.log")):
        raise EvidenceError(f"{folder} holds no evidence log; give the folder that a guard writes")
    return folder


def _vault(folder: Path, given: Path | None) -> Vault | None:
    from ..evidence.log import Vault

    place = folder / "vault" if given is None else given
    return Vault(place) if given is not None or place.is_dir() else None


def _chosen(folder: Path, kind: str | None, where: list[str]) -> Iterator[Record]:
    from .._errors import ConfigError, EvidenceError
    from ..evidence.log import Break, read

    pairs = [one.partition("=") for one in where]
    for name, equals, _ in pairs:
        if not equals:
            raise ConfigError(f"--where is {name!r}; write field=value, e.g. tenant=acme")
    for place in read(folder):
        if isinstance(place, Break):
            raise EvidenceError(f"{folder} was changed: {place}; see `withstand evidence verify`")
        record = place.record
        if kind in (None, record.kind) and all(
            str(record.content.get(name)) == value for name, _, value in pairs
        ):
            yield record


def _line(record: Record) -> str:
    import json
    from datetime import UTC, datetime

    # ASCII alone, so that nothing that a client sent steers a terminal.
    when = datetime.fromtimestamp(record.wall, UTC).isoformat(" ", "milliseconds")[:-6]
    return f"{record.seq:>8}  {when}  {record.kind:<9} {json.dumps(record.content)}"


def _story(found: Verified) -> str:
    if found.faults:
        return "".join(f"{fault}\n" for fault in found.faults)
    told = [f"sound: {found.head.seq:,} records, head {found.head.hash}"]
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
