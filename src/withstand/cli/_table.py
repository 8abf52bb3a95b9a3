"""withstand table"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from ..config import TableConfig
    from ..threat.tabular import Table

table = typer.Typer(
    help="The file that says what the columns of a table are.", no_args_is_help=True
)
File = Annotated[
    Path | None, typer.Argument(help="The table's file; data.table of --config if not given.")
]
Config = Annotated[Path, typer.Option(help="The configuration that names table and data.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


@table.command()
def check(
    file: File = None,
    data: Annotated[
        Path | None, typer.Argument(help="Rows to check it against: .parquet or .csv.")
    ] = None,
    config: Config = Path("withstand.yaml"),
    json: Json = False,
) -> None:
    """Find rules that make no sense: exit code 1 where there is a problem, notes aside."""
    with interruptible("nothing is changed"):
        from ..data import columns_of
        from ..data.schema import lint, show_findings

        path, rows = _files(file, data, config)
        told, table = _read(path)
        found = lint(told, table, None if rows is None else columns_of(rows, table))
        if json:
            put(_json({"table": str(path), "findings": [one.to_dict() for one in found]}))
        else:
            put(drawn(lambda console: show_findings(found, console)))
        if any(one.level == "problem" for one in found):
            raise typer.Exit(1)


@table.command()
def show(file: File = None, config: Config = Path("withstand.yaml"), json: Json = False) -> None:
    """Tell what the columns are, and what an attacker can do to them."""
    with interruptible("nothing is changed"):
        from ..data.schema import show_table, table_values

        _, table = _read(_files(file, None, config)[0])
        put(_json(table_values(table)) if json else drawn(lambda to: show_table(table, to)))


@table.command()
def histograms(
    file: File = None,
    data: Annotated[
        Path | None, typer.Argument(help="Benign rows, such as for training: .parquet or .csv.")
    ] = None,
    output: Annotated[Path, typer.Option(help="File of the histograms.")] = Path("histograms.json"),
    config: Config = Path("withstand.yaml"),
    json: Json = False,
) -> None:
    """Count what values each column usually has: what a guard's drift is told against."""
    with interruptible("nothing is changed"):
        from .._errors import ConfigError
        from ..data import Histograms, columns_of

        path, source = _files(file, data, config)
        if source is None:
            raise ConfigError("there are no rows to count; name a .parquet or .csv file of them")
        _, table = _read(path)
        found = Histograms.of(table.encode(columns_of(source, table)), table)
        found.save(output, table)
        if json:
            told = {"histograms": str(output), "rows": found.rows}
            put(_json({**told, "features": list(found.features)}))
        else:
            put(f"{output}: {len(found.features)} features of {found.rows:,} rows\n")


def _files(file: Path | None, data: Path | None, config: Path) -> tuple[Path, Path | None]:
    """The table's file and the data."""
    if file is not None:
        return file, data
    from .._errors import ConfigError
    from ..config import load_config

    told = load_config(config).data
    if told.table is None:
        raise ConfigError(f"{config}: data.table is missing; add it, or name the table's file")
    path = None if told.path is None else config.parent / Path(told.path).expanduser()
    return config.parent / Path(told.table).expanduser(), path


def _read(path: Path) -> tuple[TableConfig, Table]:
    from ..config import load_table
    from ..data import table_of

    told = load_table(path)
    return told, table_of(told, str(path))


def _json(values: object) -> str:
    import json

    return json.dumps(values, indent=2, allow_nan=False) + "\n"
