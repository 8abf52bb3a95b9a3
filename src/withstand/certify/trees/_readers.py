"""Readers of tree ensembles: XGBoost, LightGBM, CatBoost and scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import ModelError
from ...models._trees import rounds_of
from ._forest import Forest, Tree, at_most, below
from ._scaled import behind

Array = NDArray[Any]


def read_forest(estimator: Any) -> Forest:
    """The trees of a fitted estimator or booster, with the scores of `trees_model`'s scale.

    Two classes: 0 and the margin of class 1. Forests of scikit-learn: mean probabilities. Pipelines
    of scalers and trees are read as trees of raw rows. Raises ModelError for what is not read
    exactly: categorical splits, DART, linear leaves, other steps.
    """
    libraries = {base.__module__.partition(".")[0] for base in type(estimator).__mro__}
    for name, read in _READERS.items():
        if name in libraries:
            return read(estimator)
    raise ModelError(
        f"{type(estimator).__name__} is no ensemble of trees that is read; give one of XGBoost, "
        "LightGBM, CatBoost or scikit-learn"
    )


def _xgboost(estimator: Any) -> Forest:
    missing = getattr(estimator, "missing", np.nan)
    if missing is not None and not np.isnan(missing):
        raise ModelError(f"the trees take {missing:g} for missing, which is not read; use NaN")
    booster = estimator.get_booster() if hasattr(estimator, "get_booster") else estimator
    told = json.loads(booster.save_raw("json"))["learner"]
    if told["gradient_booster"]["name"] != "gbtree":
        raise ModelError(f"booster {told['gradient_booster']['name']} is not read; use gbtree")
    model, shape = told["gradient_booster"]["model"], told["learner_model_param"]
    labels = int(shape.get("num_target", 1))
    if labels > 1:
        raise ModelError(f"the trees give {labels} labels at once, which are not read; give one")
    outputs = max(int(shape["num_class"]), 1)
    rounds = rounds_of(estimator, booster)
    each = outputs * int(model["gbtree_model_param"].get("num_parallel_tree", 1))
    trees = []
    for number, one in enumerate(model["trees"][: rounds[1] * each or None]):
        if any(one.get("split_type", ())) or one.get("categories"):
            raise ModelError(f"tree {number} splits by categories, which is not read; encode them")
        if int(one["tree_param"].get("size_leaf_vector", 1)) > 1:
            raise ModelError(
                f"tree {number} has several values in a leaf, which are not read; fit it with "
                "multi_strategy one_output_per_tree"
            )
        left = np.array(one["left_children"])
        conditions = np.array(one["split_conditions"], np.float32)
        inner = left >= 0
        trees.append(
            _tree(
                feature=np.where(inner, one["split_indices"], -1),
                cut=below(conditions),
                left=left,
                right=np.array(one["right_children"]),
                value=np.where(inner, 0.0, conditions.astype(np.float64)),
                output=model["tree_info"][number],
                outputs=outputs,
            )
        )
    from xgboost import DMatrix

    def margins(rows: Array) -> Array:
        return np.asarray(
            booster.predict(
                DMatrix(rows, nthread=1), output_margin=True, validate_features=False,
                iteration_range=rounds,
            )
        )  # fmt: skip

    two = told["objective"]["name"].startswith("binary:")
    return _fitting(trees, int(shape["num_feature"]), margins, two=two)


def _lightgbm(estimator: Any) -> Forest:
    booster = getattr(estimator, "booster_", estimator)
    told = booster.dump_model()
    outputs = int(told["num_tree_per_iteration"])
    trees = []
    for number, one in enumerate(told["tree_info"]):
        nodes: list[tuple[int, float, int, int, float]] = []
        _lightgbm_nodes(one["tree_structure"], nodes, number)
        feature, cut, left, right, value = (np.array(side) for side in zip(*nodes, strict=True))
        trees.append(
            _tree(
                feature=feature,
                cut=_around_zero(at_most(cut)),
                left=left,
                right=right,
                value=value,
                output=number % outputs,
                outputs=outputs,
            )
        )
    objective = str(told.get("objective", "")).split() or [""]
    return _fitting(
        trees,
        int(told["max_feature_idx"]) + 1,
        lambda rows: booster.predict(rows, raw_score=True, validate_features=False, num_threads=1),
        two=objective[0] in ("binary", "cross_entropy"),
    )


def _lightgbm_nodes(node: Any, nodes: list[tuple[int, float, int, int, float]], tree: int) -> int:
    place = len(nodes)
    if "split_feature" not in node:
        if "leaf_coeff" in node:
            raise ModelError(f"tree {tree} has linear leaves, which are not read")
        nodes.append((-1, 0.0, -1, -1, float(node["leaf_value"])))
        return place
    if node.get("missing_type") == "Zero":
        raise ModelError(f"tree {tree} takes 0 for missing, which is not read; fit it without")
    if node["decision_type"] != "<=":
        raise ModelError(f"tree {tree} splits by categories, which is not read; encode them")
    nodes.append((0, 0.0, 0, 0, 0.0))
    left = _lightgbm_nodes(node["left_child"], nodes, tree)
    right = _lightgbm_nodes(node["right_child"], nodes, tree)
    nodes[place] = (int(node["split_feature"]), float(node["threshold"]), left, right, 0.0)
    return place


def _around_zero(cut: Array) -> Array:
    """The cuts as LightGBM applies them, which takes values this near to 0 for 0."""
    near = np.float32(1e-35)
    cut = np.where((cut < 0) & (cut >= -near), np.nextafter(-near, np.float32(-np.inf)), cut)
    return np.where((cut >= 0) & (cut < near), near, cut)


def _catboost(estimator: Any) -> Forest:
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.json")
        estimator.save_model(str(path), format="json")
        told = json.loads(path.read_text())
    borders = told["features_info"]
    if borders.get("categorical_features"):
        raise ModelError("it has categorical features, which are not read; encode them")
    columns = [one["flat_feature_index"] for one in borders["float_features"]]
    if "oblivious_trees" not in told:
        raise ModelError("its trees are not symmetric, and are not read; use SymmetricTree")
    scale, bias = told["scale_and_bias"][0], np.atleast_1d(told["scale_and_bias"][1])
    trees = []
    for one in told["oblivious_trees"]:
        splits = one["splits"]
        depth, outputs = len(splits), len(bias)
        values = scale * np.array(one["leaf_values"]).reshape(2**depth, outputs)
        feature, cut, left, right, value = [], [], [], [], []
        for node in range(2 ** (depth + 1) - 1):
            level = (node + 1).bit_length() - 1
            if level < depth:
                # The first split is the lowest bit of a leaf's number, so it is asked for last.
                split = splits[depth - 1 - level]
                feature.append(columns[split["float_feature_index"]])
                cut.append(split["border"])
                left.append(2 * node + 1)
                right.append(2 * node + 2)
                value.append(np.zeros(outputs))
            else:
                feature.append(-1)
                cut.append(0.0)
                left.append(-1)
                right.append(-1)
                value.append(values[node - (2**depth - 1)])
        trees.append(
            Tree(
                feature=np.array(feature), cut=at_most(cut), left=np.array(left),
                right=np.array(right), value=np.stack(value),
            )
        )  # fmt: skip
    return _fitting(
        trees,
        max(columns) + 1,
        lambda rows: estimator.predict(rows, prediction_type="RawFormulaVal"),
        two=len(bias) == 1 and len(estimator.classes_) == 2,
    )


_PROBES = 16
_MEAN = ("DecisionTree", "ExtraTree", "RandomForest")


def _sklearn(estimator: Any) -> Forest:
    kind = type(estimator).__name__
    if kind == "Pipeline":
        steps = [step for _, step in estimator.steps]
        return behind(read_forest(steps[-1]), steps[:-1])
    if kind.startswith("GradientBoosting"):
        return _sklearn_boosting(estimator)
    if kind.startswith("HistGradientBoosting"):
        return _sklearn_histograms(estimator)
    if not kind.startswith(_MEAN) or estimator.n_outputs_ != 1:
        raise ModelError(
            f"{kind} is not read; give a tree, a random forest, extra trees or gradient boosting "
            "of one output"
        )
    members = getattr(estimator, "estimators_", [estimator])
    trees = []
    for one in members:
        found = one.tree_
        value = found.value[:, 0, :].astype(np.float64)
        if hasattr(one, "classes_"):
            value = value / value.sum(1, keepdims=True)
        trees.append(_sklearn_tree(found, value / len(members)))
    constant = np.zeros(trees[0].value.shape[1])
    return Forest(trees=tuple(trees), constant=constant, features=estimator.n_features_in_)


def _sklearn_boosting(estimator: Any) -> Forest:
    trees = []
    outputs = estimator.estimators_.shape[1]
    for stage in estimator.estimators_:
        for output, one in enumerate(stage):
            value = np.zeros((one.tree_.node_count, outputs))
            value[:, output] = estimator.learning_rate * one.tree_.value[:, 0, 0]
            trees.append(_sklearn_tree(one.tree_, value))
    answer = getattr(estimator, "decision_function", estimator.predict)
    two = outputs == 1 and hasattr(estimator, "classes_")
    return _fitting(trees, estimator.n_features_in_, answer, two=two)


def _sklearn_histograms(estimator: Any) -> Forest:
    trees = []
    outputs = len(estimator._predictors[0])
    for number, one in enumerate(each for stage in estimator._predictors for each in stage):
        nodes = one.nodes
        if nodes["is_categorical"].any():
            raise ModelError(f"tree {number} splits by categories, which is not read; encode them")
        inner = nodes["is_leaf"] == 0
        trees.append(
            _tree(
                feature=np.where(inner, nodes["feature_idx"].astype(np.int64), -1),
                cut=at_most(nodes["num_threshold"]),
                left=nodes["left"].astype(np.int64),
                right=nodes["right"].astype(np.int64),
                value=np.where(inner, 0.0, nodes["value"]),
                output=number % outputs,
                outputs=outputs,
            )
        )
    answer = getattr(estimator, "decision_function", estimator.predict)
    two = outputs == 1 and hasattr(estimator, "classes_")
    return _fitting(trees, estimator.n_features_in_, answer, two=two)


def _sklearn_tree(found: Any, value: Array) -> Tree:
    inner = found.children_left >= 0
    return Tree(
        feature=np.where(inner, found.feature, -1),
        cut=at_most(found.threshold),
        left=found.children_left,
        right=found.children_right,
        value=np.where(inner[:, None], 0.0, value),
    )


def _tree(*, value: Array, output: int, outputs: int, **arrays: Array) -> Tree:
    wide = np.zeros((len(value), outputs))
    wide[:, output] = value
    return Tree(value=wide, **arrays)


def _fitting(
    trees: list[Tree], features: int, answer: Callable[[Array], Any], *, two: bool
) -> Forest:
    """With the constant that the model itself adds, told by its answers to some rows."""
    bare = Forest(trees=tuple(trees), constant=np.zeros(trees[0].value.shape[1]), features=features)
    rows = _probes(bare)
    apart = np.asarray(answer(rows), np.float64).reshape(len(rows), -1) - bare.scores(rows)
    found = replace(bare, constant=apart[0])
    if np.abs(apart - apart[0]).max() > found.rounding:
        raise ModelError(
            "it does not answer with the sum of its trees and a constant, and is not read; fit it "
            "without what it adds for each row, such as an init estimator"
        )
    if not two:
        return found
    wide = [replace(one, value=np.concatenate((0 * one.value, one.value), 1)) for one in trees]
    return Forest(trees=tuple(wide), constant=np.array([0.0, apart[0, 0]]), features=features)


def _probes(forest: Forest) -> Array:
    """Rows (n, F) from one end of the cuts to the other."""
    rows = np.zeros((_PROBES, forest.features), np.float32)
    for feature, cuts in enumerate(forest.cuts):
        if len(cuts):
            places = np.linspace(0, len(cuts) - 1, _PROBES - 1).astype(int)
            rows[1:, feature] = np.roll(cuts[places], feature)
    return rows


_READERS: dict[str, Callable[[Any], Forest]] = {
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "catboost": _catboost,
    "sklearn": _sklearn,
}
