"""Whether a client's queries lie as natural ones do, or as if they were made from each other."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import ConfigError, DataError
from ._normality import shapiro_wilk

Array = NDArray[Any]

_MEANS = 1024


@dataclass(frozen=True, kw_only=True)
class Settings:
    """When a client's queries are too far from natural ones, and how much is remembered of it.

    least: Shapiro and Wilk's W below which it is an alarm, delta of the paper. fewest: distances
    before anything is said; last: how many of them count. points: queries that are kept of a
    client, of `features` numbers each; clients: how many are remembered, which with the rest is a
    bound of the memory: 4 * clients * points * features bytes and a tenth more. every: distances
    between two tests. bound: with 95 % confidence, at most this share of benign clients raises an
    alarm; 1 where nothing is known.
    """

    least: float = 0.9
    fewest: int = 100
    last: int = 500
    points: int = 500
    features: int = 64
    clients: int = 1000
    every: int = 10
    bound: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.least < 1:
            raise ConfigError(f"least is {self.least:g}; W is between 0 and 1")
        if not 20 <= self.fewest <= self.last <= 5000:
            raise ConfigError(
                f"fewest is {self.fewest} and last {self.last}; give 20 to 5000, fewest first"
            )
        if min(self.points, self.features, self.clients, self.every) < 1:
            raise ConfigError("points, features, clients and every must be at least 1")


@dataclass(eq=False)
class _Class:
    """The distances of a class's growing set: how many, their sum, that of their squares."""

    count: int = 1
    total: float = 0.0
    squares: float = 0.0
    threshold: float = 0.0

    def add(self, distance: float) -> None:
        self.count += 1
        self.total += distance
        self.squares += distance * distance
        mean = self.total / self.count
        spread = max(0.0, self.squares / self.count - mean * mean) ** 0.5
        self.threshold = max(self.threshold, mean - spread)


@dataclass(eq=False)
class _Client:
    points: Array
    squares: Array
    classes: Array
    distances: Array
    count: int = 0
    seen: int = 0
    w: float | None = None
    known: dict[int, _Class] = field(default_factory=dict)


class Prada:
    """PRADA (Juuti et al. 2019): are distances to a client's nearest earlier query normal?

    Of each query the smallest distance to those of the same predicted class is taken; it joins
    their growing set if that is above the mean less the deviation of the set's own distances. Of a
    natural stream the distances are nearly normal; of synthetic queries, made by equal steps from
    earlier ones, they heap up in one place. Beside the paper: distances are between random
    projections of a secret seed, the oldest points and distances are forgotten, and exact copies of
    a query do not count. Some 40 microseconds a query.
    """

    def __init__(self, settings: Settings, *, seed: int) -> None:
        self.settings, self._seed = settings, seed
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._size, self._projection = 0, np.zeros((0, 0), np.float32)

    def see(self, client: str, x: Array, classes: Array) -> float | None:
        """W after a client's queries (B, ...) with their predicted classes (B,), None before.

        Raises DataError for inputs of another size than the first ones.
        """
        known = self._client(client)
        for point, label in zip(self._features(x), classes.tolist(), strict=True):
            self._one(known, point, label)
        return known.w

    def _client(self, name: str) -> _Client:
        told = self.settings
        known = self._clients.pop(name, None) or _Client(
            points=np.zeros((0, told.features), np.float32),
            squares=np.zeros(0, np.float32),
            classes=np.zeros(0, np.int64),
            distances=np.zeros(told.last),
        )
        self._clients[name] = known
        if len(self._clients) > told.clients:
            self._clients.popitem(last=False)
        return known

    def _one(self, known: _Client, point: Array, label: int) -> None:
        group = known.known.get(label)
        if group is None:
            self._keep(known, point, label)
            # A class whose points were all forgotten starts anew with as many others.
            if len(known.known) >= self.settings.points:
                known.known.clear()
            known.known[label] = _Class()
            return
        far = known.points @ (-2 * point)
        far += known.squares
        far[known.classes != label] = np.inf
        nearest, length = far.item(far.argmin()), float(point @ point)
        if nearest == np.inf:
            self._keep(known, point, label)
            return
        square = nearest + length
        # What is left of two equal numbers after rounding.
        if square <= 1e-6 * length:
            return
        distance = square**0.5
        known.distances[known.seen % self.settings.last] = distance
        known.seen += 1
        if distance > group.threshold:
            group.add(distance)
            self._keep(known, point, label)
        if known.seen >= self.settings.fewest and known.seen % self.settings.every == 0:
            known.w = _normality(known.distances[: known.seen])

    def _keep(self, known: _Client, point: Array, label: int) -> None:
        room, most = len(known.points), self.settings.points
        place = known.count % most
        if place >= room:
            grown = min(most, max(32, 2 * room))
            known.points = _grown(known.points, grown)
            known.squares = _grown(known.squares, grown)
            known.classes = _grown(known.classes, grown)
            known.classes[room:] = np.iinfo(np.int64).min
        known.points[place] = point
        known.squares[place] = point @ point
        known.classes[place] = label
        known.count += 1

    def _features(self, x: Array) -> Array:
        flat = x.reshape(len(x), -1).astype(np.float32, copy=False)
        if not self._size:
            self._size = flat.shape[1]
            self._projection = self._directions(min(self._size, _MEANS))
        if flat.shape[1] != self._size:
            raise DataError(f"inputs have {flat.shape[1]} numbers, not {self._size}")
        run = -(-self._size // _MEANS)
        if run > 1:
            flat = np.pad(flat, ((0, 0), (0, -self._size % run)), mode="edge")
            flat = flat.reshape(len(flat), -1, run).mean(2)
        return np.asarray(flat @ self._projection[: flat.shape[1]])

    def _directions(self, size: int) -> Array:
        rng = np.random.default_rng(self._seed)
        found = rng.standard_normal((size, self.settings.features))
        return np.asarray(found / self.settings.features**0.5, np.float32)


def _normality(distances: Array) -> float:
    away = distances - distances.mean()
    spread = float(away @ away / len(away)) ** 0.5
    return shapiro_wilk(distances[np.abs(away) <= 3 * spread])


def _grown(kept: Array, size: int) -> Array:
    found = np.zeros((size, *kept.shape[1:]), kept.dtype)
    found[: len(kept)] = kept
    return found
