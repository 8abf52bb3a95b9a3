"""withstand demo"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from ..evaluate import Report

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
        reports, path = _run(output, quiet)
        put(_json(reports) if json else _story(reports))
    if not quiet:
        typer.echo(f"\nPictures and curves: {path}\nNow your own model: withstand init", err=True)


def _run(output: Path, quiet: bool) -> tuple[dict[str, Report], Path]:
    from ..evaluate import check_writable, page, write
    from ..workflows import demo as run
    from ._progress import shown

    folder = check_writable(output)
    with shown(quiet) as progress:
        reports = run(progress)
    return reports, write(folder / "report.html", page(reports, _TITLE).encode())


def _json(reports: dict[str, Report]) -> str:
    from json import dumps

    content = {name: report.to_dict() for name, report in reports.items()}
    return dumps(content, indent=2, allow_nan=False) + "\n"


def _story(reports: dict[str, Report]) -> str:
    from ..workflows import show_comparison

    return drawn(lambda console: show_comparison(reports, console))
