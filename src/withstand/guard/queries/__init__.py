"""Sequences of queries: whoever searches for an adversarial example asks about near copies."""

from ._ring import Ring
from ._sketch import Sketcher
from ._watch import QueryWatch, Settings, Sighting, calibrated

__all__ = ["QueryWatch", "Ring", "Settings", "Sighting", "Sketcher", "calibrated"]
