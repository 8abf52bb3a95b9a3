"""What goes out of evidence, comes into it, and is removed from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ._evidence_folder import Folder, Inputs, there, vault_of

_LATER = "asked for: the guard that writes this log has not come to it yet, and will"


def export(
    folder: Folder,
    output: Annotated[Path, typer.Option(help="The file to write, a record on a line.")],
    begin: Annotated[int, typer.Option("--from", min=1, help="Its first record.")] = 1,
    end: Annotated[int | None, typer.Option("--to", min=1, help="Its last record.")] = None,
    events: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="As CloudEvents, with this source, e.g. /guard/eu-1."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a range of records to a file, byte for byte, so that their hashes can be checked."""
    import json

    from .._errors import EvidenceError, OutputError
    from ..evidence.log import Break, cloud_event, read

    if output.exists() and not force:
        raise OutputError(f"{output} is already there; use --force to overwrite it")
    part = output.with_name(f".{output.name}.part")
    count = 0
    try:
        with part.open("wb") as out:
            for place in read(there(folder)):
                if isinstance(place, Break):
                    raise EvidenceError(f"{folder} was changed: {place}; nothing is exported")
                if not begin <= place.record.seq <= (end or place.record.seq):
                    continue
                count += 1
                if events is not None:
                    out.write(json.dumps(cloud_event(place.record, events)).encode() + b"\n")
                else:
                    with place.segment.open("rb") as segment:
                        segment.seek(place.begin)
                        out.write(segment.read(place.end - place.begin))
        if not count:
            upto = "on" if end is None else f"to {end}"
            raise EvidenceError(f"{folder} has no record from {begin} {upto}; see `show`")
        part.replace(output)
    except OSError as error:
        raise EvidenceError(
            f"{output} cannot be written: {error.strerror}; give another file"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    typer.echo(f"written: {output} ({count:,} records)", err=True)


def import_(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="CloudEvents of KServe's logger, one a line.")],
) -> None:
    """Write down what KServe's logger saw, in records of kind imported, which are never decisions.

    Requests and answers are joined by their id. The log must have no other writer meanwhile.
    """
    from .._errors import EvidenceError
    from ..evidence.log import Log
    from ..guard.journal import Imports, event_of_json

    bad = 0
    first = ""
    try:
        with file.open("rb") as lines, Log(folder) as log:

            def keep(content: dict[str, Any], _: object) -> bool:
                while not log.append(content, kind="imported"):
                    if not log.flush(60):
                        raise EvidenceError(f"{folder} cannot be written; free space there")
                return True

            imports = Imports(keep, patience=float("inf"))
            for number, line in enumerate(lines, 1):
                try:
                    if line.strip():
                        imports.take(event_of_json(line))
                except EvidenceError as error:
                    bad += 1
                    first = first or f"line {number}: {error}"
            imports.close()
    except OSError as error:
        raise EvidenceError(f"{file} cannot be read: {error.strerror}; give another") from None
    done = imports.counts
    typer.echo(f"imported: {done.pairs:,} pairs, {done.alone:,} without their half", err=True)
    if bad:
        raise EvidenceError(
            f"{file}: {bad:,} of its lines are no such events, the first is {first}"
        )


def erase(
    folder: Folder,
    reference: Annotated[str, typer.Argument(help="The input's reference, as records name it.")],
    why: Annotated[str, typer.Option(help="What the log shall say of the reason.")],
    vault: Inputs = None,
) -> None:
    """Destroy the key of an input for good, and tell so in the log, which still verifies."""
    from .._errors import EvidenceError
    from ..evidence.log import order

    inputs = vault_of(there(folder), vault)
    if inputs is None:
        raise EvidenceError(f"{folder} has no vault; give the folder of its inputs with --vault")
    gone, place = inputs.erased(reference), inputs.folder
    inputs.close()
    if gone:
        raise EvidenceError(f"input {reference[:16]}… is not in the vault; was it erased before?")
    done = order(folder, place, {"do": "erase", "inputs": [reference], "why": why})
    typer.echo(f"erased: {reference}" if done is not None else _LATER, err=True)


def retain(
    folder: Folder,
    inputs: Annotated[
        str | None, typer.Option(help="How long inputs are kept, e.g. 30d; also h, m, s.")
    ] = None,
    records: Annotated[str | None, typer.Option(help="How long records are, e.g. 180d.")] = None,
    vault: Inputs = None,
) -> None:
    """Erase inputs and remove segments of the log that are older; the log tells what was removed.

    It still verifies, from the first record that is left. A guard that is running does it itself.
    """
    from .._errors import ConfigError
    from ..evidence.log import Retention, order

    if inputs is None and records is None:
        raise ConfigError(
            "nothing says how long evidence is kept; give --inputs, --records, or both"
        )
    kept = Retention(inputs=_seconds(inputs), records=_seconds(records))
    found = vault_of(there(folder), vault)
    place = None if found is None else found.folder
    if found is not None:
        found.close()
    done = order(folder, place, {"do": "retain", **vars(kept)})
    if done is None:
        typer.echo(_LATER, err=True)
        return
    typer.echo(
        f"erased: {done['inputs']:,} inputs; removed: {done['records']:,} records in "
        f"{done['segments']:,} segments",
        err=True,
    )


def _seconds(told: str | None) -> float | None:
    from .._errors import ConfigError

    if told is None:
        return None
    try:
        return float(told[:-1]) * {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0}[told[-1:]]
    except (ValueError, KeyError):
        raise ConfigError(f"{told!r} is no time; write e.g. 30d, 12h, 5m or 10s") from None
