"""The switch that ends campaigns, whoever has started them."""

from __future__ import annotations

import json
import os
import time

from .._errors import OperationError
from ..monitor import Act, Audit, Store
from ._brakes import STOP


def stop(store: Store, *, who: str, why: str) -> None:
    """End all campaigns of a store before their next query, and let none begin.

    Raises OperationError where the switch cannot be written.
    """
    path = store.folder / STOP
    part = path.with_name(f".{STOP}.{os.getpid()}")
    try:
        with part.open("w") as file:
            file.write(json.dumps({"who": who, "why": why, "wall": time.time()}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
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
