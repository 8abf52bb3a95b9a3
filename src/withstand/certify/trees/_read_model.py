"""From a model to its forest, which answers as it does."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..._errors import ModelError
from ...models import FunctionModel, Model, Thresholded
from ...models._threshold import TIE
from ._forest import Forest
from ._readers import read_forest

Array = NDArray[Any]


def forest_of(model: Model, x: Array) -> Forest:
    """The trees of a model of classes over rows, its decision threshold in their constant.

    x (N, F): rows on which both must answer alike. Raises ModelError for a model that is no
    ensemble of trees, one that changes its rows first, and one with a single output.
    """
    inner = model.model if isinstance(model, Thresholded) else model
    if not isinstance(inner, FunctionModel) or inner.estimator is None:
        raise ModelError(
            f"the model is a {type(inner).__name__}, whose trees cannot be read; method trees is "
            "for an estimator or booster of XGBoost, LightGBM, CatBoost or scikit-learn"
        )
    named = hasattr(inner.estimator, "feature_names_in_")
    kind = type(inner.estimator).__name__
    if named and kind.startswith(("HistGradientBoosting", "Pipeline")):
        raise ModelError(
            f"{kind} computes in double precision with what it is given by name; fit it to rows "
            "of numbers without names"
        )
    forest = read_forest(inner.estimator)
    flat = x.reshape(len(x), -1)
    if forest.features > flat.shape[1] or len(forest.constant) < 2:
        raise ModelError(
            f"the trees ask for {forest.features} features and give {len(forest.constant)} scores, "
            f"the rows have {flat.shape[1]} features; give a classifier of such rows"
        )
    forest = replace(forest, features=flat.shape[1])
    if isinstance(model, Thresholded):
        scores = inner.scores(torch.from_numpy(x)).double().cpu().numpy()
        forest = _raised(forest, forest.scores(flat), scores, model.shift, model.threshold)
    _check(forest, flat, model.labels(torch.from_numpy(x)).cpu().numpy())
    return forest


def digest_of(forest: Forest) -> str:
    """sha256 (hex) over all that a forest is."""
    digest = hashlib.sha256(repr((forest.features, forest.constant.tolist())).encode())
    for tree in forest.trees:
        for part in (tree.feature, tree.left, tree.right):
            digest.update(np.ascontiguousarray(part, np.int64).tobytes())
        digest.update(np.ascontiguousarray(tree.cut, np.float32).tobytes())
        digest.update(np.ascontiguousarray(tree.value, np.float64).tobytes())
    return digest.hexdigest()


def _raised(forest: Forest, own: Array, scores: Array, shift: float, threshold: float) -> Forest:
    """With the score of class 0 raised by a threshold, on the scale of the trees' own scores.

    own (N, 2): the trees'; scores (N, 2): the model's, to which the shift belongs.
    """
    if (own >= 0).all() and np.allclose(own.sum(1), 1.0):
        extra = 2 * threshold - 1 - TIE
    else:
        margin, wanted = own[:, 1] - own[:, 0], scores[:, -1] - (scores.shape[1] > 1) * scores[:, 0]
        # Some libraries' probability is the sigmoid of a multiple of what their trees add up to.
        slope = float((margin * wanted).sum() / max((margin * margin).sum(), 1e-300))
        if not slope > 0 or not np.allclose(slope * margin, wanted, rtol=1e-4, atol=1e-4):
            raise ModelError(
                f"a threshold of {threshold:g} cannot be put on the trees' scores; take "
                "model.threshold out"
            )
        extra = shift / slope
    return replace(forest, constant=forest.constant + np.array([extra, 0.0]))


def _check(forest: Forest, x: Array, answers: Array) -> None:
    scores = forest.scores(x)
    first, second = np.sort(scores, 1)[:, :-3:-1].T
    apart = first - second > forest.rounding
    wrong = np.flatnonzero(apart & (scores.argmax(1) != answers))
    if len(wrong):
        raise ModelError(
            f"the trees answer {scores[wrong[0]].argmax()} to row {wrong[0]}, the model "
            f"{answers[wrong[0]]}: it changes rows before its trees see them, or its labels are "
            "not 0, 1, ...; method trees is for the bare trees"
        )
