"""Boosted trees of XGBoost, LightGBM and CatBoost as models, from objects or their own files."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._errors import ModelError, one_line
from ..threat import Box
from ._callable import FunctionModel

_LIBRARIES = {".json": "xgboost", ".ubj": "xgboost", ".txt": "lightgbm", ".cbm": "catboost"}
_NAMES = {"xgboost": "XGBoost", "lightgbm": "LightGBM", "catboost": "CatBoost"}
_EXTRAS = {"xgboost": "trees", "lightgbm": "trees", "catboost": "catboost"}
Answer = Callable[[Any], Any]


def is_tree_file(name: str) -> bool:
    """Whether a file's suffix is that of a tree library's own format, which holds no pickle."""
    return Path(name).suffix.lower() in _LIBRARIES


def is_trees(made: object) -> bool:
    """Whether an object is a booster or an estimator of XGBoost, LightGBM or CatBoost."""
    return any(
        base.__module__.partition(".")[0] in _LIBRARIES.values() for base in type(made).__mro__
    )


def load_trees(path: Path, name: str, *, domain: Sequence[float] | Box) -> FunctionModel:
    """The model in an XGBoost .json or .ubj, a LightGBM .txt or a CatBoost .cbm file.

    Raises ModelError for a file that is missing or damaged, and for a library that is missing.
    """
    if not path.is_file():
        raise ModelError(f"weights {name} are not there; correct model.weights")
    library = _LIBRARIES[path.suffix.lower()]
    try:
        module: Any = importlib.import_module(library)
    except ImportError:
        raise ModelError(
            f"weights {name} need {_NAMES[library]}, which is not installed; "
            f"run pip install 'withstand[{_EXTRAS[library]}]'"
        ) from None
    try:
        booster = _LOADERS[library](module, path)
    except Exception as error:
        raise ModelError(
            f"weights {name} cannot be read as a model of {_NAMES[library]} "
            f"({type(error).__name__}: {one_line(error, 100)}); write them with its save_model"
        ) from None
    return trees_model(booster, domain=domain)


def _xgboost_file(module: Any, path: Path) -> Any:
    booster = module.Booster()
    booster.load_model(path)
    booster.set_param({"nthread": torch.get_num_threads()})
    return booster


def _lightgbm_file(module: Any, path: Path) -> Any:
    # Its reader ends the whole process on a file that was cut short.
    content = path.read_bytes().replace(b"\r\n", b"\n")
    header, first, _ = content.partition(b"\nTree=0\n")
    sizes = re.search(rb"\ntree_sizes=([0-9 ]*)(?:\n|$)", header)
    if not content.startswith(b"tree\n") or sizes is None:
        raise ValueError("it does not begin as one does")
    stated = sum(map(int, sizes[1].split()))
    end = len(header) + 1 + stated if first else content.find(b"\nend of trees\n") + 1
    if not content[end:].startswith(b"end of trees\n"):
        raise ValueError("it is cut short or was changed by hand")
    return module.Booster(model_str=content.decode())


def _catboost_file(module: Any, path: Path) -> Any:
    model = module.CatBoost()
    model.load_model(str(path), format="cbm")
    if len(model.classes_):
        return model
    # The plain class answers a regression on the scale of its loss, which may be a logarithm.
    regression = module.CatBoostRegressor()
    regression.load_model(str(path), format="cbm")
    return regression


_LOADERS: dict[str, Callable[[Any, Path], Any]] = {
    "xgboost": _xgboost_file,
    "lightgbm": _lightgbm_file,
    "catboost": _catboost_file,
}


def trees_model(trees: Any, *, domain: Sequence[float] | Box) -> FunctionModel:
    """A booster, or a fitted estimator, of XGBoost, LightGBM or CatBoost over rows (B, d).

    Scores are raw margins, 0 and the margin for two classes, so that they do not saturate as
    probabilities do; a regression answers with its prediction. Raises ModelError if not fitted.
    """
    libraries = {base.__module__.partition(".")[0] for base in type(trees).__mro__}
    made = _ANSWERS[next(name for name in _ANSWERS if name in libraries)]
    try:
        answer = made(trees)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{type(trees).__name__} cannot be asked ({type(error).__name__}: "
            f"{one_line(error, 100)}); give a fitted model"
        ) from None

    def scores(x: Any) -> Any:
        return answer(x.reshape(len(x), -1))

    return FunctionModel(scores, domain=domain, estimator=trees)


def _two(margin: Any) -> Any:
    """The margins (B,) of class 1 as scores (B, 2) of both classes."""
    margin = np.asarray(margin).reshape(-1)
    return np.stack((np.zeros_like(margin), margin), 1)


def _xgboost(trees: Any) -> Answer:
    booster = trees.get_booster() if hasattr(trees, "get_booster") else trees
    learner = json.loads(booster.save_config())["learner"]
    objective, shape = learner["objective"]["name"], learner["learner_model_param"]
    rounds = rounds_of(trees, booster)
    margins = objective.startswith(("binary:", "multi:"))
    told = getattr(trees, "missing", None)
    missing = float("nan") if told is None else told

    def ask(x: Any) -> Any:
        if learner["gradient_booster"]["name"] == "gblinear":
            matrix = importlib.import_module("xgboost").DMatrix(x, missing=missing)
            return booster.predict(matrix, output_margin=margins, validate_features=False)
        # Safe from several threads at once, and it copies nothing.
        kind = "margin" if margins else "value"
        return booster.inplace_predict(
            x, iteration_range=rounds, predict_type=kind, missing=missing
        )

    if objective.startswith("binary:") and int(shape.get("num_target", 1)) == 1:
        return lambda x: _two(ask(x))
    return ask


def rounds_of(trees: Any, booster: Any) -> tuple[int, int]:
    """Which rounds of XGBoost answer, as its own `iteration_range`: (0, 0) for all of them.

    An estimator that stopped early answers with the best ones; a bare booster with all it has.
    """
    # The estimator's own mark is in its files only.
    estimator = trees is not booster or booster.attr("scikit_learn")
    best = booster.attr("best_iteration") if estimator else None
    return (0, 0) if best is None else (0, int(best) + 1)


def _lightgbm(trees: Any) -> Answer:
    booster = getattr(trees, "booster_", trees)
    objective = str(booster.dump_model(num_iteration=1).get("objective", ""))
    name, *settings = objective.split() or [""]
    several = booster.num_model_per_iteration() > 1
    two = name in ("binary", "cross_entropy") or (hasattr(trees, "classes_") and not several)
    # LightGBM's probability is the sigmoid of this many times the raw value.
    slope = next((float(s.partition(":")[2]) for s in settings if s.startswith("sigmoid:")), 1.0)

    def ask(x: Any) -> Any:
        # Its column names are of no use to an attacker's rows.
        return booster.predict(
            x, raw_score=two or several, validate_features=False, num_threads=_threads()
        )

    return (lambda x: _two(slope * ask(x))) if two else ask


def _catboost(trees: Any) -> Answer:
    if not trees.is_fitted():
        raise ModelError(f"{type(trees).__name__} is not fitted; give a fitted model")
    if not len(trees.classes_):
        return lambda x: trees.predict(x, thread_count=_threads())

    def ask(x: Any) -> Any:
        raw = trees.predict(x, prediction_type="RawFormulaVal", thread_count=_threads())
        return _two(raw) if raw.ndim == 1 or raw.shape[1] == 1 else raw

    return ask


def _threads() -> int:
    return torch.get_num_threads()


_ANSWERS: dict[str, Callable[[Any], Answer]] = {
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "catboost": _catboost,
}
