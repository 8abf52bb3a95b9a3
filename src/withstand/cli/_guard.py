"""withstand guard"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._canary import canary
from ._mitigations import lift, mitigate, mitigations
from ._streams import put

if TYPE_CHECKING:
    from ..config import GuardConfig
    from ..guard import Keys
    from ..respond import GuardClient

guard = typer.Typer(
    help="Stand in front of a served model, and look at every request.", no_args_is_help=True
)
key = typer.Typer(help="API keys of those who may ask.", no_args_is_help=True)
guard.add_typer(key, name="key")
guard.add_typer(canary, name="canary")
for command in (mitigations, mitigate, lift):
    guard.command()(command)

_Config = Annotated[Path, typer.Option(help="The configuration with the section guard.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
_Why = Annotated[str, typer.Option(help="What evidence shall say of the reason.")]
_FILE = Path("withstand.yaml")


@guard.callback()
def _group() -> None:
    """Stand in front of a served model, and look at every request."""


@key.callback()
def _keys_group() -> None:
    """API keys of those who may ask."""


@guard.command()
def serve(config: _Config = _FILE) -> None:
    """Serve until SIGTERM, which answers what is under way; SIGHUP takes a new configuration."""
    import logging

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    with _installed():
        from ..guard.serve import serve as served
    served(config, told=_opened)


def _opened(listen: str, admin: str) -> None:
    typer.echo(f"guard: clients at http://{listen}, operators at http://{admin}", err=True)


@guard.command()
def status(
    config: _Config = _FILE,
    live: Annotated[bool, typer.Option("--live", help="Only whether the process answers.")] = False,
    ready: Annotated[bool, typer.Option("--ready", help="Only whether it can serve.")] = False,
    json: _Json = False,
) -> None:
    """How a running guard is; exit code 1 where it does not answer or is not ready."""
    import json as plain

    path = "/health/live" if live else "/health/ready"
    client = _client(config)
    code, told = client.ask(path)
    if not live and not ready:
        told |= client.status()
    if json:
        put(plain.dumps(told, indent=2) + "\n")
    else:
        put("".join(f"{name}: {plain.dumps(value)}\n" for name, value in told.items()))
    if code != 200:
        raise typer.Exit(1)


@guard.command()
def reload(config: _Config = _FILE) -> None:
    """Take the configuration as it is now; a broken one is refused, and the guard goes on."""
    _client(config).reload()
    typer.echo("reloaded", err=True)


@guard.command()
def kill(why: _Why, config: _Config = _FILE) -> None:
    """Switch all inspection off: every request is passed on as it is, and nothing is checked."""
    _switch(config, True, why, "inspection is off")


@guard.command()
def unkill(why: _Why, config: _Config = _FILE) -> None:
    """Switch inspection on again."""
    _switch(config, False, why, "inspection is on")


@guard.command()
def calibrate_queries(
    data: Annotated[Path, typer.Argument(help="Benign inputs as clients send them: .npz or .npy.")],
    output: Annotated[Path, typer.Option(help="Folder of the calibration.")] = Path("queries"),
    array: Annotated[str, typer.Option(help="The array of an .npz file.")] = "x",
    rate: Annotated[
        float, typer.Option(help="The share of benign queries that may raise a false alarm.")
    ] = 1e-4,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a calibration.")] = False,
    json: _Json = False,
) -> None:
    """Find out from benign queries how many near copies of one input are suspicious."""
    import json as plain

    from .._errors import OutputError
    from ..guard.queries import FILES, calibrate, read_queries

    if (output / FILES[0]).exists() and not force:
        raise OutputError(f"{output / FILES[0]} is already there; use --force to overwrite it")
    found = calibrate(read_queries(data, array), rate=rate)
    found.save(output)
    shown = found.bound <= rate
    if json:
        told: dict[str, object] = {
            "threshold": found.threshold, "rate": rate, "bound": found.bound, "shown": shown,
            "enough": found.enough,
        }  # fmt: skip
        if found.spectrum is not None:
            told["spectrum"] = {
                "threshold": found.spectrum_threshold,
                "bound": found.spectrum_bound,
            }
        put(plain.dumps({**told, "queries": found.queries, "folder": str(output)}) + "\n")
        return
    put(
        f"{output}: a flag from {found.threshold:.1f} near copies on\n"
        f"false alarms: at most {1e4 * found.bound:.2f} in 10,000 (95 % confidence, "
        f"{found.queries:,} queries)\n"
    )
    if found.spectrum is not None:
        put(
            "patterns that no picture has are flagged too: false alarms at most "
            f"{1e4 * found.spectrum_bound:.2f} in 10,000\n"
        )
    if not shown:
        put(
            f"so few queries do not show the {1e4 * rate:g} in 10,000 that were asked for; give "
            f"{found.enough:,}\n"
        )


@key.command()
def add(
    tenant: Annotated[str, typer.Argument(help="Whose key it is.")],
    config: _Config = _FILE,
    benign_optimiser: Annotated[
        bool,
        typer.Option(
            "--benign-optimiser",
            help="Declared to ask about near copies for a good reason, such as explanations.",
        ),
    ] = False,
) -> None:
    """Make a key, print it once, and keep only a digest of it."""
    keys = _keys(config)
    secret = keys.make(tenant, benign_optimiser=benign_optimiser)
    put(f"{secret}\n")
    typer.echo(f"kept in {keys.path}: a digest; the key itself is not shown again", err=True)


@key.command("list")
def list_(config: _Config = _FILE, json: _Json = False) -> None:
    """List the keys by their ids; the keys themselves are kept nowhere."""
    import json as plain
    from dataclasses import asdict
    from datetime import UTC, datetime

    found = list(_keys(config))
    if json:
        put(plain.dumps([asdict(one) for one in found], indent=2) + "\n")
        return
    lines = [
        f"{one.id}  {datetime.fromtimestamp(one.made, UTC):%Y-%m-%d}  "
        f"{plain.dumps(one.tenant)}{'  benign optimiser' if one.benign_optimiser else ''}\n"
        for one in found
    ]
    put("".join(lines) or "no keys\n")


@key.command()
def revoke(
    identity: Annotated[str, typer.Argument(help="The key's id, or enough of its beginning.")],
    config: _Config = _FILE,
) -> None:
    """Revoke a key; a running guard refuses it within a second or two."""
    from .._errors import ConfigError

    keys = _keys(config)
    found = [one.id for one in keys if one.id.startswith(identity)]
    if len(found) != 1 or len(identity) < 8:
        raise ConfigError(
            f"{len(found)} keys begin with {identity[:64]!r}; give 8 to 64 characters of one id "
            "from `withstand guard key list`"
        )
    keys.revoke(found[0])
    typer.echo(f"revoked: {found[0]}", err=True)


@contextmanager
def _installed() -> Iterator[None]:
    """The guard's own packages are an extra; raises ConfigError where one is missing."""
    from .._errors import ConfigError

    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"the guard needs {error.name}; pip install 'withstand[serve]'") from None


def _section(path: Path) -> GuardConfig:
    from ..config import load_guard

    return load_guard(path)


def _keys(path: Path) -> Keys:
    from .._errors import ConfigError

    with _installed():
        from ..guard import Keys, Secrets
    told = _section(path)
    if told.keys is None:
        raise ConfigError(f"{path}: guard.open lets everybody in; name a file of keys instead")
    secrets = Secrets(path.parent / told.secrets)
    return Keys(path.parent / told.keys, secrets.get("pepper"))


def _switch(config: Path, killed: bool, why: str, told: str) -> None:
    import getpass

    kept = _client(config).kill(killed, who=getpass.getuser(), why=why)
    typer.echo(told if kept else f"{told}; no evidence is kept of it", err=True)


def _client(config: Path) -> GuardClient:
    from ..respond import GuardClient

    # A reload opens detectors, which takes as long as their models do.
    return GuardClient.from_file(config, timeout=60)
