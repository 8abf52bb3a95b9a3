"""Counts the rows of inputs that the rules have let through."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._sensor import Call, Sensor
from ._window import Window


class FeatureDrift(Sensor):
    """Says nothing of a request: it shows operators which features drift.

    windows: by the input's name, "" for those not named.
    """

    name = "drift"

    def __init__(self, windows: dict[str, Window]) -> None:
        self.windows = windows

    def look(self, call: Call) -> None:
        """Count the rows of a request."""
        for named in call.asked.inputs:
            window = self.windows.get(named.name) or self.windows.get("")
            if window is not None:
                # As the reference has them, which is how the model sees them.
                rows = named.values.reshape(-1, len(window.usual.features)).astype(np.float32)
                window.add(rows)

    def told(self) -> dict[str, Any]:
        """As plain values, by the input's name."""
        return {name or "*": window.told() for name, window in self.windows.items()}
