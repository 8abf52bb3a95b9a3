"""Clients whose queries look made for copying the model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Literal

import numpy as np

from .._reading import Reading
from .._sensor import Call, Failure, Sensor, Signal
from ..answers import Answered
from ._prada import Prada, Settings


class ExtractionSensor(Sensor):
    """PRADA for each client: flags answers while its queries spread as synthetic ones do.

    It learns from answers, so that a flag can only act upon them. by: whose queries are looked at
    together, a key's or all those of a tenant. Keys that are declared benign optimisers get a score
    and no flag. The score is 1 - W, from 0 to 1.

    What it does not see: copying with natural queries, however many (Knockoff Nets); synthetic
    queries among enough natural ones; clients that are many (Sybils), unless their tenant is one.
    Benign clients that are not like those it was calibrated on are flagged, too. Beside it belongs
    an AnswerBudget.
    """

    def __init__(
        self, settings: Settings, *, seed: int, reading: Reading | None = None,
        by: Literal["key", "tenant"] = "key", name: str = "extraction", action: str = "coarsen",
        on_failure: Failure = "open",
    ) -> None:  # fmt: skip
        self.name, self.action, self.on_failure, self.by = name, action, on_failure, by
        self.reading = reading or Reading()
        self._prada = Prada(settings, seed=seed)

    def look(self, call: Call) -> Awaitable[None] | None:
        """Nothing yet; pictures are decoded meanwhile."""
        return self._decode(call) if self.reading.of_pictures(call.asked) else None

    async def _decode(self, call: Call) -> None:
        call.noted[self.name] = await asyncio.to_thread(self.reading, call.asked)

    def learn(self, call: Call, answered: Answered) -> Signal | None:
        """What the queries so far say, None while they are too few."""
        pictures = self.reading.of_pictures(call.asked)
        if not answered.outputs or (pictures and self.name not in call.noted):
            return None
        x = call.noted[self.name] if pictures else self.reading(call.asked)
        classes = answered.labels
        if classes is None or len(classes) != len(x):
            classes = np.zeros(len(x), np.int64)
        w = self._prada.see(call.key.id if self.by == "key" else call.key.tenant, x, classes)
        if w is None:
            return None
        least = self._prada.settings.least
        return Signal(self.name, 1 - w, 1 - least, w < least and not call.key.benign_optimiser)
