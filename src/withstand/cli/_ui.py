"""withstand ui"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._streams import put

if TYPE_CHECKING:
    from ..ui.access import Accounts

ui = typer.Typer(help="Pages that show what operations know.", no_args_is_help=True)
user = typer.Typer(help="Accounts of those who may log in.", no_args_is_help=True)
ui.add_typer(user, name="user")

_Config = Annotated[Path, typer.Option(help="The configuration with the sections guard and ui.")]
_Name = Annotated[str, typer.Argument(help="Who logs in.")]
_Role = Annotated[str, typer.Option(help="viewer, responder or admin.")]
_FILE = Path("withstand.yaml")


@ui.callback()
def _group() -> None:
    """Pages that show what operations know."""


@user.callback()
def _users_group() -> None:
    """Accounts of those who may log in."""


@ui.command()
def serve(config: _Config = _FILE) -> None:
    """Serve the pages until SIGTERM."""
    import logging
    import signal

    # What was begun is brought to its end at SIGTERM as at Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    with _installed():
        from ..ui import serve as served
    served(config, told=lambda address: typer.echo(f"pages: {address}", err=True))


@user.command()
def add(name: _Name, role: _Role = "viewer", config: _Config = _FILE) -> None:
    """Make an account; the password is asked for, or read from standard input."""
    _accounts(config).add(name, role, _password())
    typer.echo(f"{name} may log in as {role}", err=True)


@user.command("list")
def list_(
    config: _Config = _FILE,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
) -> None:
    """List the accounts and their roles."""
    import json as plain

    found = _accounts(config).all()
    if json:
        told = [{"name": one.name, "role": one.role} for one in found]
        put(plain.dumps(told, indent=2) + "\n")
        return
    put("".join(f"{one.role:<9}  {one.name}\n" for one in found) or "no accounts\n")


@user.command()
def role(
    name: _Name,
    role: Annotated[str, typer.Argument(help="viewer, responder or admin.")],
    config: _Config = _FILE,
) -> None:
    """Give an account another role."""
    _accounts(config).change(name, role=role)
    typer.echo(f"{name} is {role} from now on", err=True)


@user.command()
def password(name: _Name, config: _Config = _FILE) -> None:
    """Give an account another password; whoever is logged in with it is logged out."""
    _accounts(config).change(name, password=_password())
    typer.echo(f"{name} has another password", err=True)


@user.command()
def remove(name: _Name, config: _Config = _FILE) -> None:
    """Take an account away, and end its sessions."""
    _accounts(config).remove(name)
    typer.echo(f"{name} may not log in any more", err=True)


@contextmanager
def _installed() -> Iterator[None]:
    """What the pages are served with is an extra; raises ConfigError where it is missing."""
    from .._errors import ConfigError

    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"the pages need {error.name}; pip install 'withstand[serve]'") from None


def _accounts(config: Path) -> Accounts:
    from ..config import load_operations

    with _installed():
        from ..ui.access import Accounts
    return Accounts(config.parent / load_operations(config).ui.accounts)


def _password() -> str:
    import sys

    from .._errors import ConfigError

    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    import getpass

    first = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != first:
        raise ConfigError("the two passwords differ; try again")
    return first
