"""Who asks about near copies of the same input, again and again."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ._ring import Near, Ring, Spot
from ._space import Space

Array = NDArray[Any]

_FADING = 64
_ANYBODY = ""


class Seen(NamedTuple):
    """A query in a ring: its number there, and the near copies of it that were there before."""

    ring: Ring
    number: int
    near: Near


class Sighting(NamedTuple):
    """One query as it was seen, in the client's own ring first, then in that of all the tenant's
    clients; the score is the higher of the two."""

    score: float
    seen: tuple[Seen, ...]


@dataclass(kw_only=True)
class Habit:
    """How a client asks, the last some hundred queries counting most.

    queries: in all. rate: a second. near: the share of queries that had near copies. alike: the
    share that was in the same cell as the one before.
    """

    queries: int = 0
    rate: float = 0.0
    near: float = 0.0
    alike: float = 0.0
    cell: int = -1
    last: float = 0.0

    @property
    def entropy(self) -> float:
        """Of what is asked about, in bits (Renyi's of order 2): 0 for one place only."""
        return -math.log2(max(self.alike, 1 / 1024))

    def told(self) -> dict[str, float]:
        """What of it is for people."""
        return {
            "queries": self.queries, "rate": self.rate, "near": self.near, "entropy": self.entropy,
        }  # fmt: skip

    def note(self, cell: int, near: bool, now: float) -> None:
        """One more query."""
        self.queries += 1
        share = max(1 / _FADING, 1 / self.queries)
        if self.queries > 1:
            gap = max(now - self.last, 1e-6)
            usual = gap if self.rate == 0 else 1 / self.rate
            self.rate = 1 / (usual + share * (gap - usual))
            self.alike += share * ((cell == self.cell) - self.alike)
        self.near += share * (near - self.near)
        self.cell, self.last = cell, now


class QueryWatch:
    """Weighs near copies among the queries of each client, and of all of a tenant's together.

    It detects a search, not its aim: explanations by perturbation and sweeps over brightness ask
    about near copies too. Nothing is shared between tenants. sizes (C,): how many queries are
    remembered in each cell. room: how many in all; the rings that were not used for the longest
    time go first. clients: of how many the habits are known.
    """

    def __init__(
        self,
        space: Space,
        sizes: Array,
        *,
        room: int = 2**20,
        clients: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.space, self.room, self.clients = space, room, clients
        self.used = 0
        self._sizes = [int(size) for size in sizes]
        self._axes = len(space.offset)
        self._rings: OrderedDict[tuple[str, str, int], Ring] = OrderedDict()
        self._habits: OrderedDict[tuple[str, str], Habit] = OrderedDict()
        self._first: dict[str, str] = {}
        self._several: set[str] = set()
        self._clock = clock

    def see(self, tenant: str, client: str, x: Array, *, alone: bool = False) -> list[Sighting]:
        """What is seen of a client's queries (B, F), one after the other.

        alone: they are no near copies of anybody else's.
        """
        owners = self._owners(tenant, client, alone)
        if len(x) == 1:
            # Numpy takes half the time for what has one axis.
            row = x[0]
            cell, place = self.space.place(row)
            return [self._one(tenant, client, owners, int(cell), _spot(row, place))]
        cells, places = self.space.place(x)
        return [
            self._one(tenant, client, owners, cell, _spot(row, place))
            for row, cell, place in zip(x, cells.tolist(), places, strict=True)
        ]

    def habit(self, tenant: str, client: str) -> Habit:
        """How a client asks."""
        return self._habits.get((tenant, client), Habit())

    def _owners(self, tenant: str, client: str, alone: bool) -> tuple[str, ...]:
        """Whose rings a query belongs to: the client's, and all clients' once there are several."""
        if alone:
            return (client,)
        if tenant not in self._several:
            first = self._first.setdefault(tenant, client)
            if first == client:
                return (client,)
            self._several.add(tenant)
        return (client, _ANYBODY)

    def _one(
        self, tenant: str, client: str, owners: tuple[str, ...], cell: int, spot: Spot
    ) -> Sighting:
        seen, score = [], 0.0
        for owner in owners:
            ring = self._ring((tenant, owner, cell))
            near = ring.near(spot)
            before = ring.room
            seen.append(Seen(ring, ring.put(spot), near))
            self.used += ring.room - before
            score = max(score, near.score)
        while self.used > self.room and len(self._rings) > len(owners):
            self.used -= self._rings.popitem(last=False)[1].room
        self._note(tenant, client, cell, score > 0)
        return Sighting(score, tuple(seen))

    def _ring(self, key: tuple[str, str, int]) -> Ring:
        ring = self._rings.get(key)
        if ring is None:
            ring = self._rings[key] = Ring(self._sizes[key[2]], self._axes)
            self.used += ring.room
        else:
            self._rings.move_to_end(key)
        return ring

    def _note(self, tenant: str, client: str, cell: int, near: bool) -> None:
        habit = self._habits.get((tenant, client))
        if habit is None:
            habit = self._habits[tenant, client] = Habit()
            if len(self._habits) > self.clients:
                self._habits.popitem(last=False)
        else:
            self._habits.move_to_end((tenant, client))
        habit.note(cell, near, self._clock())


def _spot(row: Array, place: Array) -> Spot:
    # Not a cryptographic digest, but keyed by the interpreter's random seed.
    return Spot(place, float(place.dot(place)) - 1, hash(row.tobytes()))
