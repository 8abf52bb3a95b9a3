"""How many requests a client may make: the generic cell rate algorithm."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..._errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Rate:
    """So many requests in so many seconds, of which `burst` may come at once."""

    requests: int
    seconds: float = 1.0
    burst: int | None = None

    def __post_init__(self) -> None:
        if self.requests < 1 or not self.seconds > 0:
            raise ConfigError(
                f"a rate of {self.requests} requests in {self.seconds:g} s; give at least 1, and "
                "more than 0 s"
            )
        if self.burst is not None and self.burst < 1:
            raise ConfigError(f"burst is {self.burst}; give at least 1")


class Verdict(NamedTuple):
    """Whether a request may pass, how many more may at once, and seconds until that is so again.

    reset: until all of the burst is there; retry: until one is, 0 where the request passes.
    """

    allowed: bool
    remaining: int
    reset: float
    retry: float


class Quota:
    """A rate for each client, in a memory that does not grow (GCRA, ITU-T I.371).

    Of each client one number is kept: when the requests so far would have come at an even pace.
    Clients beyond `clients` are forgotten, the longest unseen first. clock: one that is never set.
    """

    def __init__(
        self, rate: Rate, *, clients: int = 100_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate, self._clients, self._clock = rate, clients, clock
        self._pace = rate.seconds / rate.requests
        self._burst = rate.requests if rate.burst is None else rate.burst
        self._due: OrderedDict[str, float] = OrderedDict()
        self._policy = f'"default";q={rate.requests};w={math.ceil(rate.seconds)}'

    def take(self, client: str, cost: int = 1) -> Verdict:
        """Ask for a request of a client, which counts as `cost` if it passes, else as nothing."""
        now, most = self._clock(), self._burst * self._pace
        before = max(self._due.get(client, now), now)
        after = before + cost * self._pace
        allowed = after - now <= most * (1 + 1e-9)
        due = after if allowed else before
        if allowed:
            self._due[client] = due
            self._due.move_to_end(client)
            if len(self._due) > self._clients:
                self._due.popitem(last=False)
        remaining = max(0, math.floor((most - (due - now)) / self._pace + 1e-9))
        return Verdict(allowed, remaining, due - now, 0.0 if allowed else after - now - most)

    def headers(self, verdict: Verdict) -> dict[str, str]:
        """What a client is told (draft-ietf-httpapi-ratelimit-headers); seconds are whole ones."""
        reset = math.ceil(verdict.reset - 1e-9)
        told = {
            "ratelimit-policy": self._policy,
            "ratelimit": f'"default";r={verdict.remaining};t={max(0, reset)}',
        }
        if not verdict.allowed:
            told["retry-after"] = str(max(1, math.ceil(verdict.retry - 1e-9)))
        return told
