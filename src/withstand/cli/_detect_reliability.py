"""withstand detect reliability"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._streams import interruptible, put

if TYPE_CHECKING:
    from ..detect import Reliability


def reliability(
    config: Annotated[Path, typer.Option(help="The configuration.")] = Path("withstand.yaml"),
    output: Annotated[
        Path | None, typer.Option(help="Folder of the report; evaluate.output if not given.")
    ] = None,
    bins: Annotated[int, typer.Option(min=2, help="Groups of similar confidence.")] = 15,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of all randomness.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No word of the files.")] = False,
) -> None:
    """Find out whether the model's own confidence can be believed.

    A temperature is fitted on one half of the inputs of `data`, and judged on the other. Writes
    reliability.json and reliability.html.
    """
    with interruptible("nothing is written"):
        found, files = _found(config, output, bins, seed)
        put(found.to_json() if json else _story(found))
    if not quiet:
        typer.echo(f"written: {', '.join(str(file) for file in files)}", err=True)


def _found(
    config: Path, output: Path | None, bins: int, seed: int | None
) -> tuple[Reliability, list[Path]]:
    from ..config import load_config

    configured, root = load_config(config), config.parent
    from ..detect import reliability
    from ..evaluate import check_writable, from_config

    settings = configured.evaluate
    folder = check_writable(output or root / settings.output)
    model, data, _, _ = from_config(configured, root)
    seed = settings.seed if seed is None else seed
    found = reliability(model, data, bins=bins, seed=seed)
    return found, found.save(folder)


def _story(found: Reliability) -> str:
    return f"{found}\n".replace("; before: ", "\nbefore: ").replace("; after: ", "\nafter: ")
