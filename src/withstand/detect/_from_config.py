"""From a configuration to a fitted detector."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._errors import ConfigError, DataError, did_you_mean, listed
from ..config import Config, DataConfig, DetectConfig, MethodConfig, load_table
from ..data import Dataset, load_inputs
from ..data import load as load_data
from ..evaluate import Progress
from ..evaluate import from_config as setup_from
from ..evidence import content_digest
from ..models import Model
from ..threat import Threat
from ._contract import Counted, Method
from ._detector import Detector, fit
from ._registry import made, registry


class DetectSetup(NamedTuple):
    """A method, the model that it sits beside, and benign inputs that have no row in common.

    benign: what it is fitted to. held_out: what its threshold is taken from. data: what
    evaluations use.
    """

    method: Method
    model: Model
    benign: Dataset
    held_out: Dataset
    data: Dataset
    threat: Threat


def from_config(config: Config, root: str | Path = ".") -> DetectSetup:
    """What a configuration describes; relative paths count from the folder `root`.

    Raises ConfigError, DataError or ModelError; also where two of the three parts of the data share
    an input, by the digest of its content.
    """
    asked = asked_of(config)
    method = method_of(asked, _rules(config, root))
    model, data, threat, _ = setup_from(config, root)
    benign = _benign(config, asked, root)
    if asked.calibration is None:
        benign, held_out = _split(benign, asked.held_out)
    else:
        held_out = load_data(asked.calibration, root)
    parts = {"data": data, "detect.data": benign, "detect.calibration": held_out}
    check_disjoint({name: part.x for name, part in parts.items()})
    return DetectSetup(method, model, benign, held_out, data, threat)


def fitted(
    setup: DetectSetup, asked: DetectConfig, progress: Callable[[Progress], None] | None = None
) -> Detector:
    """The detector that a configuration describes, fitted and calibrated; its power is not asked.

    Raises DataError or ModelError.
    """

    def counted(stage: str) -> Counted | None:
        if progress is None:
            return None
        return lambda n, of: progress(Progress(stage=stage, done=n, total=of, fooled=0))

    fitting = counted(f"fitting {snake(type(setup.method).__name__)}")
    detector = fit(setup.method, setup.model, setup.benign, progress=fitting)
    return detector.calibrate(
        setup.held_out,
        fpr=asked.fpr,
        confidence=asked.confidence,
        by_class=asked.by_class,
        progress=counted("calibrating"),
    )


def calibration_data(
    config: Config, root: str | Path, file: str | Path | None
) -> tuple[Model, Dataset | Tensor, Threat]:
    """The model, new benign inputs and the threat, for a detector that is there already.

    file: the new inputs, read as `data` says; those of the configuration if it is None. Raises
    DataError also where they are inputs that it was fitted to, or is evaluated on.
    """
    if file is None:
        setup = from_config(config, root)
        return setup.model, setup.held_out, setup.threat
    asked = asked_of(config)
    model, data, threat, _ = setup_from(config, root)
    benign = _benign(config, asked, root)
    if asked.calibration is None:
        benign, _ = _split(benign, asked.held_out)
    inputs = load_inputs(file, config.data, root)
    check_disjoint({"detect.data": benign.x, "data": data.x, str(file): inputs})
    return model, torch.from_numpy(inputs), threat


def asked_of(config: Config) -> DetectConfig:
    """The section of detectors; raises ConfigError where it is missing."""
    if config.detect is None:
        raise ConfigError(
            "section detect is missing; add it, e.g. detect: {methods: [mahalanobis]}"
        )
    return config.detect


def method_of(asked: DetectConfig, rules: str = "") -> Method:
    """The one method of a section, or several fused; raises ConfigError.

    rules: those of data.table, for methods that look at them.
    """
    methods = [_method(spec, rules) for spec in asked.methods]
    if len(methods) == 1:
        return methods[0]
    by = {} if asked.by is None else {"by": asked.by}
    return _checked("Fused", {"parts": methods, **by})


def snake(name: str) -> str:
    """The name of a method class as the configuration writes it: DeepKNN is deep_knn."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def check_disjoint(parts: Mapping[str, NDArray[Any]]) -> None:
    """Raise DataError where two parts of the data share an input."""
    seen: dict[str, str] = {}
    for name, part in parts.items():
        digests = [content_digest(row) for row in part]
        shared = [row for row, digest in enumerate(digests) if seen.get(digest, name) != name]
        if shared:
            other = seen[digests[shared[0]]]
            raise DataError(
                f"{len(shared)} of {len(part)} inputs of {name} are also in {other}, first in row "
                f"{shared[0]}; what a detector is fitted to, calibrated on and evaluated on must "
                "be different inputs"
            )
        seen |= dict.fromkeys(digests, name)


def _rules(config: Config, root: str | Path) -> str:
    """The file of data.table as JSON, empty where there is none."""
    if config.data.table is None:
        return ""
    return load_table(Path(root) / config.data.table).model_dump_json(exclude_unset=True)


def _method(spec: MethodConfig, rules: str) -> Method:
    names = {snake(name): name for name in registry()}
    if spec.name not in names:
        raise ConfigError(
            f"detect.methods has {spec.name!r}{did_you_mean(spec.name, names) or ';'} there are "
            f"{listed(names, 30)}"
        )
    name, settings = names[spec.name], spec.settings
    if name == "TableRules":
        settings.setdefault("rules", rules)
    return _checked(name, settings)


def _checked(name: str, settings: dict[str, Any]) -> Method:
    try:
        return made(name, settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"detect.methods: {snake(name)} cannot be made of {settings} ({error}); see its "
            "settings in the documentation"
        ) from None


def _split(benign: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """Two parts, by content, so that inputs which are there twice are in one of them."""
    place = np.asarray([int(content_digest(row)[:8], 16) for row in benign.x])
    out = place < share * 2**32
    if out.all() or not out.any():
        raise DataError(
            f"{len(benign)} benign inputs cannot be split into two parts; give more of them"
        )
    return benign.take(~out), benign.take(out)


def _benign(config: Config, asked: DetectConfig, root: str | Path) -> Dataset:
    """The benign inputs: those of the section, or the training part of data's npz."""
    if asked.data is not None:
        return load_data(asked.data, root)
    spec: DataConfig = config.data
    missing = "detect.data is missing; name benign inputs, e.g. data: {kind: npz, path: benign.npz}"
    if spec.kind != "npz":
        raise ConfigError(missing)
    part = spec.model_copy(update={"x": "x_train", "y": "y_train", "limit": None, "group": None})
    try:
        return load_data(part, root)
    except DataError as error:
        raise ConfigError(f"{missing} ({error})") from None
