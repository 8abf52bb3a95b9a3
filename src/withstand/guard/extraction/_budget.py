"""How many answers a client has had."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from ..._errors import ConfigError
from .._sensor import Call, Sensor, Signal
from ..answers import Answered


class AnswerBudget(Sensor):
    """Flags a client that has had its budget of answers, each row one, in so many seconds or ever.

    The one measure that a copy with natural queries does not evade: it can be learned from so many
    answers or it cannot. by: whose answers are counted together, a key's or all those of a tenant,
    which makes no more of many keys. A flag does not make the client climb: to ask much is no
    attack. The budget fills up again evenly; it is kept in memory only, of `clients` at most, and a
    restart forgives it. Some 3 microseconds.
    """

    def __init__(
        self, answers: int, *, seconds: float = math.inf, by: Literal["key", "tenant"] = "key",
        name: str = "answers", action: str = "coarsen", clients: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        if answers < 1 or not seconds > 0:
            raise ConfigError(f"{answers} answers in {seconds:g} s; give at least 1, in above 0 s")
        self.name, self.action, self.climbs = name, action, False
        self.answers, self.by = answers, by
        self._pace, self._clients, self._clock = answers / seconds, clients, clock
        self._had: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def learn(self, call: Call, answered: Answered) -> Signal | None:
        """Counts the rows of an answer; the answer that goes beyond the budget is flagged."""
        if not answered.outputs:
            return None
        client = call.key.id if self.by == "key" else call.key.tenant
        rows = max([len(output.values) for output in answered.outputs])
        if not rows:
            rows = max([len(named.values) for named in call.asked.inputs])
        now = self._clock()
        had, since = self._had.pop(client, (0.0, now))
        had = max(0.0, had - (now - since) * self._pace) + rows
        # What is coarse already need not be paid off as well.
        self._had[client] = (min(had, float(self.answers)), now)
        if len(self._had) > self._clients:
            self._had.popitem(last=False)
        return Signal(self.name, had, float(self.answers), had > self.answers)
