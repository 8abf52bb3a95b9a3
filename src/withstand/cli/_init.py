"""withstand init"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def init(
    config: Annotated[Path, typer.Option(help="The file to write.")] = Path("withstand.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files.")] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model's file (.onnx, .pt, .json, ...), its address (http://...), or "
            "file.py:callable that returns it.",
            metavar="MODEL",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="The data: an .npz file, a folder of images or .wav files, or a .parquet or .csv "
            "table, for which a table.yaml is proposed.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The column of labels, of a table.", metavar="COLUMN")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="The table's file to write; table.yaml beside the configuration."),
    ] = None,
) -> None:
    """Write a commented withstand.yaml to start from, and for a table its table.yaml too."""
    from .._errors import ConfigError
    from ..config import template

    named = _named(model, config.parent) if model is not None else None
    if source is not None and source.suffix.lower() in (".csv", ".parquet"):
        _table(config, force, named, source, target, table or config.parent / "table.yaml")
        return
    for option, given in (("--target", target), ("--table", table)):
        if given is not None:
            raise ConfigError(
                f"{option} goes with --from and a table; give --from data.parquet, too"
            )
    told: dict[str, Any] = dict(named or {})
    unsure: tuple[str, ...] = ()
    if source is not None:
        from ..data import see

        seen = see(source)
        told |= {"data": seen.kind, "path": _beside(source, config.parent)}
        told |= {"x": seen.x, "y": seen.y, "scale": seen.scale}
        low, high = seen.domain
        told |= {"domain": f"[{low:g}, {high:g}]", "eps": f"{8 * (high - low):g}/255"}
        unsure = seen.unsure
    _free([config], force)
    _write({config: template(**told)})
    for doubt in unsure:
        typer.echo(doubt, err=True)
    if "factory" in told and "weights" in told:
        typer.echo(
            f"set model.factory to what builds the network of {model}; if that file holds all of "
            "it, take factory out and set allow_pickle: true",
            err=True,
        )
    todo = "correct its paths" if model is None or source is None else "read and correct it"
    typer.echo(f"{config} written; {todo}, then run: withstand evaluate", err=True)


def _table(
    config: Path,
    force: bool,
    model: dict[str, Any] | None,
    source: Path,
    target: str | None,
    table: Path,
) -> None:
    from .._errors import ConfigError
    from ..data.schema import config_text, propose, table_text

    if table.resolve() == config.resolve():
        raise ConfigError(f"--table and --config are both {table}; give two files")
    _free([table, config], force)
    found = propose(source, target)
    folder = config.parent
    paths = {"path": _beside(source, folder), "table": _beside(table, folder)}
    _write({table: table_text(found), config: config_text(found, model=model, **paths)})
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


def _named(model: str, folder: Path) -> dict[str, Any]:
    """The keys that open a model; its files must be there."""
    from .._errors import ConfigError
    from ..config import model_named

    keys = model_named(model)
    weights, (place, _, name) = keys.get("weights"), model.rpartition(":")
    for file in (weights, place if place.endswith(".py") else None):
        if file is not None and not Path(file).exists():
            raise ConfigError(f"--model {file} is not there; correct it")
    if weights is not None:
        keys["weights"] = _beside(Path(weights), folder)
    elif place.endswith(".py"):
        keys["factory"] = f"{_beside(Path(place), folder)}:{name}"
    return keys


def _beside(path: Path, folder: Path) -> str:
    """A path as a file in a folder names it: relative where it lies below."""
    whole, root = path.resolve(), folder.resolve()
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else str(whole)


def _free(paths: list[Path], force: bool) -> None:
    from .._errors import OutputError

    for path in paths:
        if path.exists() and not force:
            raise OutputError(f"{path} is already there; use --force to overwrite it")


def _write(files: dict[Path, str]) -> None:
    from .._errors import OutputError
    from .._whole import together

    try:
        together({path: text.encode() for path, text in files.items()})
    except OSError as error:
        names = " and ".join(map(str, files))
        raise OutputError(
            f"{names} cannot be written: {error.strerror}; give another --config"
        ) from None
