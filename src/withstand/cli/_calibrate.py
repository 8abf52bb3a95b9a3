"""withstand calibrate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._errors import listed
from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config import Config
    from ..evaluate.calibration import Calibration, ColumnFit, Judgement, Price, Samples

_HELP = "An .npz file with x, or a .csv or .parquet table: "
File = Path | None


def calibrate(
    config: Annotated[
        Path | None,
        typer.Option(help="The configuration to judge; withstand.yaml, if there is one."),
    ] = None,
    pairs: Annotated[File, typer.Option(help="An .npz file with x and x_adv.")] = None,
    original: Annotated[File, typer.Option(help=f"{_HELP}the originals, in order.")] = None,
    attacked: Annotated[File, typer.Option(help=f"{_HELP}what became of them.")] = None,
    benign: Annotated[File, typer.Option(help=f"{_HELP}benign rows.")] = None,
    suspected: Annotated[File, typer.Option(help=f"{_HELP}suspected rows.")] = None,
    before: Annotated[File, typer.Option(help=f"{_HELP}benign rows.")] = None,
    after: Annotated[File, typer.Option(help=f"{_HELP}benign rows of a later time.")] = None,
    coverage: Annotated[
        float | None,
        typer.Option(help="Share that the radii hold; 0.95 of pairs, 0.9 without pairs."),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="linf, l2, l1 or l0; the threat's if not given.")
    ] = None,
    factor: Annotated[
        str | None,
        typer.Option(
            help="With --benign and --suspected tables: by what factor this column is multiplied.",
            metavar="COLUMN",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="With --factor: the column of accounts.", metavar="COLUMN"),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns of tables to compare, with commas; else all.")
    ] = None,
    categories: Annotated[
        str | None, typer.Option(help="Columns of numbers that are categories, with commas.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Raw values are divided by this.")] = 1.0,
    report: Annotated[
        File, typer.Option(help="The report.json that prices are read from; the last one's.")
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Price the radii by short evaluations instead.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Write the radius into the configuration.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No word of what is written.")] = False,
) -> None:
    """Find out how far attacks really move inputs, and whether the present radius fits.

    Give pairs of originals and attacked inputs (--pairs, or --original and --attacked), unpaired
    samples (--benign and --suspected), or benign data of two times (--before and --after). With
    --factor and --by, attacked rows are compared with benign ones of the same accounts. Where
    threat.region has no norm, the largest changes in the table's file are judged instead.
    """
    given = {
        ("--pairs",): (pairs,),
        ("--original", "--attacked"): (original, attacked),
        ("--benign", "--suspected"): (benign, suspected),
        ("--before", "--after"): (before, after),
    }
    with interruptible("nothing is written"):
        if factor is not None or by is not None:
            put(_factor(_way(given), factor, by, write or evaluate or norm is not None, json))
            return
        path, settings = _settings(config, norm, write or evaluate or report is not None)
        way, files = _way(given)
        samples = _read(files, scale, _names(columns), _names(categories))
        if samples.lone and not quiet:
            typer.echo(f"not compared, as only one table has it: {listed(samples.lone)}", err=True)
        found = _calibrated(way, samples, coverage)
        judged = None
        chosen = norm if settings is None else norm or settings.threat.region.norm
        table = _table(path, settings) if chosen is None else None
        if chosen is None and (evaluate or report is not None or (write and table is None)):
            from .._errors import ConfigError

            wrong = "--evaluate and --report" if table else "--write, --evaluate and --report"
            raise ConfigError(
                f"{path}: threat.region has no norm; give --norm, or take {wrong} out"
            )
        if settings is not None and chosen is not None:
            judged = _judged(found, samples, settings, path, chosen, report, evaluate)
        allowed = None if table is None else _columns(found, table, scale)
        put(_json(found, judged, allowed) if json else _story(found, judged, allowed))
        if write and judged is not None:
            _write(path, found, judged, quiet)
        if write and table is not None and allowed is not None:
            _write_columns(table, allowed, quiet)


def _factor(
    way: tuple[str, tuple[Path, ...]], column: str | None, by: str | None, more: bool, json: bool
) -> str:
    from .._errors import ConfigError
    from ..evaluate.calibration import calibrate_factor, read_factor, show_factor

    option, files = way
    if column is None or by is None:
        missing = "--factor" if column is None else "--by"
        raise ConfigError(f"{missing} is missing; give both --factor COLUMN and --by COLUMN")
    if option != "--benign" or more:
        raise ConfigError(
            "--factor goes with --benign and --suspected, and not with --norm, --write or "
            "--evaluate; take the others out"
        )
    found = calibrate_factor(*read_factor(files[0], files[1], column, by), column=column)
    return found.to_json() if json else drawn(lambda console: show_factor(found, console))


def _settings(config: Path | None, norm: str | None, needed: bool) -> tuple[Path, Config | None]:
    from .._errors import ConfigError, did_you_mean
    from ..config import load_config

    norms = ("linf", "l2", "l1", "l0")
    if norm is not None and norm not in norms:
        raise ConfigError(
            f"--norm is {norm!r}{did_you_mean(norm, norms) or ';'} it is one of {', '.join(norms)}"
        )
    path = config or Path("withstand.yaml")
    if config is None and not needed and not path.exists():
        return path, None
    return path, load_config(path)


_WAYS = (
    "--pairs, or --original and --attacked, where each attacked input is known beside its "
    "original; --benign and --suspected where it is not; or --before and --after for drift alone"
)


def _way(given: dict[tuple[str, ...], tuple[File, ...]]) -> tuple[str, tuple[Path, ...]]:
    """The first option of the one set that is given, with its files."""
    from .._errors import ConfigError

    used = {options: files for options, files in given.items() if any(files)}
    if len(used) != 1:
        what = "no samples are given" if not used else f"{len(used)} kinds of samples are given"
        raise ConfigError(f"{what}; give {_WAYS}")
    options, files = next(iter(used.items()))
    found = tuple(file for file in files if file is not None)
    if len(found) < len(files):
        missing = options[files.index(None)]
        raise ConfigError(f"{missing} is missing; give it beside {options[files[0] is None]}")
    return options[0], found


def _names(words: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(",")) if words else ()


def _read(
    files: tuple[Path, ...], scale: float, columns: tuple[str, ...], categories: tuple[str, ...]
) -> Samples:
    from ..evaluate.calibration import read_pairs, read_samples

    if len(files) == 1:
        return read_pairs(files[0], scale=scale)
    return read_samples(*files, scale=scale, columns=columns, categories=categories)


def _calibrated(way: str, samples: Samples, coverage: float | None) -> Calibration:
    from ..evaluate.calibration import calibrate_pairs, calibrate_samples

    options: dict[str, Any] = {"names": samples.names, "kinds": samples.kinds}
    if coverage is not None:
        options["coverage"] = coverage
    if way in ("--pairs", "--original"):
        return calibrate_pairs(samples.first, samples.second, **options)
    return calibrate_samples(samples.first, samples.second, drift=way == "--before", **options)


def _judged(
    found: Calibration,
    samples: Samples,
    settings: Config,
    path: Path,
    norm: str,
    report: Path | None,
    evaluate: bool,
) -> Judgement:
    from ..evaluate import threat_from
    from ..evaluate.calibration import advised, judge, outside

    present = settings.threat.region
    eps = present.eps if norm == present.norm else None
    missed = None
    # Codes of categories have no distance that a region could contain.
    if found.source == "pairs" and eps is not None and "categorical" not in (samples.kinds or ()):
        missed = outside(threat_from(settings, path.parent).region, samples.first, samples.second)
    radii = sorted({eps or 0.0, advised(found, norm)} - {0.0})
    prices = _prices(settings, path, norm, radii, report, evaluate)
    return judge(found, norm, eps, outside=missed, prices=prices)


def _prices(
    settings: Config,
    path: Path,
    norm: str,
    radii: list[float],
    report: Path | None,
    evaluate: bool,
) -> list[Price]:
    from ..evaluate import from_config, read_report
    from ..evaluate.calibration import measure, price

    if evaluate:
        setup = from_config(settings, path.parent)
        return measure(
            setup.model, setup.data, setup.threat, norm, radii, seed=settings.evaluate.seed
        )
    last = path.parent / settings.evaluate.output / "report.json"
    if report is None and not last.exists():
        return []
    told = read_report(report or last)
    if report is None and told["threat"]["norm"] != norm:
        return []
    return price(told, norm, radii)


def _write(path: Path, found: Calibration, judged: Judgement, quiet: bool) -> None:
    from .._errors import DataError
    from ..evaluate.calibration import set_region

    if not found.moved:
        raise DataError(f"nothing is written to {path}: {judged.meaning}; {judged.fix}")
    old = set_region(path, eps=judged.advised, norm=judged.norm)
    if not quiet:
        typer.echo(f"{path}: threat.region.eps was {old}, is {judged.advised:g}", err=True)


def _table(path: Path, settings: Config | None) -> Path | None:
    """The file of the configured table."""
    if settings is None or settings.data.table is None:
        return None
    return path.parent / Path(settings.data.table).expanduser()


def _columns(found: Calibration, table: Path, scale: float) -> tuple[ColumnFit, ...]:
    from .._errors import ConfigError
    from ..data import load_table
    from ..evaluate.calibration import judge_columns

    if scale != 1.0:
        raise ConfigError(
            f"--scale is {scale:g}, and {table.name} has the units of the rows; take it out"
        )
    return judge_columns(found, load_table(table))


def _write_columns(table: Path, columns: Sequence[ColumnFit], quiet: bool) -> None:
    from ..evaluate.calibration import advised_changes, set_most

    wanted = advised_changes(columns)
    if not wanted and not quiet:
        typer.echo(f"nothing is written to {table}: no largest change has to be another", err=True)
    for name, old in set_most(table, wanted).items() if wanted else ():
        if not quiet:
            was = "not there" if old is None else old
            typer.echo(f"{table}: most of {name} was {was}, is {wanted[name]:g}", err=True)


def _json(found: Calibration, judged: Judgement | None, columns: Sequence[ColumnFit] | None) -> str:
    import json

    values = {
        **found.to_dict(),
        "judgement": judged and judged.to_dict(),
        "columns": None if columns is None else [one.to_dict() for one in columns],
    }
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def _story(
    found: Calibration, judged: Judgement | None, columns: Sequence[ColumnFit] | None
) -> str:
    from ..evaluate.calibration import show

    return drawn(lambda console: show(found, judged, console, columns))
