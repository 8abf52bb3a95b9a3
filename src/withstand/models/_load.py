"""From the configuration's model section to a model."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from .._errors import ModelError, did_you_mean, listed, one_line
from ..config import DefenceConfig, ModelConfig
from ..threat import Box
from ..threat.tabular import Table
from ._callable import FunctionModel, sklearn_model
from ._channels_last import channels_last
from ._declared import Declared
from ._defended import Defended
from ._distilled import distilled
from ._exported import exported
from ._http import HttpModel, HttpSettings
from ._input_transform import InputTransform, input_transform
from ._onnx import load_onnx
from ._protocol import Model
from ._threshold import Thresholded
from ._torch import TorchModel
from ._trees import check_columns, is_tree_file, is_trees, load_trees, trees_model
from ._weights import fill, unpickled


def load_model(spec: ModelConfig, root: str | Path = ".", table: Table | None = None) -> Model:
    """The model that a configuration describes; relative paths count from the folder `root`.

    table: what the columns of its rows are, for an estimator that was fitted to named ones. Raises
    ModelError for a factory that fails and for weights that do not fit.
    """
    found = _loaded(spec, Path(root), table)
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
            with _importable(root, spec.weights):
                net = exported(root / spec.weights, spec.weights, allow_pickle=spec.allow_pickle)
            return TorchModel(net, domain=domain)
        if is_tree_file(spec.weights):
            trees = load_trees(root / spec.weights, spec.weights, domain=domain)
            if table is not None:
                check_columns(trees.estimator, spec.weights, table.columns)
            return trees
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
        trees = trees_model(made, domain=domain)
        if table is not None:
            check_columns(made, str(spec.factory or spec.weights), table.columns)
        return trees
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
    for spec in specs:
        if spec.name == "distilled":
            model = Declared(model, distilled(**spec.settings))
    steps: dict[str, InputTransform] = {}
    for place, spec in enumerate(specs):
        if spec.name != "distilled":
            step = input_transform(spec.name, spec.settings, domain=model.domain)
            steps[f"{place}: {step.name}"] = step
    return Defended(members=model, transforms=steps).model if steps else model


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
    with _importable(root, spec.factory), torch.random.fork_rng(devices=[]):
        return _called(_found(spec.factory, root), spec.factory)


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


@contextmanager
def _importable(root: Path, factory: str) -> Iterator[None]:
    """The user's file may import its siblings while it is loaded."""
    place = factory.rpartition(":")[0]
    folder = (root / place).parent if place.endswith(".py") else root
    added = [str(folder.resolve()), str(root.resolve())]
    sys.path[:0] = added
    try:
        yield
    finally:
        for entry in added:
            # The user's own code may have taken it out.
            if entry in sys.path:
                sys.path.remove(entry)


def _found(factory: str, root: Path) -> Callable[[], Any]:
    place, _, name = factory.rpartition(":")
    module = _executed(root / place, place) if place.endswith(".py") else _imported(place)
    found = getattr(module, name, None)
    if not callable(found):
        names = [key for key, value in vars(module).items() if callable(value)]
        raise ModelError(
            f"{place} has no callable {name!r}{did_you_mean(name, names) or ';'} "
            f"it has {listed(names)}"
        )
    return found  # type: ignore[no-any-return]


def _imported(place: str) -> Any:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name not in (place, place.partition(".")[0]):
            raise ModelError(_blame(error, place)) from None
        raise ModelError(
            f"{place} failed: ModuleNotFoundError: {error}; install it, or for a file write "
            f"model.factory as {place.replace('.', '/')}.py:callable"
        ) from None
    except (Exception, SystemExit) as error:
        raise ModelError(_blame(error, place)) from None


def _executed(path: Path, place: str) -> Any:
    # A name that no package has, and another for each file.
    name = f"_withstand_{path.stem}_{sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ModelError(f"{place} is not there; correct model.factory")
    module = importlib.util.module_from_spec(spec)
    # Classes of the file look for their module by its name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ModelError(_blame(error, place)) from None
    return module


def _called(factory: Callable[[], Any], name: str) -> Any:
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise ModelError(_blame(error, name)) from None


def _blame(error: BaseException, place: str) -> str:
    """One line that names the user's file and line."""
    ours = (__file__, importlib.__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in ours and not frame.filename.startswith("<frozen")
    ]
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    where = f"line {own[-1].lineno} of {Path(own[-1].filename).name}: " if own else ""
    if isinstance(error, TypeError) and not own:
        where = "it is called without arguments: "
    return f"{place} failed: {where}{type(error).__name__}: {one_line(error)}; mend it there"
