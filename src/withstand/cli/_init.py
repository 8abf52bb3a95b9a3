"""withstand init"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    config: Annotated[Path, typer.Option(help="The file to write.")] = Path("withstand.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented withstand.yaml to start from."""
    from .._errors import OutputError
    from ..config import template

    if config.exists() and not force:
        raise OutputError(f"{config} is already there; use --force to overwrite it")
    try:
        config.write_text(template())
    except OSError as error:
        raise OutputError(
            f"{config} cannot be written: {error.strerror}; give another --config"
        ) from None
    typer.echo(f"{config} written; correct its paths, then run: withstand evaluate", err=True)
