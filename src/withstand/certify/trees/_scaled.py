"""Trees behind scalers: their cuts where the scalers' own arithmetic puts them on raw rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._errors import ModelError
from ._forest import Forest, Tree

Array = NDArray[Any]

# Of each column alone, and never falling: a row in single precision stays on its side of a cut.
_SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")
_LARGEST = int(np.float32(np.finfo(np.float32).max).view(np.int32))


def behind(forest: Forest, steps: Sequence[Any]) -> Forest:
    """A forest that is asked about what fitted steps of scikit-learn make of rows.

    Raises ModelError for a step that is no scaler, and no ColumnTransformer of scalers.
    """
    steps = [step for step in steps if step is not None and step != "passthrough"]
    if not steps:
        return forest
    features = int(steps[0].n_features_in_)
    source = np.arange(features)
    for step in steps:
        source = source[_sources(step)]
    rows = np.zeros((1, features), np.float32)
    if _made(steps, rows).dtype != np.float32:
        raise ModelError("its steps hand the trees double precision, which is not read")
    asked = [
        (feature, cut)
        for feature, cuts in enumerate(forest.cuts[: len(source)])
        for cut in cuts.tolist()
    ]
    told = np.array(asked, np.float64).reshape(-1, 2)
    columns = told[:, 0].astype(int)
    found = _moved(steps, features, source[columns], columns, told[:, 1])
    place = {pair: number for number, pair in enumerate(asked)}

    def raw(tree: Tree) -> Tree:
        inner = tree.feature >= 0
        cut = tree.cut.astype(np.float32)
        sides = zip(tree.feature[inner].tolist(), cut[inner].tolist(), strict=True)
        cut[inner] = found[[place[pair] for pair in sides]]
        return replace(tree, feature=np.where(inner, source[tree.feature], -1), cut=cut)

    return Forest(trees=tuple(map(raw, forest.trees)), constant=forest.constant, features=features)


def _sources(step: Any) -> Array:
    """Which column of the input each column (c,) of a step's output is made of."""
    kind = type(step).__name__
    if kind in _SCALERS or (kind == "FunctionTransformer" and step.func is None):
        return np.arange(int(step.n_features_in_))
    if kind != "ColumnTransformer":
        raise ModelError(
            f"step {kind} before the trees is not read; take {', '.join(_SCALERS)}, or a "
            "ColumnTransformer of them"
        )
    count = max(part.stop for part in step.output_indices_.values())
    found = np.full(count, -1)
    for name, part, _ in step.transformers_:
        columns = np.asarray(step._transformer_to_input_indices[name], int)
        if isinstance(part, str):
            inner = np.arange(len(columns) if part == "passthrough" else 0)
        else:
            inner = _sources(part)
        found[step.output_indices_[name]] = columns[inner]
    return found


def _made(steps: Sequence[Any], rows: Array) -> Array:
    """What the steps make of rows (B, F)."""
    with np.errstate(all="ignore"):
        for step in steps:
            rows = step.transform(rows)
    return np.asarray(rows)


def _moved(steps: Sequence[Any], features: int, source: Array, column: Array, cut: Array) -> Array:
    """The largest raw values (K,), single precision, that the steps leave at most at each cut.

    source, column, cut (K,): what is changed, where that shows, and the cut there. -inf where the
    steps leave nothing below it.
    """
    # Numbers of single precision in their order, by halves.
    low, high = np.full(len(cut), -_LARGEST - 1), np.full(len(cut), _LARGEST)
    every = np.arange(len(cut))
    while (low < high).any():
        middle = (low + high + 1) // 2
        rows = np.zeros((len(cut), features), np.float32)
        rows[every, source] = _number(middle)
        below = _made(steps, rows)[every, column] <= cut
        low, high = np.where(below, middle, low), np.where(below, high, middle - 1)
    return _number(low)


def _number(order: Array) -> Array:
    """The numbers (K,) of single precision by their place in their order, 0 for 0."""
    size = np.abs(order).astype(np.int32).view(np.float32)
    return np.where(order < 0, -size, size)
