"""withstand redteam"""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._streams import put

if TYPE_CHECKING:
    from ..config import Operations
    from ..redteam import Campaign, Run

redteam = typer.Typer(
    help="Attack the endpoint with permission, and tell the monitor what came of it.",
    no_args_is_help=True,
)

_Config = Annotated[Path, typer.Option(help="The configuration with the section redteam.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
_Why = Annotated[str, typer.Option(help="What the audit shall say of the reason.")]
_Scope = Annotated[Path, typer.Argument(help="The file that says what is permitted.")]
_FILE = Path("withstand.yaml")
_OWN = Path("redteam.key")


@redteam.callback()
def _group() -> None:
    """Attack the endpoint with permission, and tell the monitor what came of it."""


@redteam.command()
def keygen(
    output: Annotated[Path, typer.Option(help="File of the private key.")] = _OWN,
) -> None:
    """Make a key that scopes are signed with, and print its public half for redteam.signers."""
    from ..redteam import make_key

    put(f"{make_key(output)}\n")
    typer.echo(f"private key: {output}; whoever has it can permit attacks", err=True)


@redteam.command()
def sign(
    scope: _Scope = Path("scope.yaml"),
    key: Annotated[Path, typer.Option(help="File of the private key.")] = _OWN,
) -> None:
    """Permit what a scope says, as it stands now."""
    from ..redteam import SUFFIX
    from ..redteam import sign as signed

    found = signed(scope, key)
    typer.echo(f"signed: {scope}{SUFFIX}, until {found.expires:%Y-%m-%d %H:%M} UTC", err=True)


@redteam.command()
def show(config: _Config = _FILE, json: _Json = False) -> None:
    """What is permitted, by whom, and how much of it is left; exit code 1 where it is not now."""
    import json as plain
    import time

    from ..redteam import Purse, signed_scope

    told = _operations(config)
    found = signed_scope(config, told)
    scope = found.scope
    spent = Purse(_store(config, told), found.digest, scope.caps).spent()
    closed = scope.closed(time.time())
    content = {
        **scope.model_dump(mode="json"), "signer": found.signer, "digest": found.digest,
        "spent": spent, "closed": closed,
    }  # fmt: skip
    if json:
        put(plain.dumps(content, indent=2) + "\n")
    else:
        put("".join(f"{name}: {plain.dumps(value)}\n" for name, value in content.items()))
    if closed:
        raise typer.Exit(1)


@redteam.command()
def run(
    config: _Config = _FILE,
    arms: Annotated[
        bool, typer.Option("--arms", help="Attack both arms of the canary with the same inputs.")
    ] = False,
    json: _Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Attack once, within the scope; exit code 3 where it had to end before its end.

    What was killed goes on. SIGTERM and Ctrl-C end it before the next query.
    """
    import json as plain
    from dataclasses import asdict

    with _installed():
        campaign = _campaign(config, arms=arms)
    with _ending(campaign):
        runs = campaign.run(lambda run: None if quiet else typer.echo(_line(run), err=True))
    put(plain.dumps([asdict(one) for one in runs], indent=2) + "\n" if json else _table(runs))
    if any(one.stopped for one in runs):
        raise typer.Exit(3)


@redteam.command()
def watch(config: _Config = _FILE) -> None:
    """Attack every redteam.every seconds within the scope's hours, until SIGTERM."""
    from .._errors import ConfigError
    from ..redteam import Runs
    from ..redteam import watch as watched

    told = _operations(config)
    every = told.redteam.every
    if every is None:
        raise ConfigError(f"{config}: redteam.every is missing; add it, e.g. every: 21600")
    current: list[Campaign] = []

    def opened() -> Campaign:
        with _installed():
            current[:] = [_campaign(config)]
        if ended:
            current[0].brakes.halt("SIGTERM")
        return current[0]

    def end() -> None:
        ended.append(True)
        for one in current:
            one.brakes.halt("SIGTERM")

    ended: list[bool] = []
    with _signals(end):
        watched(
            opened, Runs(_store(config, told)), every,
            ended=lambda: bool(ended), told=lambda text: typer.echo(text, err=True),
        )  # fmt: skip


@redteam.command()
def game_day(
    config: _Config = _FILE,
    output: Annotated[Path, typer.Option(help="The report.")] = Path("game-day.md"),
    detect: Annotated[float, typer.Option(help="Seconds that the page may take.")] = 60.0,
    act: Annotated[float, typer.Option(help="Seconds from the page to an action.")] = 900.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No word of what happens.")] = False,
) -> None:
    """Attack a staging endpoint without a pass, and time detection, page and action.

    The scope must be signed with surprise: true. Exit code 0 if both were in time, 1 if not, 3
    where the attack could not be made.
    """
    from .._errors import OperationError
    from ..evaluate import write
    from ..redteam import signed_scope
    from ..respond import GuardClient
    from ..workflows import game_day as rehearsed

    told = _operations(config)
    scope = signed_scope(config, told).scope
    if not scope.surprise:
        raise OperationError(
            "the scope is no surprise: its queries carry a pass, and nobody is paged; have one "
            "with surprise: true signed"
        )
    with _installed():
        campaign = _campaign(config)
    with _ending(campaign):
        found = rehearsed(
            campaign, _store(config, told), GuardClient.from_file(config), key=scope.key,
            model=scope.targets[0].models[0], patience=detect + act,
            told=lambda line: None if quiet else typer.echo(line, err=True),
        )  # fmt: skip
    write(output, found.to_markdown().encode())
    outcome = found.outcome(detect, act)
    put(f"{outcome}: see {output}\n")
    if outcome != "pass":
        raise typer.Exit(1 if outcome == "fail" else 3)


@redteam.command()
def stop(
    why: _Why,
    config: _Config = _FILE,
    lift: Annotated[bool, typer.Option("--lift", help="Let campaigns begin again.")] = False,
) -> None:
    """End all campaigns before their next query, and let none begin until it is lifted."""
    from ..redteam import lift as lifted
    from ..redteam import stop as stopped

    store, who = _store(config, _operations(config)), getpass.getuser()
    if lift:
        told = "campaigns may begin" if lifted(store, who=who, why=why) else "nothing was stopped"
    else:
        stopped(store, who=who, why=why)
        told = "campaigns end before their next query"
    typer.echo(told, err=True)


@redteam.command("runs")
def runs_(config: _Config = _FILE, json: _Json = False) -> None:
    """The campaigns so far, newest first."""
    import json as plain
    from dataclasses import asdict

    from ..redteam import Runs

    found = Runs(_store(config, _operations(config))).all()
    put(plain.dumps([asdict(one) for one in found], indent=2) + "\n" if json else _table(found))


@redteam.command()
def coverage(config: _Config = _FILE, json: _Json = False) -> None:
    """What has been tried, by model, attack and radius, with the ids of the catalogues."""
    import json as plain
    from dataclasses import asdict

    from ..redteam import Runs
    from ..redteam import coverage as table

    found = table(Runs(_store(config, _operations(config))).all())
    if json:
        put(plain.dumps([asdict(one) for one in found], indent=2) + "\n")
        return
    put(
        "".join(
            f"{one.model}  {one.attack} {one.norm} {one.eps:g}  fooled {one.fooled} of {one.tried}"
            f"{f' ({one.fooling.low:.0%} to {one.fooling.high:.0%})' if one.fooling else ''}, "
            f"detected {one.detected}  {' '.join(each.id for each in one.techniques)}\n"
            for one in found
        )
        or "nothing was tried\n"
    )


def _campaign(config: Path, *, arms: bool = False) -> Campaign:
    from ..redteam import open_campaign
    from ..respond import GuardClient

    guard = GuardClient.from_file(config) if _operations(config).guard is not None else None
    return open_campaign(config, guard, arms=arms, who=getpass.getuser())


def _operations(config: Path) -> Operations:
    from ..config import load_operations

    return load_operations(config)


def _store(config: Path, told: Operations) -> Any:
    from ..monitor import Store

    return Store(config.parent / told.monitor.folder)


@contextmanager
def _installed() -> Iterator[None]:
    from .._errors import ConfigError

    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the red team needs {error.name}; pip install 'withstand[serve]'"
        ) from None


@contextmanager
def _ending(campaign: Campaign) -> Iterator[None]:
    """SIGTERM and Ctrl-C end a campaign before its next query."""
    with _signals(lambda: campaign.brakes.halt("it was ended by a signal")):
        yield


@contextmanager
def _signals(handle: Any) -> Iterator[None]:
    import signal

    before = {
        number: signal.signal(number, lambda *_: handle())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _line(run: Run) -> str:
    return f"{run.id}: {run.tried} tried, {run.fooled} fooled, {run.queries} queries"


def _table(runs: list[Run]) -> str:
    from ..stats import wilson

    lines = []
    for run in runs:
        share = ""
        if run.tried:
            found = wilson(run.fooled, run.tried)
            share = f" ({found.low:.0%} to {found.high:.0%})"
        lines.append(
            f"{run.id}  {run.model}  {run.attack}  {run.state}: fooled {run.fooled} of {run.tried}"
            f"{share}, detected {run.detected}, {run.queries} queries"
            f"{f'; {run.stopped}' if run.stopped else ''}\n"
        )
    return "".join(lines) or "no runs\n"
