"""withstand incident"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from rich.console import Console

    from ..respond import Desk, Incident, Step

_HELP = "Incidents: what is done about alerts, step by step, and what was learned."

incident = typer.Typer(help=_HELP, no_args_is_help=True)

_Config = Annotated[Path, typer.Option(help="The configuration with the sections for a service.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
_Number = Annotated[int, typer.Argument(metavar="ID", help="The incident's number.")]
_Who = Annotated[str | None, typer.Option(help="Who does it; your user name if not given.")]
_FILE = Path("withstand.yaml")


@incident.callback(help=_HELP)
def _group() -> None:
    pass


@incident.command("list")
def list_(
    config: _Config = _FILE,
    state: Annotated[
        str | None, typer.Option(help="Only open, mitigated or resolved ones.")
    ] = None,
    json: _Json = False,
) -> None:
    """List the incidents, newest first."""
    from dataclasses import asdict

    from .._errors import ConfigError

    if state not in (None, "open", "mitigated", "resolved"):
        raise ConfigError(f"--state is {state!r}; it is open, mitigated or resolved")
    found = _desk(config).incidents.all(state=state)  # type: ignore[arg-type]
    if json:
        _print([asdict(one) for one in found])
        return
    put(drawn(lambda console: _table(found, console)))


@incident.command("open")
def open_(
    title: Annotated[str, typer.Argument(help="What it is about.")],
    severity: Annotated[str, typer.Option(help="page or ticket.")] = "ticket",
    model: Annotated[str, typer.Option(help="The model that it is about.")] = "",
    campaign: Annotated[str, typer.Option(help="The id of the campaign that it is about.")] = "",
    config: _Config = _FILE,
    who: _Who = None,
) -> None:
    """Open an incident by hand, and print its number; a campaign has one."""
    from .._errors import ConfigError
    from ..respond import open_incident

    if severity not in ("page", "ticket"):
        raise ConfigError(f"--severity is {severity!r}; it is page or ticket")
    found = open_incident(
        _desk(config), title, who=_user(who), severity=severity, model=model,  # type: ignore[arg-type]
        campaign=campaign,
    )  # fmt: skip
    put(f"{found.id}\n")


@incident.command()
def show(identity: _Number, config: _Config = _FILE, json: _Json = False) -> None:
    """Show an incident: its campaign, the steps of its runbooks, and its timeline."""
    from dataclasses import asdict

    desk = _desk(config)
    found = desk.incidents.get(identity)
    campaign = desk.campaign(found)
    steps, timeline = desk.incidents.steps(identity), desk.incidents.timeline(identity)
    if json:
        told = {"steps": [asdict(one) for one in steps]}
        told["timeline"] = [asdict(one) for one in timeline]
        _print({**asdict(found), "about": campaign and asdict(campaign), **told})
        return
    lines = [f"incident {found.id}: {_plain(found.title)}", f"{found.state}, {found.severity}"]
    if campaign is not None:
        lines.append(
            f"campaign {campaign.id}: {campaign.kind}, {campaign.clients:,} clients, "
            f"{campaign.flagged:,} of {campaign.requests:,} requests flagged"
        )
    lines += [_step(one) for one in steps]
    lines += [f"{_time(one.wall)}  {_plain(one.who)}: {_plain(one.text)}" for one in timeline]
    put("".join(f"{line}\n" for line in lines))


@incident.command()
def watch(
    config: _Config = _FILE,
    once: Annotated[bool, typer.Option("--once", help="One pass, and end.")] = False,
) -> None:
    """Open incidents from alerts and work through runbooks, until it is ended."""
    import signal
    from threading import Event

    from ..respond import Responder

    responder = Responder(config)

    def told(line: str) -> None:
        typer.echo(_plain(line), err=True)

    if once:
        for one in responder.step():
            told(f"incident {one.id} opened: {one.title}")
        return
    ended = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    told(f"responder: looks every {responder.desk.config.respond.every:g} seconds")
    responder.run(ended.is_set, told=told)
    told("responder: ended")


@incident.command()
def run(
    identity: _Number,
    runbook: Annotated[str, typer.Argument(help="Its name; see `withstand incident runbooks`.")],
    config: _Config = _FILE,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what each step would do, and touch nothing.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="From the beginning, where it came to its end.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until nothing but approvals is waited for.")
    ] = False,
    who: _Who = None,
    json: _Json = False,
) -> None:
    """Run a runbook on an incident, or go on with it; exit code 1 where a step has failed."""
    from ..respond import dry_run, run_runbook

    desk = _desk(config)
    if dry:
        lines = dry_run(desk, identity, runbook)
        _print(lines) if json else put("".join(f"{_plain(line)}\n" for line in lines))
        return
    with interruptible("the same command, or `withstand incident watch`, goes on"):
        steps = run_runbook(desk, identity, runbook, who=_user(who), again=again)
        while wait and any(step.state == "running" for step in steps):
            import time

            time.sleep(0.5)
            steps = run_runbook(desk, identity, runbook, who=_user(who))
    _steps(steps, json)


@incident.command()
def approve(
    identity: _Number,
    step: Annotated[int, typer.Argument(help="The step's number.")],
    config: _Config = _FILE,
    decline: Annotated[bool, typer.Option("--decline", help="Let it not be done.")] = False,
    who: _Who = None,
    json: _Json = False,
) -> None:
    """Agree to a step that asks for it, and go on; exit code 1 where it then fails."""
    from ..respond import approve as agreed

    found = agreed(_desk(config), identity, step, who=_user(who), agreed=not decline)
    _steps([found], json)


@incident.command()
def replay(
    identity: _Number,
    config: _Config = _FILE,
    json: _Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No word of the files.")] = False,
) -> None:
    """Show an incident's recorded inputs to the models of respond.replay, and compare."""
    from ..respond import replay as shown

    desk = _desk(config)
    found = shown(desk, identity)
    put(found.to_json() if json else found.to_markdown())
    if not quiet:
        typer.echo(f"written: {desk.folder(identity) / 'replay.md'}", err=True)


@incident.command()
def postmortem(
    identity: _Number,
    output: Annotated[
        Path | None, typer.Option(help="The file to write; standard output if not given.")
    ] = None,
    config: _Config = _FILE,
    who: _Who = None,
) -> None:
    """Write down what happened, what it did, what was done, and what is missing, in Markdown."""
    from ..respond import postmortem as written
    from ..respond import write_postmortem

    desk = _desk(config)
    if output is None:
        put(written(desk, identity))
        return
    write_postmortem(desk, identity, output, who=_user(who))
    typer.echo(f"written: {output}", err=True)


@incident.command()
def resolve(
    identity: _Number,
    why: Annotated[str, typer.Option(help="What is said of the reason.")],
    config: _Config = _FILE,
    who: _Who = None,
) -> None:
    """Close an incident; an alert of its campaign that fires later opens another one."""
    from ..respond import resolve as resolved

    found = resolved(_desk(config), identity, who=_user(who), why=why)
    typer.echo(f"resolved: incident {found.id}", err=True)


@incident.command()
def note(
    identity: _Number,
    text: Annotated[str, typer.Argument(help="What is to be remembered.")],
    config: _Config = _FILE,
    who: _Who = None,
) -> None:
    """Add a line to an incident's timeline."""
    from ..respond import note as noted

    noted(_desk(config), identity, text, who=_user(who))
    typer.echo("noted", err=True)


@incident.command()
def review(
    fingerprint: Annotated[str, typer.Argument(help="The input's, as evidence has it.")],
    verdict: Annotated[str, typer.Option(help="adversarial or benign.")],
    label: Annotated[int | None, typer.Option(min=0, help="Its true class.")] = None,
    why: Annotated[str, typer.Option(help="What is said of the reason.")] = "",
    config: _Config = _FILE,
    who: _Who = None,
) -> None:
    """Say what a flagged input really is; only what is confirmed so may be trained on."""
    from ..respond import review as reviewed

    found = reviewed(_desk(config), fingerprint, verdict, who=_user(who), why=why, label=label)
    typer.echo(f"{found.verdict}: {found.fingerprint[:16]}", err=True)


@incident.command()
def runbooks(
    check: Annotated[
        str | None, typer.Argument(metavar="[check]", help="check: only whether all are sound.")
    ] = None,
    config: _Config = _FILE,
    json: _Json = False,
) -> None:
    """List the runbooks, built-in ones and your own, or check them."""
    from .._errors import ConfigError
    from ..respond import runbooks as read

    if check not in (None, "check"):
        raise ConfigError(f"{check!r} is not known; write `withstand incident runbooks check`")
    found = read(_desk(config))
    if json:
        _print([one.model_dump(by_alias=True) for one in found.values()])
    elif check:
        put(f"sound: {len(found)} runbooks\n")
    else:
        put("".join(f"{name}: {_plain(one.about) or '-'} ({len(one.steps)} steps)\n"
                    for name, one in found.items()))  # fmt: skip


def _desk(config: Path) -> Desk:
    from ..respond import Desk

    return Desk(config)


def _user(given: str | None) -> str:
    from getpass import getuser

    if given:
        return given
    try:
        return getuser()
    except (OSError, KeyError):
        return "somebody"


def _print(content: Any) -> None:
    import json

    put(json.dumps(content, indent=2) + "\n")


def _plain(text: object) -> str:
    """A text of unknown origin, without what could steer a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(text))


def _time(wall: float | None) -> str:
    from datetime import UTC, datetime

    return "-" if wall is None else f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%d %H:%M:%S}Z"


def _step(step: Step) -> str:
    result = f": {_plain(step.result)}" if step.result else ""
    return f"step {step.number}, {_plain(step.name)} ({_plain(step.action)}): {step.state}{result}"


def _steps(steps: list[Step], json: bool) -> None:
    from dataclasses import asdict

    if json:
        _print([asdict(one) for one in steps])
    else:
        put("".join(f"{_step(one)}\n" for one in steps))
    if any(one.state == "failed" for one in steps):
        raise typer.Exit(1)


def _table(found: list[Incident], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("id", "opened (UTC)", "state", "severity", "model", "title", box=None)
    for one in found:
        cells = (one.state, one.severity, one.model or "-", one.title)
        told = (Text(_plain(cell)) for cell in cells)
        table.add_row(str(one.id), _time(one.opened)[:16], *told)
    console.print(table if found else "no incidents")
