"""withstand evaluate --layers"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ._streams import drawn

if TYPE_CHECKING:
    from ..config import Config
    from ..models import Defended, Model


def layered(config: Path, given: dict[str, Any], *, json: bool, quiet: bool) -> str:
    """What is printed of the configured system as a whole and without each of its layers.

    Writes layers.json into the folder of the report.
    """
    from ..config import load_config

    configured, root = load_config(config, {"evaluate": given}), config.parent
    settings = configured.evaluate
    _check(configured)

    # These take seconds to import: what is wrong with the configuration is said before.
    from ..evaluate import check_writable, evaluate_layers, from_config, show_layers, write
    from ..threat import Budget
    from ._progress import shown

    setup = from_config(configured.model_copy(update={"defences": []}), root)
    system = _system(configured, root, setup.model)
    folder = check_writable(root / settings.output)
    with shown(quiet) as progress:
        found = evaluate_layers(
            system,
            setup.data,
            setup.threat,
            preset=settings.preset,
            seed=settings.seed,
            budget=Budget(seconds=settings.seconds),
            batch_size=settings.batch_size or 64,
            progress=progress,
        )
    path = write(folder / "layers.json", found.to_json().encode())
    if not quiet:
        typer.echo(f"written: {path}", err=True)
    return found.to_json() if json else drawn(lambda console: show_layers(found, console))


def _check(configured: Config) -> None:
    from .._errors import ConfigError

    asked = {
        "evaluate.corpus": configured.evaluate.corpus,
        "evaluate.checkpoint": configured.evaluate.checkpoint,
        "surrogates": configured.surrogates,
    }
    for key, value in asked.items():
        if value:
            raise ConfigError(f"--layers has no use for {key}; take it out, or --layers")
    if not configured.defences and configured.detect is None:
        raise ConfigError(
            "there are 0 layers to take off; name them under defences, or fit a detector with a "
            "detect section and `withstand detect fit`"
        )


def _system(configured: Config, root: Path, model: Model) -> Defended:
    from ..models import defended

    system = defended(model, configured.defences)
    if configured.detect is None:
        return system
    from ..detect import load

    detector = load(root / configured.detect.output, system.model)
    return replace(system, detector=detector.suspicion, threshold=0.0)
