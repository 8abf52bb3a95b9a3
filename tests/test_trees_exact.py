"""Forests read exactly, and decided row by row."""

from __future__ import annotations

import warnings
from itertools import product
from typing import Any

import numpy as np
import pytest

from withstand._errors import ModelError
from withstand.certify.trees import Forest, Tree, decide, read_forest
from withstand.models import sklearn_model, trees_model
from withstand.threat.tabular import Capability, Derived, Feature, OneHot, Relation

DRAW = np.random.default_rng(0)
X = DRAW.normal(0, 1, (200, 5)).astype(np.float32)
LABELS = {
    2: (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int),
    3: np.digitize(X[:, 0] + X[:, 3], [-0.5, 0.5]),
}


def fitted(kind: str, classes: int) -> tuple[Any, Any]:
    """An estimator, and its scores."""
    y = LABELS[classes]
    if kind == "xgboost":
        library: Any = pytest.importorskip("xgboost")
        made = library.XGBClassifier(n_estimators=6, max_depth=3, nthread=1).fit(X, y)
    elif kind == "lightgbm":
        library = pytest.importorskip("lightgbm")
        made = library.LGBMClassifier(n_estimators=6, verbose=-1, num_threads=1).fit(X, y)
    elif kind == "catboost":
        library = pytest.importorskip("catboost")
        made = library.CatBoostClassifier(iterations=6, depth=3, verbose=0, thread_count=1).fit(
            X, y
        )
    else:
        from sklearn import ensemble, tree

        made = {
            "forest": ensemble.RandomForestClassifier(6, random_state=0),
            "extra": ensemble.ExtraTreesClassifier(6, random_state=0),
            "boosting": ensemble.GradientBoostingClassifier(n_estimators=6, random_state=0),
            "tree": tree.DecisionTreeClassifier(random_state=0),
        }[kind].fit(X, y)
    if kind in ("xgboost", "lightgbm", "catboost"):
        model = trees_model(made, domain=(-9, 9))
        return made, model.function
    if kind == "boosting":
        return made, lambda x: _two(made.decision_function(x))
    return made, made.predict_proba


def _two(margin: Any) -> Any:
    return margin if np.ndim(margin) > 1 else np.stack([np.zeros_like(margin), margin], 1)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "kind", ["xgboost", "lightgbm", "catboost", "forest", "extra", "boosting", "tree"]
)
def test_a_reader_answers_as_its_library_at_and_beside_every_cut(kind: str, classes: int) -> None:
    made, scores = fitted(kind, classes)
    forest = read_forest(made)
    rows = []
    for feature, cuts in enumerate(forest.cuts()):
        for cut in cuts:
            for value in (cut, np.nextafter(cut, np.float32(9)), np.nextafter(cut, np.float32(-9))):
                moved = X[:4].copy()
                moved[:, feature] = value
                rows.append(moved)
    every = np.concatenate(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = np.asarray(scores(every), float)
    assert np.abs(forest.scores(every) - wanted).max() <= forest.rounding
    assert forest.rounding < 1e-3


def test_what_is_not_read_exactly_is_named() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    made = HistGradientBoostingClassifier(max_iter=2).fit(X, LABELS[2])
    with pytest.raises(ModelError, match="HistGradientBoostingClassifier is not read"):
        read_forest(made)
    with pytest.raises(ModelError, match="LogisticRegression is not read"):
        read_forest(LogisticRegression().fit(X, LABELS[2]))
    with pytest.raises(ModelError, match="object is no ensemble"):
        read_forest(object())
    assert sklearn_model(made, domain=(0, 1)) is not None


def grown(draw: Any, depth: int, features: int, values: int) -> Tree:
    """A tree with cuts at whole numbers and random leaves, of three classes."""
    feature: list[int] = []
    cut: list[float] = []
    left: list[int] = []
    right: list[int] = []
    value: list[Any] = []

    def grow(level: int) -> int:
        place = len(feature)
        leaf = level == depth or draw.random() < 0.15
        feature.append(-1 if leaf else int(draw.integers(features)))
        cut.append(float(draw.integers(values)) + float(draw.choice([0.0, 0.5])))
        left.append(-1)
        right.append(-1)
        value.append(draw.normal(0, 1, 3) if leaf else np.zeros(3))
        if not leaf:
            left[place] = grow(level + 1)
            right[place] = grow(level + 1)
        return place

    grow(0)
    return Tree(
        feature=np.array(feature), cut=np.array(cut, np.float32), left=np.array(left),
        right=np.array(right), value=np.array(value),
    )  # fmt: skip


# What is derived or not linear is checked afterwards: there may be neither a witness nor a proof.
UNSURE = (5, 7)
CASES: list[dict[str, Any]] = [
    {},
    {"relations": ["a + b <= c + 2"]},
    {"relations": ["a + b == c", "not (a > 3)"]},
    {"most_changed": 1},
    {"most_cost": 2.0},
    {"derived": ("c", "a + b")},
    {"choice": ("b", "c")},
    {"relations": ["a * b <= 3"]},
]


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize(
    ("trees", "count"), [(2, 6), *(pytest.param(n, 40, marks=pytest.mark.slow) for n in (1, 5))]
)
def test_a_decision_is_that_of_trying_every_row(case: int, trees: int, count: int) -> None:
    told, names = dict(CASES[case]), ["a", "b", "c"]
    draw = np.random.default_rng(case)
    choice = told.pop("choice", None)
    derived = told.pop("derived", None)
    features = tuple(
        Feature(name=name, integer=True, lower=0, upper=1 if choice and name in choice else 4,
                change="increase" if name == "b" and not choice else "both", most=3,
                cost=1.0 if name == "a" else 0.5)
        for name in names
    )  # fmt: skip
    asked = Capability(
        features=features,
        relations=tuple(Relation.read(text, names) for text in told.pop("relations", ())),
        choices=(OneHot(columns=choice),) if choice else (),
        derived=(Derived.read(*derived, names),) if derived else (),
        **told,
    )
    table = np.array(list(product(range(9), repeat=3)), np.float32)
    counted = {"witness": 0, "proven": 0, "undecided": 0}
    for _ in range(count):
        forest = Forest(
            trees=tuple(grown(draw, 3, 3, 5) for _ in range(trees)),
            constant=np.zeros(3),
            features=3,
        )
        start = table[[n for n in range(len(table)) if not asked.wrong(table[n : n + 1])]]
        x = start[draw.integers(len(start))]
        label = int(forest.scores(x[None])[0].argmax())
        within = asked.contains(np.repeat(x[None], len(table), 0), table)
        exists = bool((forest.scores(table[within]).argmax(1) != label).any())
        lower, upper = (end[0] for end in asked.box(x[None]))
        lower, upper = np.maximum(lower, 0), np.minimum(upper, 8)
        found = decide(forest, x, label, lower, upper, capability=asked, seconds=20)
        counted[found.status] += 1
        if found.status == "witness":
            assert found.row is not None
            assert exists
            assert asked.contains(x[None], found.row[None])[0]
            assert forest.scores(found.row[None])[0].argmax() != label
        if found.status == "proven":
            assert not exists
    assert counted["undecided"] == 0 or case in UNSURE
    assert counted["witness"] > 0
    assert counted["proven"] > 0 or count < 10


def test_a_box_alone_is_decided_on_a_model_of_numbers() -> None:
    made, scores = fitted("boosting", 2)
    forest = read_forest(made)
    statuses = []
    for eps in (0.02, 0.3):
        for x in X[:6]:
            label = int(scores(x[None])[0].argmax())
            found = decide(forest, x, label, x - eps, x + eps, seconds=20)
            statuses.append(found.status)
            cloud = x + DRAW.uniform(-eps, eps, (300, 5)).astype(np.float32)
            fooled = scores(cloud).argmax(1) != label
            assert not (found.status == "proven" and fooled.any())
            if found.row is not None:
                assert np.abs(found.row - x).max() <= eps + 1e-6
                assert scores(found.row[None])[0].argmax() != label
    assert "undecided" not in statuses
    assert {"witness", "proven"} <= set(statuses)
