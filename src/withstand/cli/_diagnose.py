"""withstand diagnose"""

from __future__ import annotations

import json as codec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from ..evaluate import Fixed, Report


def diagnose(
    run: Annotated[
        Path, typer.Argument(help="Folder of a report that `withstand evaluate` wrote.")
    ] = Path("withstand-report"),
    fix: Annotated[
        bool, typer.Option("--fix", help="Attack again as the findings ask, and compare.")
    ] = False,
    config: Annotated[
        Path, typer.Option(help="The configuration that was evaluated; for --fix.")
    ] = Path("withstand.yaml"),
    output: Annotated[
        Path | None, typer.Option(help="Folder of the report after --fix; RUN-fixed if not given.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the findings as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress, and no word of the files.")
    ] = False,
) -> None:
    """Find out whether a report's number can be believed, and what to do where it cannot.

    Exits 0 where trust is green or amber, 3 where it is red: the number says too little.
    """
    if not fix:
        from ..evaluate import load_trust, read_report, show_trust

        trust = load_trust(run)
        if json:
            put(codec.dumps(read_report(run)["trust"], indent=2) + "\n")
        else:
            put(drawn(lambda console: show_trust(trust, console)))
        raise typer.Exit(3 if trust.verdict == "red" else 0)
    with interruptible("nothing was changed; run it again"):
        fixed, files = _fixed(run, config, output or run.with_name(f"{run.name}-fixed"), quiet)
        put(fixed.to_json() if json else _story(fixed))
    if not quiet:
        typer.echo(f"written: {', '.join(str(file) for file in files)}", err=True)
    raise typer.Exit(3 if fixed.after.trust.verdict == "red" else 0)


def _fixed(run: Path, config: Path, folder: Path, quiet: bool) -> tuple[Fixed, list[Path]]:
    from ..config import load_config

    configured = load_config(config)

    # These take seconds to import: what is wrong with the configuration is said before.
    from ..evaluate import (
        check_same,
        check_same_threat,
        check_writable,
        fix,
        from_config,
        load_report,
    )
    from ..threat import Budget
    from ._progress import shown

    before: Report = load_report(run)
    settings = configured.evaluate
    check_writable(folder)
    setup = from_config(configured, config.parent)
    check_same(before.provenance, setup.model, setup.data)
    check_same_threat(before.threat, setup.threat)
    with shown(quiet) as progress:
        fixed = fix(
            setup.model,
            setup.data,
            setup.threat,
            before,
            preset=before.provenance["preset"],
            seed=before.provenance["seed"],
            budget=Budget(seconds=settings.seconds),
            batch_size=before.provenance["batch_size"],
            severity=settings.severity,
            corpus=None if settings.corpus is None else config.parent / settings.corpus,
            progress=progress,
        )
    return fixed, fixed.after.save(folder)


def _story(fixed: Fixed) -> str:
    from ..evaluate import show_fixed

    return drawn(lambda console: show_fixed(fixed, console))
