"""withstand demo"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from rich.console import Console

    from ..workflows import Demo
    from ..workflows.loop import LoopReport, Stage

_TITLE = "How easily are two digit classifiers fooled?"

demo = typer.Typer()


@demo.callback(invoke_without_command=True)
def _demo(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("withstand-demo"),
    json: Annotated[
        bool, typer.Option("--json", help="Print both reports as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress, and no word of the file.")
    ] = False,
) -> None:
    """Train, attack and compare a standard and a hardened model on handwritten digits."""
    if context.invoked_subcommand is not None:
        return
    if not quiet:
        typer.echo(
            "Training a standard and a hardened network on digits, then attacking both", err=True
        )
    with interruptible("nothing was written; start it again"):
        found, path = _run(output, quiet)
        put(_json(found) if json else _story(found))
    if not quiet:
        typer.echo(f"\nPictures and curves: {path}\nNow your own model: withstand init", err=True)


@demo.command()
def loop(
    output: Annotated[
        Path, typer.Option(help="Folder of all that is made, logs and evidence included.")
    ] = Path("withstand-loop"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No word of the stages.")] = False,
) -> None:
    """Serve, guard, attack, page, roll back, replay, retrain, gate, promote, write it down.

    Real processes on this machine, for a few minutes; exit code 0 only if every stage of the loop
    is in the evidence. Needs the extra serve.
    """
    import json as plain

    from .._errors import ConfigError

    try:
        from ..workflows.loop import run_loop
    except ModuleNotFoundError as error:
        raise ConfigError(f"the loop needs {error.name}; pip install 'withstand[serve]'") from None

    def told(stage: Stage) -> None:
        if not quiet:
            typer.echo(f"{stage.seconds:6.1f} s  {stage.name:<10}  {stage.text}", err=True)

    with (
        _terminable(),
        interruptible("its processes have ended; give another folder, or remove it"),
    ):
        found = run_loop(output, told)
    put(plain.dumps(found.to_dict(), indent=2) + "\n" if json else _summary(found))


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does, so that nothing is left behind."""
    import signal

    def interrupt(*told: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _summary(found: LoopReport) -> str:
    from ..workflows.loop import DETECT, ROLL_BACK

    total = sum(stage.seconds for stage in found.stages)
    rows = [
        ("time to detect", f"{found.detect:.1f} s (at most {DETECT:g})"),
        ("time to roll back", f"{found.roll_back:.2f} s (at most {ROLL_BACK:g})"),
        ("fooled before", f"{found.before} of {found.before.n} probes"),
        ("fooled after", f"{found.after} of {found.after.n} probes"),
        ("evidence", f"{found.records:,} records, chain unbroken"),
        ("in all", f"{total:.0f} s"),
        *found.files.items(),
    ]
    return "".join(f"{name:<18} {value}\n" for name, value in rows)


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
