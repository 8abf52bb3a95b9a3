"""withstand detect evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from ..detect.evaluation import DetectionReport


def evaluate(
    config: Annotated[Path, typer.Option(help="The configuration.")] = Path("withstand.yaml"),
    detector: Annotated[
        Path | None, typer.Option(help="Folder of the detector; detect.output if not given.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the report; evaluate.output if not given.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="smoke, standard or thorough: how much is spent.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of all randomness.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Inputs that are attacked.")] = 200,
    radius: Annotated[
        list[float] | None,
        typer.Option(help="Share of the threat's radius to attack at; may be repeated."),
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="Benign requests a day, for the expected alarms.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress, and no word of the files.")
    ] = False,
) -> None:
    """Find out what the detector stops: attacks that do not know of it, and attacks that do.

    Writes detection.json and detection.html. Exit code 3 where nothing could be shown. Interrupted,
    the same command goes on where it was.
    """
    with interruptible("the same command goes on from its checkpoint"):
        report, files = _evaluated(
            config, detector, output, preset, seed, samples, radius, requests, quiet
        )
        put(report.to_json() if json else _story(report))
    if not quiet:
        typer.echo(f"written: {', '.join(str(file) for file in files)}", err=True)
    if report.verdict.level == "not shown":
        raise typer.Exit(3)


def _evaluated(
    config: Path,
    detector: Path | None,
    output: Path | None,
    preset: str | None,
    seed: int | None,
    samples: int,
    radius: list[float] | None,
    requests: int | None,
    quiet: bool,
) -> tuple[DetectionReport, list[Path]]:
    from ..config import load_config

    configured, root = load_config(config), config.parent
    from ..detect import asked_of, from_config, load
    from ..detect.evaluation import evaluate_detector
    from ..evaluate import check_writable
    from ._progress import shown

    asked, settings = asked_of(configured), configured.evaluate
    folder = check_writable(output or root / settings.output)
    setup = from_config(configured, root)
    fitted = load(detector or root / asked.output, setup.model)
    with shown(quiet) as progress:
        report = evaluate_detector(
            fitted,
            setup.data,
            setup.threat,
            preset=preset or settings.preset,
            seed=settings.seed if seed is None else seed,
            samples=samples,
            radii=tuple(radius or (0.5, 1.0)),
            known=(setup.benign, setup.held_out),
            requests=requests or asked.requests_per_day or 100_000,
            batch_size=settings.batch_size or 64,
            checkpoint=folder / "detect-checkpoint",
            progress=progress,
        )
    return report, report.save(folder)


def _story(report: DetectionReport) -> str:
    from ..detect.evaluation import show

    return drawn(lambda console: show(report, console))
