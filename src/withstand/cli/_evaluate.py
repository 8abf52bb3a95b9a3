"""withstand evaluate"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._layers import layered
from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from ..evaluate import Report, Setup


def evaluate(
    config: Annotated[Path, typer.Option(help="The configuration.")] = Path("withstand.yaml"),
    preset: Annotated[
        str | None, typer.Option(help="smoke, standard or thorough: how much is spent.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Time limit in all.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the report.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File to go on from; in the output folder if not given.")
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Folder of kept examples, shown first and added to.")
    ] = None,
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Also without each of the defences and the detector."),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress, and no word of the files.")
    ] = False,
) -> None:
    """Find out how easily the configured model is fooled.

    Writes report.json, report.html, adversarial.npz and, of a table, adversarial.csv. Interrupted,
    the same command goes on where it was. With --layers, it writes layers.json instead.
    """
    given = {
        "preset": preset,
        "seed": seed,
        "seconds": seconds,
        "output": None if output is None else str(output.absolute()),
        "checkpoint": None if checkpoint is None else str(checkpoint.absolute()),
        "corpus": None if corpus is None else str(corpus.absolute()),
    }
    if layers:
        with interruptible("nothing is kept; start it again"):
            put(layered(config, given, json=json, quiet=quiet))
        return
    with interruptible("the same command goes on from its checkpoint"):
        report, files = _evaluated(config, given, quiet)
        put(report.to_json() if json else _story(report))
    if not quiet:
        typer.echo(f"written: {', '.join(str(file) for file in files)}", err=True)


def _evaluated(config: Path, given: dict[str, Any], quiet: bool) -> tuple[Report, list[Path]]:
    from ..config import load_config

    configured = load_config(config, {"evaluate": given})
    settings, root = configured.evaluate, config.parent

    # These take seconds to import: what is wrong with the configuration is said before.
    from ..evaluate import check_writable, cost_beside, from_config
    from ..evaluate import evaluate as run
    from ..threat import Budget
    from ._progress import shown

    folder = check_writable(root / settings.output)
    setup = from_config(configured, root)
    saved = settings.checkpoint
    with shown(quiet) as progress:
        report = run(
            setup.model,
            setup.data,
            setup.threat,
            preset=settings.preset,
            seed=settings.seed,
            surrogates=setup.surrogates,
            corpus=None if settings.corpus is None else root / settings.corpus,
            budget=Budget(seconds=settings.seconds),
            batch_size=settings.batch_size or 64,
            severity=settings.severity,
            checkpoint=folder / "checkpoint" if saved is None else root / saved,
            progress=progress,
        )
    if configured.model.weights is not None:
        told = report.provenance["model"]
        report = replace(report, training=cost_beside(root / configured.model.weights, told))
    files = report.save(folder)
    asked = configured.certify
    certificates = root / ((asked and asked.output) or settings.output) / "certificates.json"
    if asked is None or not certificates.exists():
        return report, files
    return _certified(report, folder, certificates, setup, quiet), files


def _certified(
    report: Report, folder: Path, certificates: Path, setup: Setup, quiet: bool
) -> Report:
    """The report with what is proven, where the certificates are of the same."""
    from .._errors import DataError
    from ..certify import load_certificates
    from ..evaluate import save_joined

    try:
        return save_joined(report, folder, load_certificates(certificates), setup.model)
    except DataError as error:
        if not quiet:
            typer.echo(f"{certificates} is left out: {error}", err=True)
        return report


def _story(report: Report) -> str:
    from ..evaluate import show

    return drawn(lambda console: show(report, console))
