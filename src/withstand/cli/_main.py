"""The verbs, and how they end."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .._errors import WithstandError
from .._version import __version__
from ._bench import bench
from ._calibrate import calibrate
from ._certify import certify
from ._compare import compare
from ._corpus import corpus
from ._demo import demo
from ._detect import detect
from ._diagnose import diagnose
from ._evaluate import evaluate
from ._evidence import evidence
from ._gate import gate
from ._guard import guard
from ._harden import harden
from ._incident import incident
from ._init import init
from ._monitor import monitor
from ._parity import parity
from ._redteam import redteam
from ._streams import tolerant
from ._table import table
from ._ui import ui

app = typer.Typer(
    name="withstand",
    help="Find out how your model can be fooled, make it withstand attack, and know when somebody "
    "tries.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(init)
app.command()(evaluate)
app.command()(diagnose)
app.command()(calibrate)
app.command()(compare)
app.command()(parity)
app.command()(harden)
app.command()(certify)
app.command()(gate)
app.add_typer(table, name="table")
app.add_typer(demo, name="demo")
app.add_typer(bench, name="bench")
app.add_typer(corpus, name="corpus")
app.add_typer(evidence, name="evidence")
app.add_typer(detect, name="detect")
app.add_typer(guard, name="guard")
app.add_typer(monitor, name="monitor")
app.add_typer(incident, name="incident")
app.add_typer(redteam, name="redteam")
app.add_typer(ui, name="ui")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"withstand {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; exit codes are 0 pass, 1 fail, 2 usage or bad input, 3 inconclusive."""
    tolerant()
    try:
        app()
    except WithstandError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
