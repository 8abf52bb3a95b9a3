"""withstand monitor"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._streams import put

if TYPE_CHECKING:
    from ..monitor import Alert, Figure, SloStatus

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


def _told(config: Path) -> Any:
    from ..config import load_operations

    return load_operations(config).monitor


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
