"""withstand monitor"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._streams import put

if TYPE_CHECKING:
    from ..monitor import Alert, Figure, Silence, Silences, SloStatus

monitor = typer.Typer(
    help="Watch a model in service: SLIs, budgets, campaigns, alerts.", no_args_is_help=True
)

_Config = Annotated[
    Path, typer.Option(help="The configuration with the sections guard and monitor.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
_FILE = Path("withstand.yaml")


@monitor.callback()
def _group() -> None:
    """Watch a model in service: SLIs, budgets, campaigns, alerts."""


@monitor.command()
def run(
    config: _Config = _FILE,
    once: Annotated[
        bool, typer.Option("--once", help="Read all there is, tell receivers, and end.")
    ] = False,
) -> None:
    """Follow the guard's evidence and tell receivers of alerts until SIGTERM."""
    import logging

    from .._errors import ConfigError

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    if once:
        from ..monitor import Monitor

        watching = Monitor(config)
        while watching.step().followed.behind:
            pass
        watching.receivers.deliver()
        if watching.spans is not None:
            watching.spans.deliver()
        return
    try:
        from ..monitor.serve import serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the monitor needs {error.name}; pip install 'withstand[serve]'"
        ) from None
    serve(
        config, told=lambda address: typer.echo(f"monitor: figures at http://{address}", err=True)
    )


@monitor.command()
def status(config: _Config = _FILE, json: _Json = False) -> None:
    """What the SLIs are and what is left of budgets, as was last looked at.

    Exit code 1 while a page holds, 3 where there is no data at all.
    """
    import json as plain
    import time

    from ..monitor import Alerts, Store, figures, slos_of
    from ..monitor import status as standing

    told = _told(config)
    store, now = Store(config.parent / told.folder), time.time()
    found, promised = figures(store, now), standing(store, slos_of(told), now)
    alerts = [one for one in Alerts(store).all(open=True) if not one.suppressed]
    if json:
        put(
            plain.dumps(
                {
                    "figures": [one.to_dict() for one in found],
                    "slos": [one.to_dict() for one in promised],
                    "alerts": [_alert(one) for one in alerts],
                },
                indent=2,
            )
            + "\n"
        )
    else:
        put("".join(f"{line}\n" for line in _story(found, promised, alerts)))
    if any(one.severity == "page" for one in alerts):
        raise typer.Exit(1)
    if not any(one.interval.n for one in found):
        raise typer.Exit(3)


@monitor.command()
def check(config: _Config = _FILE, json: _Json = False) -> None:
    """Whether the configuration can do what it says; exit code 1 where it cannot.

    It names every rule that can never fire, with its limit and the fix.
    """
    import json as plain

    from ..config import load_operations
    from ..monitor import warnings

    found = warnings(load_operations(config), config.parent)
    if json:
        put(plain.dumps({"warnings": found}, indent=2) + "\n")
    else:
        put("".join(f"{line}\n" for line in found) or "every rule can fire\n")
    if found:
        raise typer.Exit(1)


@monitor.command()
def rules(
    config: _Config = _FILE,
    output: Annotated[Path, typer.Option(help="Folder of the files.")] = Path("prometheus"),
    json: _Json = False,
) -> None:
    """Write the same rules for Prometheus, a dashboard for Grafana, routes for Alertmanager."""
    import json as plain

    from ..monitor import slos_of
    from ..monitor.export import written

    paths = written(slos_of(_told(config)), output)
    if json:
        put(plain.dumps({"files": [str(one) for one in paths]}) + "\n")
        return
    for one in paths:
        typer.echo(f"written: {one}", err=True)


@monitor.command()
def alerts(
    config: _Config = _FILE,
    every: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    last: Annotated[int, typer.Option(min=1, help="The most alerts; the newest are shown.")] = 20,
    json: _Json = False,
) -> None:
    """The alerts that hold, newest first; exit code 1 while a page is among them."""
    import json as plain

    from ..monitor import Alerts, Store

    store = Store(config.parent / _told(config).folder)
    found = Alerts(store).all(open=None if every else True, last=last)
    if json:
        put(plain.dumps([_alert(one) for one in found], indent=2) + "\n")
    else:
        put("".join(f"{_line(one)}\n" for one in found) or "no alerts\n")
    if any(one.severity == "page" and one.ends is None and not one.suppressed for one in found):
        raise typer.Exit(1)


@monitor.command()
def silence(
    label: Annotated[
        list[str], typer.Argument(help="Labels that the alerts have, as slo=anomalies.")
    ],
    why: Annotated[str, typer.Option(help="Why nobody shall be told; it is kept.")],
    hours: Annotated[float, typer.Option(help="How long; 168 at most.")] = 1.0,
    config: _Config = _FILE,
    json: _Json = False,
) -> None:
    """Tell receivers nothing of alerts with all these labels for a while.

    They are still counted and shown, and incidents are still opened. Whoever knows of an alert
    already is told that it ends. Broken evidence is never silenced.
    """
    import getpass
    import time

    from .._errors import OperationError

    pairs = [one.partition("=") for one in label]
    if not all(name and between for name, between, _ in pairs):
        raise OperationError(f"{', '.join(label)[:80]!r} is no label=value; give slo=anomalies")
    _said(
        _silences(config).add(
            {name: value for name, _, value in pairs}, hours, who=getpass.getuser(), why=why,
            now=time.time(),
        ),
        json,
    )  # fmt: skip


@monitor.command()
def unsilence(
    identity: Annotated[str, typer.Argument(help="The id of the silence.")],
    config: _Config = _FILE,
    json: _Json = False,
) -> None:
    """End a silence now; receivers are told of what still holds."""
    import getpass
    import time

    _said(_silences(config).end(identity, who=getpass.getuser(), now=time.time()), json)


@monitor.command()
def silences(config: _Config = _FILE, json: _Json = False) -> None:
    """The silences that last."""
    import json as plain
    import time
    from dataclasses import asdict

    found = _silences(config).all(time.time())
    if json:
        put(plain.dumps([asdict(one) for one in found], indent=2) + "\n")
    else:
        put("".join(_silent(one) for one in found) or "no silences\n")


@monitor.command()
def audit(
    config: _Config = _FILE,
    anchor: Annotated[
        str | None,
        typer.Option(help="Signed checkpoints kept elsewhere: a file, or s3://bucket/prefix."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="The public key (hex) that signed them.")] = None,
    json: _Json = False,
) -> None:
    """Whether the log of who did what is what was written; exit code 1 where it is not.

    Without an anchor it shows any change but one: whoever can write all of it can make another.
    Know the public key from elsewhere, too: it is shown while all is well.
    """
    import json as plain

    from .._errors import ConfigError, OperationError
    from ..evidence.log import Signer, checkpoints_at
    from ..monitor import SIGNING, Audit, Store

    if (anchor is None) != (key is None):
        raise ConfigError("--anchor and --key belong together; give both or neither")
    told = _told(config)
    store = Store(config.parent / told.folder)
    heads = [] if anchor is None or key is None else checkpoints_at(anchor, key)
    found: dict[str, Any] = {"sound": True, "actions": 0, "anchored": 0, "fault": ""}
    try:
        found["actions"] = Audit(store).verify([one.head for one in heads])
        found["anchored"] = max((one.seq for one in heads), default=0)
    except OperationError as error:
        found |= {"sound": False, "fault": str(error)}
    own = store.folder / SIGNING
    found["key"] = Signer(own, anchors=()).public if own.exists() else ""
    put(plain.dumps(found) + "\n" if json else _chain(found))
    if not found["sound"]:
        raise typer.Exit(1)


def _told(config: Path) -> Any:
    from ..config import load_operations

    return load_operations(config).monitor


def _silences(config: Path) -> Silences:
    from ..monitor import Silences, Store

    return Silences(Store(config.parent / _told(config).folder))


def _said(one: Silence, json: bool) -> None:
    import json as plain
    from dataclasses import asdict

    put(plain.dumps(asdict(one)) + "\n" if json else _silent(one))


def _silent(one: Silence) -> str:
    import json
    from datetime import UTC, datetime

    until = f"{datetime.fromtimestamp(one.until, UTC):%Y-%m-%d %H:%M:%S}Z"
    labels = " ".join(f"{name}={value}" for name, value in one.labels.items())
    return f"{one.id}  until {until}  {json.dumps(labels)[1:-1]}  {json.dumps(one.why)}\n"


def _chain(found: dict[str, Any]) -> str:
    if not found["sound"]:
        return f"{found['fault']}\n"
    actions = "1 action" if found["actions"] == 1 else f"{found['actions']:,} actions"
    lines = [
        f"{actions} in an unbroken chain",
        f"anchored up to action {found['anchored']:,}" if found["anchored"] else
        "not anchored: it is not what it was if somebody wrote all of it anew",
    ]  # fmt: skip
    if found["key"]:
        lines.append(f"signed with {found['key']}")
    return "".join(f"{line}\n" for line in lines)


def _alert(one: Alert) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(one), "fingerprint": one.fingerprint, "severity": one.severity}


def _line(one: Alert) -> str:
    import json
    from datetime import UTC, datetime

    when = datetime.fromtimestamp(one.starts, UTC).isoformat(" ", "seconds")[:-6]
    state = "over" if one.ends is not None else "suppressed" if one.suppressed else one.severity
    # ASCII alone, so that nothing that a client sent steers a terminal.
    summary = json.dumps(one.annotations.get("summary", ""))[1:-1]
    return f"{when}  {state:<10} {one.name:<24} {summary}"


def _story(figures: list[Figure], promised: list[SloStatus], alerts: list[Alert]) -> list[str]:
    lines = []
    for one in figures:
        of = " ".join(part for part in (one.model, one.of.replace("_", " ")) if part)
        name = f"{one.sli.id:<4}{one.sli.name}{f' ({of})' if of else ''}"
        lines.append(f"{name:<48} {_told_figure(one)}")
    for slo in promised:
        left = "no data" if slo.budget_left is None else f"{100 * slo.budget_left:.0f} % left"
        rules = f"; fires: {', '.join(slo.firing)}" if slo.firing else ""
        name = f"SLO {slo.slo.name} ({slo.sli.id}, {slo.slo.days:g} days)"
        allowed = f"{slo.bad:,} bad of {slo.allowed:,.4g} allowed"
        lines.append(f"{name:<48} {slo.verdict}: {left}, {allowed}{rules}")
        lines += [f"warning: {line}" for line in slo.unreachable]
    return lines + [_line(one) for one in alerts]


def _told_figure(one: Figure) -> str:
    found = one.interval
    if not found.n:
        return "no data"
    if one.sli.unit == "share":
        bad = "" if one.bad is None else f", {one.bad:,} bad"
        return f"{found} of {found.n:,}{bad}"
    ends = [f"{end:.3g}" if math.isfinite(end) else "?" for end in (found.low, found.high)]
    unit = f" {one.sli.unit}" if one.sli.unit else ""
    return f"{found.value:.3g}{unit} [{ends[0]}, {ends[1]}] of {found.n:,}"
