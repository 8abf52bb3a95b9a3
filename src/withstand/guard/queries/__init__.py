"""Sequences of queries: whoever searches for an adversarial example asks about near copies."""

from ._calibration import Calibration, calibrate, read_queries
from ._ring import Near, Ring, Spot
from ._search import Step, follow
from ._sensor import QuerySensor, SearchSensor, query_sensors
from ._space import Space
from ._watch import Habit, QueryWatch, Seen, Sighting

__all__ = [
    "Calibration",
    "Habit",
    "Near",
    "QuerySensor",
    "QueryWatch",
    "Ring",
    "SearchSensor",
    "Seen",
    "Sighting",
    "Space",
    "Spot",
    "Step",
    "calibrate",
    "follow",
    "query_sensors",
    "read_queries",
]
