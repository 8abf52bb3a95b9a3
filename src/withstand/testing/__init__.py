"""Conformance suites for what others add to withstand, and planted defects for its diagnosis."""

from . import planted
from ._attacks import check_attack
from ._detectors import check_detector

__all__ = ["check_attack", "check_detector", "planted"]
