"""withstand gate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from ..config import Config
    from ..gate import Baseline, Extra, Gate


def gate(
    config: Annotated[Path, typer.Option(help="The configuration.")] = Path("withstand.yaml"),
    report: Annotated[
        Path | None,
        typer.Option(help="Folder of a finished report to judge, instead of attacking."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Folder of the last release's report.")
    ] = None,
    coverage: Annotated[
        Path | None, typer.Option(help="File that pytest --robustness-coverage wrote.")
    ] = None,
    detection: Annotated[
        Path | None, typer.Option(help="Folder of the report of `withstand detect evaluate`.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="smoke, standard or thorough: how much is spent.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Time limit in all.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the gate's files.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress, and no word of the files.")
    ] = False,
) -> None:
    """Decide whether the configured model may be released.

    Exits 0 if every limit of the gate section is met, 1 if one is missed, 3 if it is not certain.
    Attacks as few samples as that takes, or judges a report. Writes gate.json, gate.md, junit.xml
    and gate.sarif.
    """
    given: dict[str, dict[str, Any]] = {
        "evaluate": {"preset": preset, "seed": seed, "seconds": seconds},
        "gate": {
            "baseline": None if baseline is None else str(baseline.absolute()),
            "coverage": None if coverage is None else str(coverage.absolute()),
            "detection": None if detection is None else str(detection.absolute()),
            "output": None if output is None else str(output.absolute()),
        },
    }
    with interruptible("nothing was decided; start it again"):
        from ..config import load_config

        found, files = _gated(config, load_config(config, given), report, quiet)
        put(found.to_json() if json else _story(found))
    if not quiet:
        typer.echo(f"written: {', '.join(str(file) for file in files)}", err=True)
    raise typer.Exit(found.exit_code)


def _gated(path: Path, config: Config, report: Path | None, quiet: bool) -> tuple[Gate, list[Path]]:
    # These take seconds to import: what is wrong with the configuration is said before.
    from ..evaluate import check_writable, threat_from
    from ..gate import forget, read_baseline, read_coverage, read_detection, save

    root, asked = path.parent, config.gate
    folder = check_writable(root / asked.output)
    try:
        before = None if asked.baseline is None else read_baseline(root / asked.baseline)
    finally:
        # The last gate's folder may be the baseline.
        forget(folder)
    tests = read_coverage(root / asked.coverage)
    extra = {
        **({} if tests is None else {"adversarial_test_coverage": tests}),
        **read_detection(
            root / (asked.detection or config.evaluate.output),
            asked,
            threat_from(config, root),
            config.model.access,
        ),
    }
    if report is not None:
        found = _judged(config, root, report, before, extra)
        return found, save(found, folder, config=path)
    found, examples = _attacked(config, root, folder, before, extra, quiet)
    return found, [*save(found, folder, config=path), examples]


def _judged(
    config: Config, root: Path, report: Path, before: Baseline | None, extra: Extra
) -> Gate:
    from ..evaluate import check_same, from_config, read_report
    from ..gate import judge_report

    told = read_report(report)
    setup = from_config(config, root)
    check_same(told.get("provenance"), setup.model, setup.data)
    return judge_report(
        told, config.gate, before, extra, threat=setup.threat, given=config.model.access
    )


def _attacked(
    config: Config,
    root: Path,
    folder: Path,
    before: Baseline | None,
    extra: Extra,
    quiet: bool,
) -> tuple[Gate, Path]:
    from ..evaluate import from_config
    from ..gate import Effort, save_examples
    from ..gate import gate as run
    from ._progress import shown

    settings = config.evaluate
    setup = from_config(config, root)
    effort = Effort(
        preset=settings.preset,
        seed=settings.seed,
        batch_size=settings.batch_size or 64,
        seconds=settings.seconds,
    )
    with shown(quiet) as progress:
        found = run(
            setup,
            config.gate,
            baseline=before,
            extra=extra,
            effort=effort,
            corpus=None if settings.corpus is None else root / settings.corpus,
            progress=progress,
        )
    return found.gate, save_examples(found, setup.data.x, setup.data.y, folder)


def _story(found: Gate) -> str:
    from ..gate import show

    return drawn(lambda console: show(found, console))
