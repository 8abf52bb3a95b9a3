"""withstand bench"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from rich.console import Console

    from ..workflows import AttackBench

bench = typer.Typer(help="Measure what attacks are worth.", no_args_is_help=True)


@bench.callback()
def _group() -> None:
    """Measure what attacks are worth."""


@bench.command()
def attacks(
    config: Annotated[Path, typer.Option(help="The configuration.")] = Path("withstand.yaml"),
    norm: Annotated[
        str | None,
        typer.Option(help="linf, l2, l1, l0, or several with commas; the threat's if not given."),
    ] = None,
    attacks: Annotated[
        str | None, typer.Option(help="Names with commas between; all that fit if not given.")
    ] = None,
    access: Annotated[
        str | None, typer.Option(help="gradients, scores or labels: what attacks may use.")
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="How many inputs.")] = 50,
    calls: Annotated[
        int, typer.Option(min=2, help="Most forwards and backwards together for each input.")
    ] = 1000,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the result; withstand-bench if not given.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress, and no word of the files.")
    ] = False,
) -> None:
    """Find out which attack to trust on the configured model and data, and at what cost.

    Writes bench.json and bench.html. Interrupted, the same command goes on behind the attacks that
    were done in the norm it was at.
    """
    given: dict[str, dict[str, Any]] = {"threat": {"access": access}, "evaluate": {"seed": seed}}
    norms = None if norm is None else [name.strip() for name in norm.split(",")]
    names = None if attacks is None else [name.strip() for name in attacks.split(",")]
    with interruptible("the same command goes on behind the attacks that were done"):
        benches, files = _benched(config, given, norms, names, samples, calls, output, quiet)
        put(_json(benches) if json else _story(benches))
    if not quiet:
        typer.echo(f"written: {', '.join(str(file) for file in files)}", err=True)


def _benched(
    config: Path,
    given: dict[str, dict[str, Any]],
    norms: list[str] | None,
    names: list[str] | None,
    samples: int,
    calls: int,
    output: Path | None,
    quiet: bool,
) -> tuple[dict[str, AttackBench], list[Path]]:
    from .._errors import ConfigError
    from ..config import load_config

    configured = load_config(config, given)
    known = ("linf", "l2", "l1", "l0")
    for norm in norms or ():
        if norm not in known:
            raise ConfigError(f"--norm is {norm!r}; it is one of {', '.join(known)}")

    # These take seconds to import: what is wrong with the words above is said before.
    from ..evaluate import check_writable, from_config, write
    from ..workflows import bench_attacks, bench_page, in_norm, to_json
    from ._progress import shown

    folder = check_writable(output or config.parent / "withstand-bench")
    setup = from_config(configured, config.parent)
    benches = {}
    with shown(quiet) as progress:
        for norm in norms or [setup.threat.norm]:
            benches[norm] = bench_attacks(
                setup.model,
                setup.data.head(samples),
                in_norm(setup.threat, norm),
                attacks=names,
                calls=calls,
                seed=configured.evaluate.seed,
                batch_size=configured.evaluate.batch_size or 64,
                checkpoint=folder / f"checkpoint-{norm}",
                progress=progress,
            )
    contents = {"bench.json": to_json(benches), "bench.html": bench_page(benches)}
    return benches, [write(folder / name, text.encode()) for name, text in contents.items()]


def _json(benches: dict[str, AttackBench]) -> str:
    from ..workflows import to_json

    return to_json(benches)


def _story(benches: dict[str, AttackBench]) -> str:
    from ..workflows import show_bench

    def draw(console: Console) -> None:
        for number, bench in enumerate(benches.values()):
            if number:
                console.print()
            show_bench(bench, console)

    return drawn(draw)
