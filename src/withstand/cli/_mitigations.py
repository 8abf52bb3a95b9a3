"""withstand guard mitigations, mitigate, lift"""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._streams import put

if TYPE_CHECKING:
    from ..respond import GuardClient

_Config = Annotated[Path, typer.Option(help="The configuration with the section guard.")]
_Why = Annotated[str, typer.Option(help="What evidence shall say of the reason.")]
_FILE = Path("withstand.yaml")


def mitigations(
    config: _Config = _FILE,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
) -> None:
    """List the actions that were ordered and hold, whatever the sensors say."""
    import json as plain

    from .._errors import one_line

    found = _client(config).mitigations()
    if json:
        put(plain.dumps(found, indent=2) + "\n")
        return
    for one in found:
        until = datetime.fromtimestamp(one["until"], UTC).isoformat(timespec="seconds")
        words = f"{one['id']}: {one['action']} {one['key'] or 'everybody'}"
        words += f" on {one['model']}" if one["model"] else ""
        put(one_line(f"{words} until {until}, by {one['who']}: {one['why']}", 300) + "\n")


def mitigate(
    action: Annotated[
        str, typer.Argument(help="tag, coarsen, delay, throttle, reroute, quarantine or block.")
    ],
    why: _Why,
    identity: Annotated[str, typer.Option("--id", help="Its name; the same one acts once.")],
    seconds: Annotated[int, typer.Option(min=1, help="How long it holds.")] = 3600,
    key: Annotated[
        str | None, typer.Option(help="The client: an id of `withstand guard key list`.")
    ] = None,
    everybody: Annotated[bool, typer.Option("--everybody", help="On all clients.")] = False,
    model: Annotated[str, typer.Option(help="On this model alone.")] = "",
    config: _Config = _FILE,
) -> None:
    """Order an action on one client or on all, until its time is over or it is lifted."""
    from .._errors import ConfigError

    if (key is None) != everybody:
        what = "--key and --everybody are both given" if everybody else "--key is missing"
        raise ConfigError(f"{what}; give --key ID for one client, or --everybody")
    new = _client(config).mitigate(
        identity, action, seconds=seconds, key=key or "", model=model, who=getpass.getuser(),
        why=why,
    )  # fmt: skip
    typer.echo(f"{identity}: {'ordered' if new else 'holds already, nothing changed'}", err=True)


def lift(
    identity: Annotated[str, typer.Argument(help="The name that it was ordered by.")],
    why: _Why,
    config: _Config = _FILE,
) -> None:
    """End an ordered action."""
    from .._errors import OperationError

    if not _client(config).lift(identity, who=getpass.getuser(), why=why):
        raise OperationError(f"no action {identity!r} holds; see `withstand guard mitigations`")
    typer.echo(f"{identity}: lifted", err=True)


def _client(config: Path) -> GuardClient:
    from ..respond import GuardClient

    return GuardClient.from_file(config)
