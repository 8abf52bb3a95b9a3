"""From a configuration to what is evaluated."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._errors import ConfigError, ModelError, WithstandError
from ..config import Config, RegionConfig, ThreatConfig
from ..data import Dataset, load_table
from ..data import load as load_data
from ..models import Model, load_model, with_defences
from ..threat import (
    L0,
    L1,
    L2,
    Frozen,
    Goal,
    Linf,
    MultiLabel,
    Region,
    Regression,
    Targeted,
    Threat,
    Untargeted,
    frame,
    stickers,
)
from ..threat.tabular import Table
from ._cascade import weakest
from ._surrogates import numbered

_BALLS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}


class Setup(NamedTuple):
    """A model, data, a threat, and the attacker's surrogates by name, ready to evaluate."""

    model: Model
    data: Dataset
    threat: Threat
    surrogates: dict[str, Model]


def from_config(config: Config, root: str | Path = ".") -> Setup:
    """What a configuration describes; relative paths count from the folder `root`."""
    return setup_of(config, load_data(config.data, root), root)


def setup_of(config: Config, data: Dataset, root: str | Path = ".") -> Setup:
    """What a configuration describes, of data that are loaded already."""
    loaded = load_model(config.model, root, data.table, columns=data.features)
    data = in_order(data, loaded)
    model = with_defences(loaded, config.defences)
    threat = _threat(config.threat, data.table, data.x.shape[1:])
    if config.model.access is not None:
        threat = replace(threat, access=weakest(threat.access, config.model.access))
    _check_features(config, model, data)
    return Setup(model, data, threat, _surrogates(config, root, data))


def _check_features(config: Config, model: Model, data: Dataset) -> None:
    """Raise ConfigError for what is said of features that the inputs do not have."""
    shape = data.x.shape[1:]
    if config.model.layout == "hwc" and len(shape) != 3:
        raise ConfigError(
            f"model.layout is hwc, but inputs have shape {shape} and are no pictures (C, H, W); "
            "take it out"
        )
    count, frozen = math.prod(shape), max(config.threat.region.frozen or [-1])
    if frozen >= count:
        raise ConfigError(
            f"threat.region.frozen names feature {frozen}, the inputs have {count}; give 0 to "
            f"{count - 1}"
        )
    for bound in (model.domain.lower, model.domain.upper):
        try:
            np.broadcast_to(bound, shape)
        except ValueError:
            raise ConfigError(
                f"model.domain has bounds of shape {np.shape(bound)}, the inputs have {shape}; "
                "give two numbers, or one for each feature"
            ) from None


def in_order(data: Dataset, model: Model) -> Dataset:
    """Labels that are whole numbers of an estimator's own classes, such as 1 to 3, by their place.

    Labels that are not all among its classes are places already.
    """
    known, y = classes_of(model), data.y
    numbered = known.ndim == y.ndim == 1 and known.dtype.kind in "iuf" and y.dtype.kind == "i"
    if data.classes is not None or not numbered or np.array_equal(known, np.arange(len(known))):
        return data
    found = y[:, None] == known
    if not found.any(1).all():
        return data
    return replace(data, y=found.argmax(1), classes=_named(known))


def classes_of(model: Model) -> NDArray[Any]:
    """The classes of an estimator of scikit-learn's kind in the order of its scores, or none."""
    estimator = getattr(getattr(model, "model", model), "estimator", None)
    return np.asarray(getattr(estimator, "classes_", ()))


def _named(numbers: NDArray[Any]) -> tuple[str, ...]:
    """Whole numbers without a decimal point, and each in full, so that none is another's name."""
    return tuple(str(one).removesuffix(".0") for one in numbers.tolist())


def _surrogates(config: Config, root: str | Path, data: Dataset) -> dict[str, Model]:
    """By the file or factory that each comes from."""
    names = numbered([str(spec.weights or spec.factory or spec.url) for spec in config.surrogates])
    found = {}
    for place, (name, spec) in enumerate(zip(names, config.surrogates, strict=True)):
        try:
            found[name] = load_model(spec, root, data.table, columns=data.features)
        except WithstandError as error:
            raise ModelError(f"surrogates[{place}]: {error}") from None
    return found


def threat_from(config: Config, root: str | Path = ".") -> Threat:
    """The threat that a configuration describes; relative paths of data count from `root`."""
    table = config.data.table
    # Where a patch lies is known only of pictures of one size.
    shape = load_data(config.data, root).x.shape[1:] if config.threat.region.placed else ()
    return _threat(config.threat, None if table is None else load_table(Path(root) / table), shape)


def _threat(spec: ThreatConfig, table: Table | None, shape: tuple[int, ...]) -> Threat:
    told = spec.region
    parts: list[Region] = []
    if told.norm is not None and told.eps is not None:
        parts.append(_BALLS[told.norm](told.eps))
    if told.placed:
        # Without a norm any value is free.
        parts.append(_place(told, shape, bounded=bool(parts)))
    if table is not None:
        limited = table.limited(most_changed=told.most_changed, most_cost=told.most_cost)
        parts.append(limited.capability)
    if told.frozen:
        parts.append(Frozen(tuple(told.frozen)))
    region = reduce(and_, parts)
    return Threat(region=region, goal=_goal(spec), access=spec.access, queries=spec.queries)


def _place(told: RegionConfig, shape: tuple[int, ...], *, bounded: bool) -> Region:
    """The places of pictures (C, H, W) that change, with a ball of their own if none is given."""
    if told.frame is not None:
        found = frame(shape, told.frame)
    else:
        rectangles = [(p.height, p.width, p.top, p.left) for p in told.patches or ()]
        found = stickers(shape, rectangles, tones=told.tones)
    kept = [part for part in found if not (bounded and isinstance(part, Linf))]
    return reduce(and_, kept)


def _goal(spec: ThreatConfig) -> Goal:
    if spec.goal == "targeted" and spec.target is not None:
        return Targeted(spec.target)
    if spec.goal == "regression" and spec.tolerance is not None:
        return Regression(spec.tolerance)
    return MultiLabel() if spec.goal == "multilabel" else Untargeted()
