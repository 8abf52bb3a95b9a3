"""The verbs, and how they end."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from .._errors import WithstandError
from .._version import __version__
from ._streams import tolerant

# EX_SOFTWARE of sysexits.h.
_DEFECT = 70
# A verb's file is imported when the verb is asked for: all of them would double what --help takes.
_VERBS = {
    "init": "Write a commented withstand.yaml to start from, and for a table its table.yaml too.",
    "evaluate": "Find out how easily the configured model is fooled.",
    "diagnose": "Find out whether a report's number can be believed, and what to do where it "
    "cannot.",
    "calibrate": "Find out how far attacks really move inputs, and whether the present radius "
    "fits.",
    "compare": "Find out what each defence adds to the configured model, and what it costs.",
    "parity": "Find out whether the served pipeline is the evaluated one, and which step differs.",
    "harden": "Train the configured model to withstand attack, evaluate it, and say what that "
    "cost.",
    "certify": "Prove for each input how far no attacker can change the configured model's answer.",
    "gate": "Decide whether the configured model may be released.",
    "table": "The file that says what the columns of a table are.",
    "demo": "Train, attack and compare a standard and a hardened model on handwritten digits.",
    "bench": "Measure what attacks are worth.",
    "corpus": "Adversarial and flagged inputs that were kept: look at them, add, label and "
    "exchange them.",
    "evidence": "Prove, read, export and erase evidence.",
    "detect": "Tell inputs that look like an attack.",
    "guard": "Stand in front of a served model, and look at every request.",
    "monitor": "Watch a model in service: SLIs, budgets, campaigns, alerts.",
    "incident": "Incidents: what is done about alerts, step by step, and what was learned.",
    "redteam": "Attack the endpoint with permission, and tell the monitor what came of it.",
    "ui": "Pages that show what operations know.",
}


class _Verbs(TyperGroup):
    """Knows every verb by its help, and loads the one that is asked for."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = {verb: TyperCommand(verb, help=said) for verb, said in _VERBS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        verb, command, rest = super().resolve_command(ctx, args)
        return verb, verb and command and _loaded(verb), rest


def _loaded(verb: str) -> Any:
    found = getattr(import_module(f"._{verb}", __package__), verb)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=verb)
    else:
        alone.command(verb)(found)
    return get_group(alone).commands[verb]


app = typer.Typer(
    cls=_Verbs,
    name="withstand",
    help="Find out how your model can be fooled, make it withstand attack, and know when somebody "
    "tries.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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
    """Run the command line.

    Exit codes are 0 pass, 1 fail, 2 usage or bad input, 3 inconclusive, 70 a defect of ours, and
    130 after Ctrl-C.
    """
    tolerant()
    try:
        app()
    except WithstandError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        import traceback

        # Python's own exit code would be 1, which says that a limit was missed.
        traceback.print_exc()
        typer.echo("error: this is a defect of withstand; report it with the lines above", err=True)
        sys.exit(_DEFECT)
