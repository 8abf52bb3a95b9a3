"""The watch on sequences of queries, as sensors of the guard."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from collections.abc import Awaitable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import DataError
from .._ladder import ACTIONS
from .._sensor import Call, Failure, Sensor, Signal
from ..answers import Answered
from ..wire import Inference
from ._calibration import FILES, Calibration
from ._search import follow
from ._watch import Habit, QueryWatch, Sighting

Array = NDArray[Any]

STEPS = 20.0

_AT_ONCE = 32
_LARGE = 1e15
_FEW = 64
_ROWS = "rows"
_FLOAT = np.dtype(np.float32)


class QuerySensor(Sensor):
    """Flags near copies of what the same client, or another of its tenant, has asked before.

    Clients declared to be benign optimisers are scored and never flagged, and no other client's
    queries are near copies of theirs. jitter: each query has a threshold of its own, up to so much
    above the calibrated one, so that it is not found by asking.
    """

    name = "queries"

    def __init__(
        self,
        calibration: Calibration,
        *,
        action: str = "tag",
        on_failure: Failure = "open",
        jitter: float = 0.25,
        room: int = 2**20,
        version: str = "",
    ) -> None:
        self.calibration, self.jitter = calibration, jitter
        self.action, self.on_failure, self.version = action, on_failure, version
        self.watch = QueryWatch(calibration.space, calibration.sizes, room=room)
        self._random = random.Random(secrets.randbits(128))

    def look(self, call: Call) -> Signal | Awaitable[Signal] | None:
        """How many near copies there are of the query that has the most."""
        x = call.noted[_ROWS] = rows_of(call.asked)
        if x is None or not len(x):
            return None
        if x.shape[1] != self.calibration.space.size:
            return Signal(self.name, 0.0, self.calibration.threshold, False, "shape")
        return self._said(call, self._seen(call, x)) if len(x) <= _AT_ONCE else self._many(call, x)

    async def _many(self, call: Call, x: Array) -> Signal:
        """The same for many rows, between which others have their turn."""
        found = []
        for first in range(0, len(x), _AT_ONCE):
            found += self._seen(call, x[first : first + _AT_ONCE])
            await asyncio.sleep(0)
        return self._said(call, found)

    def _seen(self, call: Call, x: Array) -> list[Sighting]:
        key = call.key
        if _ordinary(call.asked):
            return self.watch.see(key.tenant, key.id, x, alone=key.benign_optimiser)
        # Numbers so large that they overflow are near nothing.
        with np.errstate(over="ignore", invalid="ignore"):
            return self.watch.see(key.tenant, key.id, x, alone=key.benign_optimiser)

    def _said(self, call: Call, found: list[Sighting]) -> Signal:
        call.noted[self.name] = found
        score = found[0].score if len(found) == 1 else max(one.score for one in found)
        threshold = self.calibration.threshold * (1 + self.jitter * self._random.random())
        flagged = score > threshold and not call.key.benign_optimiser
        if flagged:
            call.habit = self.habit(call.key.tenant, call.key.id).told()
        return Signal(self.name, score, threshold, flagged)

    def habit(self, tenant: str, client: str) -> Habit:
        """How a client asks."""
        return self.watch.habit(tenant, client)


class SearchSensor(Sensor):
    """Flags clients for whom the answers to near copies flip, or fall step by step.

    It needs a QuerySensor before it on the same line. steps: so many flips and steps are a search.
    What it flags has been answered already: that answer is made coarser or kept back.
    """

    name = "search"

    def __init__(
        self, queries: QuerySensor, *, action: str = "coarsen", steps: float = STEPS
    ) -> None:
        self.queries, self.action, self.steps = queries, action, steps
        self.version = queries.version

    def learn(self, call: Call, answered: Answered) -> Signal | None:
        """How far the query that goes furthest goes on from its near copies."""
        sightings: list[Sighting] | None = call.noted.get(self.queries.name)
        if sightings is None:
            return None
        told = _told(answered)
        if len(told) != len(sightings):
            return None
        steps = [
            follow(sighting, label, margin).score
            for sighting, (label, margin) in zip(sightings, told, strict=True)
        ]
        score = max(steps)
        flagged = score > self.steps and not call.key.benign_optimiser
        return Signal(self.name, score, self.steps, flagged)


class SpectrumSensor(Sensor):
    """Flags pictures with a pattern that benign ones do not have, each query by itself.

    Clients declared to be benign optimisers are scored and never flagged. jitter: as that of the
    QuerySensor.
    """

    name = "spectrum"

    def __init__(
        self,
        calibration: Calibration,
        *,
        action: str = "tag",
        on_failure: Failure = "open",
        jitter: float = 0.1,
        version: str = "",
    ) -> None:
        if calibration.spectrum is None:
            raise DataError("these queries are no pictures; give N x H x W, N x C x H x W or such")
        self.spectrum, self.threshold = calibration.spectrum, calibration.spectrum_threshold
        self.action, self.on_failure, self.version = action, on_failure, version
        self.jitter, self._size = jitter, math.prod(self.spectrum.shape)
        self._places = np.random.default_rng(secrets.randbits(128))
        self._random = random.Random(secrets.randbits(128))

    def look(self, call: Call) -> Signal | Awaitable[Signal] | None:
        """How unlike benign ones the query is that is least like them."""
        noted = call.noted
        x = noted[_ROWS] if _ROWS in noted else rows_of(call.asked)
        if x is None or not len(x):
            return None
        if x.shape[1] != self._size:
            return Signal(self.name, 0.0, self.threshold, False, "shape")
        if len(x) > _AT_ONCE:
            return self._many(call, x)
        if len(x) == 1 and _ordinary(call.asked):
            return self._said(call, self.spectrum.score_one(x, self._places))
        return self._said(call, float(self.spectrum.score(x, self._places).max()))

    async def _many(self, call: Call, x: Array) -> Signal:
        """The same for many rows, between which others have their turn."""
        found = 0.0
        for first in range(0, len(x), _AT_ONCE):
            some = self.spectrum.score(x[first : first + _AT_ONCE], self._places)
            found = max(found, float(some.max()))
            await asyncio.sleep(0)
        return self._said(call, found)

    def _said(self, call: Call, score: float) -> Signal:
        threshold = self.threshold * (1 + self.jitter * self._random.random())
        flagged = score > threshold and not call.key.benign_optimiser
        return Signal(self.name, score, threshold, flagged)


def query_sensors(
    folder: str | Path, *, action: str = "tag", on_failure: Failure = "open"
) -> tuple[QuerySensor, SearchSensor, *tuple[SpectrumSensor, ...]]:
    """The sensors with the calibration that was saved in a folder, the last for pictures alone.

    A search lives on answers: the action on one is at least to make them coarser. Raises DataError.
    """
    calibration = Calibration.load(folder)
    version = sha256((Path(folder) / FILES[0]).read_bytes()).hexdigest()[:12]
    queries = QuerySensor(calibration, action=action, on_failure=on_failure, version=version)
    search = SearchSensor(queries, action=max(action, "coarsen", key=ACTIONS.index))
    if calibration.spectrum is None:
        return queries, search
    spectrum = SpectrumSensor(calibration, action=action, on_failure=on_failure, version=version)
    return queries, search, spectrum


def rows_of(asked: Inference) -> Array | None:
    """The numbers (B, F) of a request, one row for each query; None where it holds none.

    Several inputs are put side by side.
    """
    found = [one.values for one in asked.inputs if one.datatype != "BYTES"]
    if not found or not found[0].ndim:
        return None
    rows = len(found[0])
    for one in found[1:]:
        if one.ndim == 0 or len(one) != rows:
            return None
    x = found[0].reshape(rows, -1)
    if len(found) > 1:
        x = np.hstack([x, *(one.reshape(rows, -1) for one in found[1:])])
    if x.dtype == _FLOAT:
        return np.ascontiguousarray(x)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(x, np.float32)


def _ordinary(asked: Inference) -> bool:
    """Whether no number is known to be so large that float32 could not hold its square."""
    for one in asked.inputs:
        if one.ends is None or not -_LARGE < one.ends[0] <= one.ends[1] < _LARGE:
            return False
    return True


def _told(answered: Answered) -> list[tuple[int, float]]:
    """The class of each row, and the margin between its two highest scores, NaN without scores."""
    scores = answered.scores
    if scores is not None and scores.shape[1] <= _FEW:
        found = []
        for row in scores.tolist():
            *_, second, first = sorted(row)
            found.append((row.index(first), first - second))
        return found
    labels = answered.labels
    if labels is None:
        return []
    if scores is None:
        return [(label, math.nan) for label in labels.tolist()]
    best = np.partition(scores, -2, axis=1)
    margins = (best[:, -1] - best[:, -2]).tolist()
    return list(zip(labels.tolist(), margins, strict=True))
