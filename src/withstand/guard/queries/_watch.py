"""Who asks about near copies of the same input, again and again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError
from ...stats import upper_bound
from ._ring import Ring
from ._sketch import Sketcher, differing

Array = NDArray[Any]

_RADII = 64
_FEWEST = 1000


class Sighting(NamedTuple):
    """What was seen of one query: near copies of it among the same client's last ones and among
    all clients', and whether that is an alarm."""

    own: int
    anybody: int
    alarm: bool


@dataclass(frozen=True, kw_only=True)
class Settings:
    """When near copies are an alarm.

    radii: two inputs are near that differ in at most so many of the 256 bits of either half of
    their sketches. copies: so many near ones are an alarm. own, anybody: how many queries are
    remembered of a client and of all; clients: of how many clients. bound: with 95 % confidence, at
    most this share of benign queries raises an alarm.
    """

    radii: tuple[int, int]
    copies: int = 3
    own: int = 4096
    anybody: int = 8192
    clients: int = 10_000
    bound: float = 1.0


class QueryWatch:
    """Counts near copies in the queries of each client, and of all together, who may be one.

    It detects a search, not its aim: explanations by perturbation and sweeps over brightness ask
    about near copies too. It never decides alone.
    """

    def __init__(self, sketcher: Sketcher, settings: Settings) -> None:
        self.sketcher, self.settings = sketcher, settings
        self._clients: OrderedDict[str, Ring] = OrderedDict()
        self._anybody = Ring(settings.anybody)

    def see(self, client: str, x: Array) -> list[Sighting]:
        """What is seen of a client's queries (B, ...), one after the other."""
        return [self._one(client, sketch) for sketch in self.sketcher(x)]

    def _one(self, client: str, sketch: Array) -> Sighting:
        ring = self._clients.pop(client, None) or Ring(self.settings.own)
        self._clients[client] = ring
        if len(self._clients) > self.settings.clients:
            self._clients.popitem(last=False)
        own = ring.near(sketch, self.settings.radii)
        anybody = self._anybody.near(sketch, self.settings.radii)
        ring.put(sketch)
        self._anybody.put(sketch)
        return Sighting(own, anybody, max(own, anybody) >= self.settings.copies)


def calibrated(
    sketcher: Sketcher, benign: Array, *, rate: float = 1e-4, **settings: Any
) -> Settings:
    """Settings with the largest radii at which benign queries (N, ...) raise no alarm too many.

    The queries are those of one client who asks about all of them, in their order: the worst case.
    The bound that is reported is Clopper and Pearson's, which with few queries is above `rate`.
    Raises DataError for fewer than a thousand, and where benign queries themselves are near copies.
    """
    if len(benign) < _FEWEST:
        raise DataError(f"{len(benign)} benign queries are too few; give at least {_FEWEST}")
    told = Settings(radii=(0, 0), **settings)
    memory = max(told.own, told.anybody)
    sketches = np.ascontiguousarray(sketcher(benign).T)
    # At each radius, how many near copies each query had before it, by the half of the sketch.
    counts = np.zeros((2, len(benign), _RADII), np.int32)
    for i in range(1, len(benign)):
        before = sketches[:, max(0, i - memory) : i]
        for half, found in enumerate(differing(before, sketches[:, i])):
            counts[half, i] = np.bincount(found[found < _RADII], minlength=_RADII).cumsum()
    # Each half has half of what is allowed.
    radii = [_widest(half, told.copies, rate * len(benign) / 2) for half in counts]
    near = sum(half[:, radius] for half, radius in zip(counts, radii, strict=True))
    # A little too many, since an input may be near in both halves.
    bound = upper_bound(np.count_nonzero(near >= told.copies), len(benign), 0.05)
    return Settings(radii=(radii[0], radii[1]), bound=float(bound), **settings)


def _widest(near: Array, copies: int, allowed: float) -> int:
    """The largest radius at which at most so many queries have that many near copies."""
    alarms = (near >= copies).sum(0)
    if alarms[0] > allowed:
        raise DataError(
            f"{int(alarms[0])} of {len(near)} benign queries are copies of others; leave out "
            "clients that repeat themselves, or raise copies"
        )
    return int(np.flatnonzero(alarms <= allowed)[-1])
