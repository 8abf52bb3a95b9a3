"""What an evaluation is given: whether it can begin, and its name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ..._errors import ConfigError, DataError, ThreatError
from ...data import Dataset
from ...evaluate import weakest
from ...threat import Targeted, Threat, Untargeted
from .._detector import Detector
from ._attacks import PRESETS


def check(
    detector: Detector,
    data: Dataset,
    threat: Threat,
    preset: str,
    samples: int,
    radii: Sequence[float],
) -> None:
    """Raise DataError, ConfigError or ThreatError for what cannot be evaluated."""
    if detector.threshold is None:
        raise DataError(
            "the detector has no threshold yet; calibrate it on held-out benign inputs, which are "
            "not among those that it is evaluated on"
        )
    if preset not in PRESETS:
        raise ConfigError(f"preset is {preset!r}; it is one of {', '.join(PRESETS)}")
    if samples < 1:
        raise ConfigError(f"samples is {samples}; give at least 1")
    if not radii or min(radii) <= 0 or max(radii) > 1:
        raise ConfigError(f"radii are {list(radii)}; give shares of the radius, above 0 to 1")
    if data.y.dtype != np.int64:
        raise DataError("the labels are no classes; a detector is evaluated beside a classifier")
    if not isinstance(threat.goal, Untargeted | Targeted):
        raise ThreatError(
            f"the goal is {threat.goal.describe()}; a detector is evaluated with the goal any "
            "wrong class, or one class"
        )
    if not threat.bounded:
        raise ThreatError(
            f"the region is {threat.region.describe()}; a detector is evaluated at a finite radius"
        )
    if weakest(detector.model.access, threat.access) == "none":
        raise ThreatError("access is none; give access to labels, scores or gradients")


def named(detector: Detector, data: Dataset, samples: int) -> str:
    """A name for what is evaluated: the detector with all that it learned, and the samples."""
    state = hashlib.sha256()
    for name, value in sorted(detector.state.items()):
        state.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    told = (detector.to_dict(), state.hexdigest(), data.provenance.digest, samples)
    return hashlib.sha256(repr(told).encode()).hexdigest()
