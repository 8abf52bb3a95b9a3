"""Clients that copy the model: by how their queries spread, and by how many answers they have."""

from ._budget import AnswerBudget
from ._calibration import calibrated
from ._prada import Prada, Settings
from ._sensor import ExtractionSensor

__all__ = ["AnswerBudget", "ExtractionSensor", "Prada", "Settings", "calibrated"]
