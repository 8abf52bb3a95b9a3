"""Queries of a search: near copies one after the other, and patterns that no picture has."""

from ._calibration import FILES, Calibration, calibrate, read_queries
from ._ring import Near, Ring, Spot
from ._search import Step, follow
from ._sensor import QuerySensor, SearchSensor, SpectrumSensor, query_sensors
from ._space import Space
from ._spectrum import Spectrum
from ._watch import Habit, QueryWatch, Seen, Sighting

__all__ = [
    "FILES",
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
    "Spectrum",
    "SpectrumSensor",
    "Spot",
    "Step",
    "calibrate",
    "follow",
    "query_sensors",
    "read_queries",
]
