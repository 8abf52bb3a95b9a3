"""The switch that ends campaigns, whoever has started them."""

from __future__ import annotations

import json
import time

from .._errors import OperationError
from .._whole import whole
from ..monitor import Act, Audit, Store
from ._brakes import STOP


def stop(store: Store, *, who: str, why: str) -> None:
    """End all campaigns of a store before their next query, and let none begin.

    Raises OperationError where the switch cannot be written.
    """
    path = store.folder / STOP
    told = json.dumps({"who": who, "why": why, "wall": time.time()})
    try:
        with whole(path) as file:
            file.write(f"{told}\n".encode())
    except OSError as error:
        raise OperationError(
            f"{path} cannot be written ({error.strerror}); end the campaign with SIGTERM"
        ) from None
    Audit(store).add(Act(who=who, role="system", action="redteam stop", detail={"why": why}))


def lift(store: Store, *, who: str, why: str) -> bool:
    """Let campaigns begin again; False where they may already."""
    try:
        (store.folder / STOP).unlink()
    except FileNotFoundError:
        return False
    Audit(store).add(Act(who=who, role="system", action="redteam lift", detail={"why": why}))
    return True
