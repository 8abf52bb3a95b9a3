"""All actions by name."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from ._canaries import Canary
from ._contract import Action
from ._corpus import AddToCorpus
from ._jobs import Replay, Retrain
from ._notify import Notify
from ._orders import Lift, Mitigate
from ._snapshot import Snapshot

_ORDERED = ("throttle", "coarsen", "delay", "reroute", "quarantine", "block")


def actions() -> dict[str, Action[Any]]:
    """Actions by name; the entry point group `withstand.actions` adds classes to them."""
    ours: list[Action[Any]] = [
        *(Mitigate(name) for name in _ORDERED),
        Lift(),
        Canary("roll_back", "rollback"),
        Canary("freeze", "freeze"),
        Snapshot(),
        Notify(),
        Replay(),
        AddToCorpus(),
        Retrain(),
    ]
    found = {one.name: one for one in ours}
    for entry in entry_points(group="withstand.actions"):
        found[entry.name] = entry.load()()
    return dict(sorted(found.items()))
