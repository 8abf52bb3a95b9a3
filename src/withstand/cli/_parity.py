"""withstand parity"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._streams import drawn, interruptible, put

if TYPE_CHECKING:
    from ..evaluate.parity import Parity


def parity(
    config: Annotated[Path, typer.Option(help="The configuration.")] = Path("withstand.yaml"),
    limit: Annotated[
        int, typer.Option(min=1, help="Inputs that are compared, spread evenly over the data.")
    ] = 256,
    json: Annotated[
        bool, typer.Option("--json", help="Print the comparison as JSON, and nothing else.")
    ] = False,
) -> None:
    """Find out whether the served pipeline is the evaluated one, and which step differs.

    Compares `model` and `served` of the configuration on its data. Exits 0 where they answer alike,
    1 where they do not, 3 where too few inputs were compared.
    """
    from ..config import load_config

    configured = load_config(config)
    with interruptible("nothing was kept; run it again"):
        # They take seconds to import: what is wrong with the configuration is said before.
        from ..evaluate.parity import parity_of

        found = parity_of(configured, config.parent, limit=limit)
        put(found.to_json() if json else _story(found))
    raise typer.Exit(1 if found.differs else 0 if found.conclusive else 3)


def _story(found: Parity) -> str:
    from ..evaluate.parity import show

    return drawn(lambda console: show(found, console))
