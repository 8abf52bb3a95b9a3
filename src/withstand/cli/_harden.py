"""withstand harden"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from ..evaluate import Report
    from ..harden import Finetuned, Hardened


def harden(
    config: Annotated[Path, typer.Option(help="The configuration.")] = Path("withstand.yaml"),
    recipe: Annotated[
        str | None, typer.Option(help="What it is trained on: fgsm, pgd, trades, ibp and others.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Times through the training data.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of weights and report.")] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Folder of kept examples to fine-tune on.")
    ] = None,
    no_evaluate: Annotated[
        bool, typer.Option("--no-evaluate", help="Train only; no evaluation afterwards.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print all of it as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress, and no word of the files.")
    ] = False,
) -> None:
    """Train the configured model to withstand attack, evaluate it, and say what that cost.

    Writes weights.safetensors, harden.json and the evaluation's report; of several norms one of
    each, and union.json. With a corpus the model is
    fine-tuned on it and checked for regressions: exit code 1 where there is one, 3 where that is
    not certain. Interrupted, the same command goes on where it was.
    """
    given = {
        "recipe": recipe,
        "epochs": epochs,
        "seed": seed,
        "output": None if output is None else str(output.absolute()),
        "corpus": None if corpus is None else str(corpus.absolute()),
    }
    with interruptible("the same command goes on from its checkpoint"):
        made, reports, files = _hardened(config, given, not no_evaluate, quiet)
        put(_json(made, reports) if json else _story(made, reports))
    if not quiet:
        typer.echo(f"written: {', '.join(str(file) for file in files)}", err=True)
    outcome = getattr(made, "outcome", "pass")
    if outcome != "pass":
        raise typer.Exit(1 if outcome == "fail" else 3)


def _hardened(
    path: Path, given: dict[str, Any], evaluated: bool, quiet: bool
) -> tuple[Hardened | Finetuned, list[Report], list[Path]]:
    from ..config import load_config

    config, root = load_config(path, {"harden": given}), path.parent

    # These take seconds to import: what is wrong with the configuration is said before.
    from ..evaluate import check_writable
    from ..harden import run_config
    from ._progress import shown

    folder = check_writable(root / config.harden.output)
    with shown(quiet) as progress:
        return run_config(config, root, folder, evaluated=evaluated, progress=progress)


def _json(made: Hardened | Finetuned, reports: list[Report]) -> str:
    from json import dumps

    from ..harden import union_of

    content = {
        "harden": made.to_dict(),
        "report": reports[0].to_dict() if reports else None,
        "union": union_of(reports) if len(reports) > 1 else None,
    }
    return dumps(content, indent=2, allow_nan=False) + "\n"


def _story(made: Hardened | Finetuned, reports: list[Report]) -> str:
    from ..evaluate import show
    from ..harden import show_made, show_union

    def draw(console: Any) -> None:
        show_made(made, console)
        if reports:
            console.print()
            show(reports[0], console)
        if len(reports) > 1:
            console.print()
            show_union(reports, console)

    return drawn(draw)
