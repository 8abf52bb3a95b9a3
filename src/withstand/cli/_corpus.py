"""withstand corpus"""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._corpus_changes import add, export, import_, label, trust
from ._corpus_folder import Config, Folder, opened
from ._streams import drawn, put

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ..evidence import Entry, Version

_HELP = "Adversarial and flagged inputs that were kept: look at them, add, label and exchange them."

corpus = typer.Typer(help=_HELP, no_args_is_help=True)
corpus.command()(add)
corpus.command()(label)
corpus.command()(export)
corpus.command("import")(import_)
corpus.command()(trust)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]


@corpus.callback(help=_HELP)
def _group() -> None:
    pass


@corpus.command("list")
def list_(
    config: Config = Path("withstand.yaml"), folder: Folder = None, json: _Json = False
) -> None:
    """List the versions: when each was written, by what, and how much it added."""
    here = opened(config, folder)
    versions = here.versions()
    if json:
        _print([{**asdict(v), "shards": [asdict(s) for s in v.shards]} for v in versions])
    else:
        put(drawn(lambda console: _show_versions(versions, console)))


@corpus.command()
def show(
    version: Annotated[
        int | None, typer.Argument(help="All entries up to this version; the newest if not given.")
    ] = None,
    config: Config = Path("withstand.yaml"),
    folder: Folder = None,
    limit: Annotated[
        int, typer.Option(min=1, help="The most entries in the table; JSON has all.")
    ] = 50,
    json: _Json = False,
) -> None:
    """Show entries: label and answer, what made them, and whether 8 bits keep them."""
    here = opened(config, folder)
    if json:
        _print([asdict(entry) for entry in here.entries(version, distrusted=True)])
        return
    versions = here.versions()
    total = versions[version - 1 if version else -1].total if versions else 0
    entries = list(islice(here.entries(version, distrusted=True), limit))
    put(drawn(lambda console: _show_entries(entries, total, console)))


@corpus.command()
def verify(
    config: Config = Path("withstand.yaml"), folder: Folder = None, json: _Json = False
) -> None:
    """Read every byte and check it against the digests; exit code 1 where something is wrong."""
    here = opened(config, folder)
    faults = here.verify()
    head = None if faults else here.head
    told = {
        "sound": not faults,
        "version": head.number if head else None,
        "digest": head.digest if head else None,
        "entries": head.total if head else None,
        "faults": list(faults),
    }
    if json:
        _print(told)
    elif faults:
        put("".join(f"{fault}\n" for fault in faults))
    else:
        entries = f"{told['entries']:,} entries" if head else "no entries"
        put(f"sound: {entries} in version {told['version'] or 0}, digest {told['digest'] or '-'}\n")
    if faults:
        raise typer.Exit(1)


@corpus.command()
def card(
    output: Annotated[
        Path | None, typer.Option(help="The file to write; standard output if not given.")
    ] = None,
    title: Annotated[
        str, typer.Option(help="Its first line; the folder's name if not given.")
    ] = "",
    licence: Annotated[str, typer.Option(help="Under what it may be used.")] = "",
    config: Config = Path("withstand.yaml"),
    folder: Folder = None,
) -> None:
    """Write a data card in Markdown: what is in it, where that comes from, and its limits."""
    from .._errors import OutputError
    from ..evidence import card as written

    text = written(opened(config, folder), title=title, licence=licence)
    if output is None:
        put(text)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise OutputError(
            f"{output} cannot be written: {error.strerror}; give another file"
        ) from None
    typer.echo(f"written: {output}", err=True)


def _print(content: Any) -> None:
    import json

    put(json.dumps(content, indent=2) + "\n")


def _cell(value: object) -> Text:
    """A value of unknown origin, without what could steer a terminal."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else "\ufffd" for c in str(value)))


def _show_versions(versions: tuple[Version, ...], console: Console) -> None:
    from rich.table import Table

    table = Table("version", "time (UTC)", "added", "in all", "model", "digest", box=None)
    for version in versions:
        models = {shard.origin.model[:12] for shard in version.shards}
        table.add_row(
            str(version.number),
            version.time[:19].replace("T", " "),
            f"{version.entries:,}",
            f"{version.total:,}",
            _cell(", ".join(sorted(models))),
            version.digest[:12],
        )
    console.print(table if versions else "no versions yet")


def _show_entries(entries: list[Entry], total: int, console: Console) -> None:
    from rich.table import Table

    table = Table("version", "entry", "label", "answer", "8 bit", "made by", box=None)
    table.add_column("distance", justify="right")
    for entry in entries:
        kept = {None: "-", True: "still fools", False: "no longer"}[entry.survives_8bit]
        table.add_row(
            str(entry.version),
            entry.digest[:12],
            _cell(entry.label),
            _cell(entry.answer),
            kept,
            _cell(entry.attack + (", imported" if entry.origin.imported else "")),
            "-" if entry.distance is None else f"{entry.distance:.4g}",
        )
    console.print(table if entries else "no entries yet")
    if total > len(entries):
        console.print(f"{len(entries):,} of {total:,} entries; --limit shows more, --json all")
