"""withstand compare"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from ..workflows import Comparison


def compare(
    config: Annotated[Path, typer.Option(help="The configuration.")] = Path("withstand.yaml"),
    preset: Annotated[
        str | None, typer.Option(help="smoke, standard or thorough: how much is spent.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many inputs.")
    ] = None,
    unseen: Annotated[
        bool, typer.Option(help="Also attack in ways that nothing was made for.")
    ] = True,
    transfer: Annotated[
        bool, typer.Option("--transfer", help="Also show who fools whom: the transfer matrix.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the result; withstand-compare if not given.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress, and no word of the files.")
    ] = False,
) -> None:
    """Find out what each defence adds to the configured model, and what it costs.

    Puts the entries under `compare:` beside the model, each attacked by somebody who knows it, and
    certified where the file has a section `certify:`.
    Writes comparison.json and comparison.html. Interrupted, the same command goes on where it was.
    """
    given = {"evaluate": {"preset": preset, "seed": seed}}
    with interruptible("the same command goes on where it was"):
        found, files = _compared(config, given, samples, unseen, transfer, output, quiet)
        put(found.to_json() if json else _story(found))
    if not quiet:
        typer.echo(f"written: {', '.join(str(file) for file in files)}", err=True)


def _compared(
    config: Path,
    given: dict[str, dict[str, Any]],
    samples: int | None,
    unseen: bool,
    transfer: bool,
    output: Path | None,
    quiet: bool,
) -> tuple[Comparison, list[Path]]:
    from ..config import load_config

    configured = load_config(config, given)

    # These take seconds to import: what is wrong with the configuration is said before.
    from ..certify import from_config as method_of
    from ..evaluate import check_writable
    from ..workflows import compare as run
    from ..workflows import compare_setup, save_comparison
    from ._progress import shown

    folder = check_writable(output or config.parent / "withstand-compare")
    entries, data, threat = compare_setup(configured, config.parent)
    settings = configured.evaluate
    with shown(quiet) as progress:
        found = run(
            entries,
            data if samples is None else data.head(samples),
            threat,
            preset=settings.preset,
            seed=settings.seed,
            batch_size=settings.batch_size or 64,
            unseen=None if unseen else {},
            method=None if configured.certify is None else method_of(configured.certify),
            transfer=transfer,
            checkpoint=folder / "done",
            progress=progress,
        )
    return found, save_comparison(found, folder)


def _story(found: Comparison) -> str:
    from ..workflows import show_comparison

    return drawn(lambda console: show_comparison(found, console))
