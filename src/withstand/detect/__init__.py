"""Detectors: a score, a threshold with a guaranteed false-positive rate, and what it stops."""

from ._contract import MODALITIES, NEEDS, Method, Modality, Needs, Observation, State
from ._detector import Detector, fit, load
from ._export import export
from ._from_config import (
    DetectSetup,
    asked_of,
    calibration_data,
    check_disjoint,
    fitted,
    from_config,
    method_of,
    snake,
)
from ._observe import Observer, default_layers, layer_names
from ._registry import made, registry, settings_of
from ._show import alarms, scored, show_detector, show_findings
from .calibration._by_class import by_class
from .calibration._power import Power
from .calibration._probe import power, powered
from .calibration._recalibration import Recalibration
from .calibration._reliability import (
    Confidences,
    Reliability,
    calibration_error,
    confidences,
    reliability,
)
from .calibration._temperature import temperature
from .calibration._threshold import Threshold, fewest_benign, most_flagged, threshold
from .drift._drift import DriftWatch, Shift
from .drift._flag_rate import FlagRate
from .drift._stability import StabilityIndex, stability_index
from .drift._traffic import Traffic, Usual, traffic, usual
from .drift._watch import Watch
from .methods._confidence import Confidence
from .methods._constraints import Constraints
from .methods._deep_knn import DeepKNN
from .methods._density import KernelDensity
from .methods._disagreement import Disagreement
from .methods._encoding import EncodingAnomaly, code_points
from .methods._feature_anomaly import FeatureAnomaly
from .methods._fused import Fused
from .methods._gradient_norm import GradientNorm
from .methods._isolation_forest import IsolationForest
from .methods._learned import Learned
from .methods._local_outliers import LocalOutlierFactor
from .methods._mahalanobis import Mahalanobis
from .methods._neighbours import NearestNeighbours
from .methods._pca import PCAReconstruction
from .methods._reconstruction import ReconstructedAnswer, Reconstruction
from .methods._residual import Residual
from .methods._robust_covariance import RobustCovariance
from .methods._squeezing import FeatureSqueezing
from .methods._stability import NoiseStability
from .methods._table_rules import TableRules

__all__ = [
    "MODALITIES",
    "NEEDS",
    "Confidence",
    "Confidences",
    "Constraints",
    "DeepKNN",
    "DetectSetup",
    "Detector",
    "Disagreement",
    "DriftWatch",
    "EncodingAnomaly",
    "FeatureAnomaly",
    "FeatureSqueezing",
    "FlagRate",
    "Fused",
    "GradientNorm",
    "IsolationForest",
    "KernelDensity",
    "Learned",
    "LocalOutlierFactor",
    "Mahalanobis",
    "Method",
    "Modality",
    "NearestNeighbours",
    "Needs",
    "NoiseStability",
    "Observation",
    "Observer",
    "PCAReconstruction",
    "Power",
    "Recalibration",
    "ReconstructedAnswer",
    "Reconstruction",
    "Reliability",
    "Residual",
    "RobustCovariance",
    "Shift",
    "StabilityIndex",
    "State",
    "TableRules",
    "Threshold",
    "Traffic",
    "Usual",
    "Watch",
    "alarms",
    "asked_of",
    "by_class",
    "calibration_data",
    "calibration_error",
    "check_disjoint",
    "code_points",
    "confidences",
    "default_layers",
    "export",
    "fewest_benign",
    "fit",
    "fitted",
    "from_config",
    "layer_names",
    "load",
    "made",
    "method_of",
    "most_flagged",
    "power",
    "powered",
    "registry",
    "reliability",
    "scored",
    "settings_of",
    "show_detector",
    "show_findings",
    "snake",
    "stability_index",
    "temperature",
    "threshold",
    "traffic",
    "usual",
]
