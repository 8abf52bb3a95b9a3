"""What is done about suspicion: a ladder of actions, which clients climb."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from .._errors import ConfigError

Mode = Literal["observe", "shadow", "enforce"]
"""observe: what was sent goes on as it is, and is looked at beside. shadow: all is done in line
and the canonical form goes on, but no action is taken. enforce: actions are taken."""

Action = Literal["tag", "coarsen", "delay", "throttle", "reroute", "quarantine", "block"]
ACTIONS: tuple[str, ...] = get_args(Action)
"""From mild to severe; a step of a ladder includes the mild ones below it."""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The actions that are taken, in the order of ACTIONS, and how fast a client climbs.

    climb: so many flagged requests within `window` seconds make a client stand a step higher, with
    all that it asks, flagged or not. clients: how many are remembered.
    """

    actions: tuple[str, ...] = ("tag", "coarsen", "delay", "throttle", "block")
    climb: int = 50
    window: float = 600.0
    clients: int = 100_000

    def __post_init__(self) -> None:
        order = [ACTIONS.index(action) for action in self.actions if action in ACTIONS]
        if len(order) < len(self.actions) or order != sorted(set(order)) or not order:
            raise ConfigError(
                f"ladder is {', '.join(self.actions) or 'empty'}; give some of "
                f"{', '.join(ACTIONS)}, each once and in this order"
            )
        if self.climb < 1 or not self.window > 0:
            raise ConfigError(
                f"climb is {self.climb} in {self.window:g} s; give at least 1, and more than 0 s"
            )

    def level(self, action: str) -> int:
        """How many steps up a flag with this action is: to the highest that is no severer."""
        severity = ACTIONS.index(action)
        return sum(ACTIONS.index(step) <= severity for step in self.actions)

    def steps(self, level: int) -> tuple[str, ...]:
        """The actions up to a level; none at level 0."""
        return self.actions[:level]


class Standing:
    """How far up the ladder each client stands: flags that fade, in a memory that does not grow."""

    def __init__(self, ladder: Ladder, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.ladder, self._clock = ladder, clock
        self._flags: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def of(self, client: str) -> int:
        """The level of a client because of what it asked before."""
        if client not in self._flags:
            return 0
        return min(int(self._faded(client) / self.ladder.climb), len(self.ladder.actions))

    def flagged(self, client: str) -> int:
        """Count a flag, and return the level of the client with it."""
        self._flags[client] = (self._faded(client) + 1, self._clock())
        self._flags.move_to_end(client)
        if len(self._flags) > self.ladder.clients:
            self._flags.popitem(last=False)
        return self.of(client)

    def _faded(self, client: str) -> float:
        count, since = self._flags.get(client, (0.0, 0.0))
        return count * math.exp(-max(0.0, self._clock() - since) / self.ladder.window)
