"""withstand demo"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("withstand-demo"),
) -> None:
    """Train, attack and compare a standard and a hardened model on handwritten digits."""
    from rich.console import Console

    from ..evaluate import check_writable, page, write
    from ..workflows import demo as run
    from ..workflows import show_comparison
    from ._progress import shown

    folder = check_writable(output)
    typer.echo(
        "Training a standard and a hardened network on digits, then attacking both",
        err=True,
    )
    with shown() as progress:
        reports = run(progress)
    show_comparison(reports, Console())
    title = "How easily are two digit classifiers fooled?"
    path = write(folder / "report.html", page(reports, title).encode())
    typer.echo(f"\nPictures and curves: {path}\nNow your own model: withstand init", err=True)
