"""withstand demo"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from rich.console import Console

    from ..workflows import Demo

_TITLE = "How easily are two digit classifiers fooled?"


def demo(
    output: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("withstand-demo"),
    json: Annotated[
        bool, typer.Option("--json", help="Print both reports as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress, and no word of the file.")
    ] = False,
) -> None:
    """Train, attack and compare a standard and a hardened model on handwritten digits."""
    if not quiet:
        typer.echo(
            "Training a standard and a hardened network on digits, then attacking both", err=True
        )
    with interruptible("nothing was written; start it again"):
        found, path = _run(output, quiet)
        put(_json(found) if json else _story(found))
    if not quiet:
        typer.echo(f"\nPictures and curves: {path}\nNow your own model: withstand init", err=True)


def _run(output: Path, quiet: bool) -> tuple[Demo, Path]:
    from ..evaluate import check_writable, page, write
    from ..workflows import demo as run
    from ..workflows import transfer_section
    from ._progress import shown

    folder = check_writable(output)
    with shown(quiet) as progress:
        found = run(progress)
    html = page(found.reports, _TITLE, [transfer_section(found.transfer)])
    return found, write(folder / "report.html", html.encode())


def _json(found: Demo) -> str:
    from json import dumps

    content = {name: report.to_dict() for name, report in found.reports.items()}
    return dumps(content, indent=2, allow_nan=False) + "\n"


def _story(found: Demo) -> str:
    from ..workflows import Comparison, show_comparison, show_transfer

    def show(console: Console) -> None:
        show_comparison(Comparison.of(found.reports), console)
        console.print()
        show_transfer(found.transfer, console)

    return drawn(show)
