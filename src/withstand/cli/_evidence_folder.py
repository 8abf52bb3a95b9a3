"""Which log a command is about, and the inputs that belong to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..evidence.log import Vault

Folder = Annotated[Path, typer.Argument(help="The folder of the log.")]
Inputs = Annotated[
    Path | None, typer.Option("--vault", help="Its inputs; the folder vault in it if not given.")
]


def there(folder: Path) -> Path:
    """A folder that holds a log; raises EvidenceError for another."""
    from .._errors import EvidenceError

    if not any(folder.glob("*.log")):
        raise EvidenceError(f"{folder} holds no evidence log; give the folder that a guard writes")
    return folder


def vault_of(folder: Path, given: Path | None) -> Vault | None:
    """The inputs of a log, without the key that opens them; None where there are none."""
    from ..evidence.log import Vault

    place = folder / "vault" if given is None else given
    return Vault(place) if given is not None or place.is_dir() else None
