"""withstand init"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    config: Annotated[Path, typer.Option(help="The file to write.")] = Path("withstand.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files.")] = False,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A .parquet or .csv table to propose a table's file from."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The column of labels; with --from.", metavar="COLUMN")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="The table's file to write; table.yaml beside the configuration."),
    ] = None,
) -> None:
    """Write a commented withstand.yaml to start from, and with --from a table.yaml too."""
    from .._errors import ConfigError

    if source is None:
        from ..config import template

        for option, given in (("--target", target), ("--table", table)):
            if given is not None:
                raise ConfigError(f"{option} goes with --from; give --from data.parquet, too")
        _free([config], force)
        _write({config: template()})
        typer.echo(f"{config} written; correct its paths, then run: withstand evaluate", err=True)
        return
    from ..data.schema import beside, config_text, propose, table_text

    table = table or config.parent / "table.yaml"
    if table.resolve() == config.resolve():
        raise ConfigError(f"--table and --config are both {table}; give two files")
    _free([table, config], force)
    found = propose(source, target)
    folder = config.parent
    _write(
        {
            table: table_text(found),
            config: config_text(found, path=beside(source, folder), table=beside(table, folder)),
        }
    )
    for one in found.left_out:
        typer.echo(f"column {one.name!r} is left out: it {one.left_out}", err=True)
    if found.target is None:
        typer.echo("no column of labels is known; name it as data.y, or give --target", err=True)
    elif target is None:
        typer.echo(f"{found.target!r} is taken for the labels; else give --target", err=True)
    typer.echo(
        f"{table} and {config} written; read and correct both, then run: withstand table check",
        err=True,
    )


def _free(paths: list[Path], force: bool) -> None:
    from .._errors import OutputError

    for path in paths:
        if path.exists() and not force:
            raise OutputError(f"{path} is already there; use --force to overwrite it")


def _write(files: dict[Path, str]) -> None:
    """All of them or none: each is whole before the first takes its place."""
    import os

    from .._errors import OutputError

    ready: list[tuple[Path, Path]] = []
    try:
        for path, text in files.items():
            new = path.with_name(f".{path.name}.{os.getpid()}.new")
            ready.append((new, path))
            with new.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        for new, path in ready:
            new.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}; give another --config"
        ) from None
    finally:
        for new, _ in ready:
            new.unlink(missing_ok=True)
