"""Detectors: a score, a threshold with a guaranteed false-positive rate, and what it stops."""

from ._confidence import Confidence
from ._contract import MODALITIES, NEEDS, Method, Modality, Needs, Observation, State
from ._detector import Detector, fit, load
from ._mahalanobis import Mahalanobis
from ._observe import Observer, default_layers, layer_names
from ._registry import made, registry, settings_of
from ._threshold import Threshold, fewest_benign, most_flagged, threshold

__all__ = [
    "MODALITIES",
    "NEEDS",
    "Confidence",
    "Detector",
    "Mahalanobis",
    "Method",
    "Modality",
    "Needs",
    "Observation",
    "Observer",
    "State",
    "Threshold",
    "default_layers",
    "fewest_benign",
    "fit",
    "layer_names",
    "load",
    "made",
    "most_flagged",
    "registry",
    "settings_of",
    "threshold",
]
