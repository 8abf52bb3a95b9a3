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


def place_of(folder: Path, given: Path | None) -> Path:
    """Where the inputs of a log are, if it has any."""
    return folder / "vault" if given is None else given


def vault_of(folder: Path, given: Path | None) -> Vault | None:
    """The inputs of a log, without the key that opens them; None where there are none.

    Raises EvidenceError where the folder that is given is no vault.
    """
    from ..evidence.log import Vault, is_vault

    place = place_of(folder, given)
    return Vault(place) if given is not None or is_vault(place) else None
