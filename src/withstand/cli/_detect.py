"""withstand detect"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._detect_evaluate import evaluate
from ._detect_reliability import reliability
from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from ..config import Config
    from ..detect import Detector

detect = typer.Typer(help="Tell inputs that look like an attack.", no_args_is_help=True)
detect.command()(evaluate)
detect.command()(reliability)

_Config = Annotated[Path, typer.Option(help="The configuration.")]
_Output = Annotated[
    Path | None, typer.Option(help="Folder of the detector; detect.output if not given.")
]
_Force = Annotated[
    bool, typer.Option("--force", help="Keep it although the power report says it cannot work.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
_Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, and no word of the files.")]


@detect.callback()
def _group() -> None:
    """Tell inputs that look like an attack."""


@detect.command()
def fit(
    config: _Config = Path("withstand.yaml"),
    output: _Output = None,
    force: _Force = False,
    json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Fit the configured detector to benign inputs, calibrate it, and ask whether it can work.

    Writes detector.json and state.safetensors. Exit code 1, and nothing is written, where the power
    report says that it cannot work on this model, unless forced.
    """
    with interruptible("nothing is written"):
        configured, folder = _configured(config, output)
        from ..detect import asked_of, fitted, from_config
        from ._progress import shown

        setup = from_config(configured, config.parent)
        with shown(quiet) as progress:
            detector = fitted(setup, asked_of(configured), progress)
        _finish(detector, setup.held_out, setup.threat, configured, folder, force, json, quiet)


@detect.command()
def calibrate(
    data: Annotated[
        Path | None,
        typer.Option(help="New benign inputs: .npz, .csv, .parquet; detect.calibration if absent."),
    ] = None,
    config: _Config = Path("withstand.yaml"),
    output: _Output = None,
    force: _Force = False,
    json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Take a new threshold from new benign inputs; the old one is kept on record.

    Says what the old and the new one flag. Exit code 1, and nothing is written, where the detector
    cannot work with the new one, unless forced.
    """
    with interruptible("nothing is written"):
        configured, folder = _configured(config, output)
        from ..detect import asked_of, calibration_data, load

        asked = asked_of(configured)
        model, benign, threat = calibration_data(configured, config.parent, data)
        old = load(folder, model)
        change = old.calibrate if old.threshold is None else old.recalibrate
        detector = change(
            benign, fpr=asked.fpr, confidence=asked.confidence, by_class=asked.by_class
        )
        _finish(detector, benign, threat, configured, folder, force, json, quiet)


@detect.command()
def score(
    file: Annotated[Path, typer.Argument(help="Inputs: .npz, .csv, .parquet, or a folder.")],
    config: _Config = Path("withstand.yaml"),
    output: _Output = None,
    limit: Annotated[
        int, typer.Option(min=1, help="The most inputs in the table; JSON has all.")
    ] = 50,
    json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each input, and nothing else.")
    ] = False,
) -> None:
    """Score inputs, and say which of them are flagged.

    The file is read as `data` says: its keys, columns and scale. The suspicion is by how much a
    score exceeds the threshold; an input is flagged where it is above 0.
    """
    with interruptible("nothing was written"):
        configured, folder = _configured(config, output)
        from ..data import load_inputs
        from ..detect import load, scored
        from ..evaluate import from_config

        inputs = load_inputs(file, configured.data, config.parent)
        detector = load(folder, from_config(configured, config.parent).model)
        rows = scored(detector, inputs)
        put(_lines(rows) if json else _table(rows, limit))


def _configured(config: Path, output: Path | None) -> tuple[Config, Path]:
    from .._errors import ConfigError
    from ..config import load_config

    configured = load_config(config)
    if configured.detect is None:
        raise ConfigError(
            f"{config}: section detect is missing; add it, e.g. detect: {{methods: [mahalanobis]}}"
        )
    return configured, output or config.parent / configured.detect.output


def _finish(
    detector: Detector,
    benign: Any,
    threat: Any,
    configured: Config,
    folder: Path,
    force: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Ask for its power, print what is known of it, and write it if it may be kept."""
    from dataclasses import replace

    from ..detect import asked_of, power
    from ..evaluate import check_writable

    asked = asked_of(configured)
    check_writable(folder)
    found = power(detector, benign, threat, seed=asked.seed)
    kept = not found.red or force
    detector = replace(detector, power=replace(found, forced=kept and bool(found.red)))
    put(_json(detector, kept) if json else _story(detector, asked.requests_per_day))
    if not kept:
        typer.echo("nothing is written: it cannot work as it is; --force keeps it", err=True)
        raise typer.Exit(1)
    files = detector.save(folder)
    if not quiet:
        typer.echo(f"written: {', '.join(str(file) for file in files)}", err=True)


def _json(detector: Detector, kept: bool) -> str:
    from json import dumps

    return dumps({**detector.to_dict(), "kept": kept}, indent=2, allow_nan=False) + "\n"


def _story(detector: Detector, requests_per_day: int | None) -> str:
    from ..detect import show_detector

    return drawn(
        lambda console: show_detector(detector, console, requests_per_day=requests_per_day)
    )


def _lines(rows: list[dict[str, Any]]) -> str:
    from json import dumps

    return "".join(dumps(row, allow_nan=False) + "\n" for row in rows)


def _table(rows: list[dict[str, Any]], limit: int) -> str:
    def draw(console: Any) -> None:
        from rich.table import Table

        table = Table("row", "score", "suspicion", "answer", "flagged", box=None)
        for row in rows[:limit]:
            answer = "-" if row["answer"] is None else str(row["answer"])
            figures = (f"{row[key]:.6g}" for key in ("score", "suspicion"))
            table.add_row(str(row["row"]), *figures, answer, "flagged" if row["flagged"] else "")
        console.print(table)
        if len(rows) > limit:
            console.print(f"{limit:,} of {len(rows):,} inputs; --limit shows more, --json all")
        flagged = sum(row["flagged"] for row in rows)
        console.print(f"{flagged:,} of {len(rows):,} inputs flagged", highlight=False)

    return drawn(draw)
