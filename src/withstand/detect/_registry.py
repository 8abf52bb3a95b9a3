"""All detection methods by name: ours, and those that other packages announce."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from importlib.metadata import entry_points
from typing import Any

from .._errors import ConfigError, did_you_mean, listed
from ._contract import Method
from .methods._confidence import Confidence
from .methods._constraints import Constraints
from .methods._deep_knn import DeepKNN
from .methods._density import KernelDensity
from .methods._disagreement import Disagreement
from .methods._encoding import EncodingAnomaly
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

_OURS: tuple[type[Method], ...] = (
    Confidence,
    Constraints,
    DeepKNN,
    Disagreement,
    EncodingAnomaly,
    FeatureAnomaly,
    FeatureSqueezing,
    Fused,
    GradientNorm,
    IsolationForest,
    KernelDensity,
    Learned,
    LocalOutlierFactor,
    Mahalanobis,
    NearestNeighbours,
    NoiseStability,
    PCAReconstruction,
    ReconstructedAnswer,
    Reconstruction,
    Residual,
    RobustCovariance,
    TableRules,
)


def registry() -> dict[str, type[Method]]:
    """Method classes by name; the entry point group `withstand.detectors` adds to them."""
    found: dict[str, type[Method]] = {method.__name__: method for method in _OURS}
    for entry in entry_points(group="withstand.detectors"):
        found[entry.name] = entry.load()
    return dict(sorted(found.items()))


def made(name: str, settings: dict[str, Any] | None = None) -> Method:
    """A method by its name and settings; raises ConfigError for one that there is not."""
    known = registry()
    if name not in known:
        raise ConfigError(
            f"there is no detector {name!r}{did_you_mean(name, known)}; there are {listed(known)}"
        )
    method = known[name]
    allowed: list[str] = [f.name for f in fields(method)] if is_dataclass(method) else []
    values = {key: _revived(value) for key, value in (settings or {}).items()}
    for key in values:
        if key not in allowed:
            raise ConfigError(
                f"detector {name} has no setting {key!r}{did_you_mean(key, allowed)}; it has "
                f"{listed(allowed)}"
            )
    return method(**values)


def settings_of(method: Method) -> dict[str, Any]:
    """A method's settings as plain values, from which `made` makes it again."""
    told = {field.name: getattr(method, field.name) for field in fields(method)}  # type: ignore[arg-type]
    return {name: _plain(value) for name, value in told.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Method):
        return {"method": type(value).__name__, "settings": settings_of(value)}
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _revived(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"method", "settings"}:
        return made(value["method"], value["settings"])
    return tuple(_revived(v) for v in value) if isinstance(value, list | tuple) else value
