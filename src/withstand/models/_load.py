"""From the configuration's model section to a model."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from .._errors import ModelError
from .._factory import called, importable
from ..config import DefenceConfig, ModelConfig
from ..threat import Box
from ..threat.tabular import Table
from ._callable import FunctionModel, sklearn_model
from ._channels_last import channels_last
from ._declared import Declared
from ._defended import Defended
from ._distilled import distilled
from ._exported import exported
from ._fitted_columns import check_columns
from ._http import HttpModel, HttpSettings
from ._input_transform import InputTransform, input_transform
from ._onnx import load_onnx
from ._protocol import Model
from ._threshold import Thresholded
from ._torch import TorchModel
from ._trees import is_tree_file, is_trees, load_trees, trees_model
from ._weights import fill, unpickled


def load_model(
    spec: ModelConfig,
    root: str | Path = ".",
    table: Table | None = None,
    *,
    columns: Sequence[str] | None = None,
) -> Model:
    """The model that a configuration describes; relative paths count from the folder `root`.

    table: what the columns of its rows are, for an estimator that was fitted to named ones;
    columns: their names alone, where there is no table. Raises ModelError for a factory that fails,
    for weights that do not fit and for columns in other places than it was fitted to.
    """
    found = _loaded(spec, Path(root), table)
    if isinstance(found, FunctionModel):
        if spec.weights is not None:
            found.digest = sha256((Path(root) / spec.weights).read_bytes()).hexdigest()
        _check_columns(spec, found.estimator, table, columns)
    if spec.layout == "hwc":
        found = channels_last(found)
    return found if spec.threshold is None else Thresholded(found, spec.threshold)


def _loaded(spec: ModelConfig, root: Path, table: Table | None) -> Model:
    lower, upper = (np.asarray(b) if isinstance(b, list) else b for b in spec.domain)
    domain = Box(lower, upper) if table is None else table.domain
    if spec.kind == "http":
        return _served(spec, domain)
    if spec.weights is not None and spec.kind == "onnx":
        asked = spec.access in (None, "gradients")
        return load_onnx(root / spec.weights, domain, name=spec.weights, gradients=asked)
    if spec.weights is not None and spec.factory is None:
        if spec.kind == "torch":
            with importable(root, spec.weights):
                net = exported(root / spec.weights, spec.weights, allow_pickle=spec.allow_pickle)
            return TorchModel(net, domain=domain)
        if is_tree_file(spec.weights):
            return load_trees(root / spec.weights, spec.weights, domain=domain)
    made = _made(spec, root)
    if spec.weights is not None and spec.factory is not None:
        if spec.kind != "torch":
            raise ModelError(
                f"model.weights is {spec.weights!r}, but a factory of kind {spec.kind} loads its "
                "own; take weights out"
            )
        net = made.net if isinstance(made, TorchModel) else made
        if not isinstance(net, nn.Module):
            raise _unexpected(spec, made, "a torch module that the weights fit")
        fill(net, root / spec.weights, spec.weights, allow_pickle=spec.allow_pickle)
        # Every module is made in training mode: that says nothing of the mode it is served in.
        net.eval()
    if isinstance(made, Model):
        if "domain" in spec.model_fields_set:
            _check_domain(spec, made.domain, domain)
        return made
    if spec.kind == "torch":
        if not isinstance(made, nn.Module):
            raise _unexpected(spec, made, "a torch module")
        return TorchModel(made, domain=domain)
    if spec.kind == "sklearn" and is_trees(made) and not isinstance(made, type):
        return trees_model(made, domain=domain)
    if spec.kind == "sklearn":
        if not hasattr(made, "predict") or isinstance(made, type) or not _fitted(made):
            raise _unexpected(spec, made, "a fitted estimator")
        return sklearn_model(made, domain=domain, table=table)
    if not callable(made) or isinstance(made, type):
        raise _unexpected(spec, made, "a function of a numpy batch")
    returns: Literal["labels", "scores"] = "labels" if spec.access == "labels" else "scores"
    return FunctionModel(made, returns=returns, domain=domain)


def with_defences(model: Model, specs: Sequence[DefenceConfig]) -> Model:
    """The model behind the defences of a configuration; raises ModelError for settings unfit."""
    return defended(model, specs).model


def defended(model: Model, specs: Sequence[DefenceConfig]) -> Defended:
    """The same, as layers that can be taken off."""
    for spec in specs:
        if spec.name == "distilled":
            model = Declared(model, distilled(**spec.settings))
    steps: dict[str, InputTransform] = {}
    for place, spec in enumerate(specs):
        if spec.name != "distilled":
            step = input_transform(spec.name, spec.settings, domain=model.domain)
            steps[f"{place}: {step.name}"] = step
    return Defended(members=model, transforms=steps)


def _served(spec: ModelConfig, domain: Box) -> HttpModel:
    settings = HttpSettings(**(spec.http.model_dump() if spec.http else {}))
    access: Literal["labels", "scores"] = "labels" if spec.access == "labels" else "scores"
    return HttpModel(spec.url or "", settings, access=access, domain=domain)


def _made(spec: ModelConfig, root: Path) -> Any:
    """What the factory returns, or a pickled estimator."""
    if spec.factory is None:
        if spec.weights is None or not spec.allow_pickle:
            raise ModelError("model.factory is missing; give file.py:callable")
        return unpickled(root / spec.weights, spec.weights)
    with importable(root, spec.factory), torch.random.fork_rng(devices=[]):
        return called(spec.factory, root, key="model.factory", error=ModelError)


def _unexpected(spec: ModelConfig, made: object, wanted: str) -> ModelError:
    return ModelError(
        f"{spec.factory or spec.weights} gave a {type(made).__name__}; for kind {spec.kind} it "
        f"must give {wanted}"
    )


def _check_domain(spec: ModelConfig, own: Box, told: Box) -> None:
    for one, other in ((own.lower, told.lower), (own.upper, told.upper)):
        try:
            same = bool(np.equal(one, other).all())
        except ValueError:
            same = False
        if not same:
            raise ModelError(
                f"model.domain is {spec.domain}, but the model that {spec.factory} gives has "
                f"{[np.asarray(own.lower).tolist(), np.asarray(own.upper).tolist()]}; correct one "
                "of them"
            )


def _check_columns(
    spec: ModelConfig, estimator: Any, table: Table | None, columns: Sequence[str] | None
) -> None:
    name = str(spec.weights or spec.factory)
    if table is None and columns is not None:
        check_columns(estimator, name, columns, place="as data.features")
    elif table is not None and is_trees(estimator):
        # Others get a table's columns by their names.
        check_columns(estimator, name, table.columns, place="in the table's file")


def _fitted(estimator: Any) -> bool:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    except TypeError:
        # Not scikit-learn's own kind, which cannot be asked.
        return True
    return True
