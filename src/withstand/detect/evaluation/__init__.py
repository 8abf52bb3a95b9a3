"""What a detector stops: attacks that do not know of it, and attacks that do."""

from ._evaluate import evaluate_detector
from ._page import page
from ._report import (
    LEVELS,
    Benign,
    DetectionReport,
    InputCost,
    Row,
    Verdict,
    Worst,
    detection_schema,
)
from ._show import show

__all__ = [
    "LEVELS",
    "Benign",
    "DetectionReport",
    "InputCost",
    "Row",
    "Verdict",
    "Worst",
    "detection_schema",
    "evaluate_detector",
    "page",
    "show",
]
