"""withstand certify"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from ..certify import Certificates
    from ..config import CertifyConfig, Config
    from ..evaluate import Setup

_FILE = "certificates.json"


def certify(
    config: Annotated[Path, typer.Option(help="The configuration.")] = Path("withstand.yaml"),
    output: Annotated[Path | None, typer.Option(help="Folder of certificates.json.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File to go on from; in the output folder if not given.")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(help="Make the certificates in this file again, and compare.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="With --verify: only so many, drawn by --seed.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the noise, or with --verify of the sample.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the certificates as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress, and no word of the files.")
    ] = False,
) -> None:
    """Prove for each input how far no attacker can change the configured model's answer.

    Writes certificates.json, and puts the certified accuracy into the report that is there.
    Interrupted, the same command goes on where it was. With --verify, exit code 1 where something
    differs.
    """
    with interruptible("the same command goes on from its checkpoint"):
        from .._errors import ConfigError
        from ..config import load_config

        configured = load_config(config)
        if verify is not None:
            _verified(configured, config.parent, verify, sample, seed or 0, quiet)
            return
        if configured.certify is None:
            raise ConfigError(
                f"{config}: section certify is missing; add it, e.g. certify: {{method: smoothing, "
                "sigma: 0.25}"
            )
        asked = configured.certify.model_copy(
            update={} if output is None else {"output": str(output.absolute())}
        )
        told, words = _certified(configured, asked, config.parent, checkpoint, seed, quiet)
        put(told.to_json() if json else _story(told))
    if not quiet:
        typer.echo(words, err=True)


def _certified(
    configured: Config,
    asked: CertifyConfig,
    root: Path,
    checkpoint: Path | None,
    seed: int | None,
    quiet: bool,
) -> tuple[Certificates, str]:
    from ..certify import certify as run
    from ..certify import from_config as method_of
    from ..evaluate import check_writable, from_config
    from ._progress import counted

    folder = check_writable(root / (asked.output or configured.evaluate.output))
    setup = from_config(configured, root)
    with counted("certifying", quiet) as progress:
        told = run(
            setup.model,
            setup.data,
            setup.threat,
            method_of(asked, seed),
            checkpoint=checkpoint or folder / "certify-checkpoint",
            progress=progress,
        )
    file = told.save(folder / _FILE)
    return told, _joined(f"written: {file}", root / configured.evaluate.output, told, setup)


def _joined(words: str, report: Path, told: Certificates, setup: Setup) -> str:
    """The certified accuracy in the report that is there, if it is one of the same."""
    from .._errors import DataError
    from ..evaluate import join

    if not (report / "report.json").exists():
        return words
    try:
        joined = join(report, told, setup.model, setup.data)
    except DataError as error:
        return f"{words}\n{report} stays as it is: {error}"
    return (
        f"{words}\n{report}: certified accuracy {joined.certified_accuracy} <= true <= robust "
        f"accuracy {joined.robust_accuracy}"
    )


def _verified(
    configured: Config, root: Path, file: Path, sample: int | None, seed: int, quiet: bool
) -> None:
    from .._errors import DataError
    from ..certify import load_certificates, verify
    from ..evaluate import from_config
    from ._progress import counted

    setup = from_config(configured, root)
    try:
        told = load_certificates(file)
    except DataError as error:
        if not file.exists():
            raise
        put(f"{error}\n")
        raise typer.Exit(1) from None
    with counted("certifying again", quiet) as progress:
        faults = verify(
            told, setup.model, setup.data, setup.threat, sample=sample, seed=seed, progress=progress
        )
    if faults:
        put("".join(f"{fault}\n" for fault in faults))
        raise typer.Exit(1)
    n = len(told.certificates)
    put(f"the same: {min(sample or n, n):,} of {n:,} certificates, made again\n")


def _story(told: Certificates) -> str:
    from ..certify import show

    return drawn(lambda console: show(told, console))
