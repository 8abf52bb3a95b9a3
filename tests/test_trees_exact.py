"""Forests read exactly, and decided row by row."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from withstand._errors import ModelError, ThreatError
from withstand.certify.trees import Forest, Tree, decide, nearest, read_forest
from withstand.certify.trees._axes import axes_of
from withstand.certify.trees._cells import reach_of
from withstand.certify.trees._decide import _Asked
from withstand.certify.trees._model import Model
from withstand.certify.trees._programme import Programme
from withstand.models import trees_model
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
        made = library.CatBoostClassifier(
            iterations=6, depth=3, verbose=0, thread_count=1, allow_writing_files=False
        ).fit(X, y)
    else:
        from sklearn import ensemble, tree

        made = {
            "forest": ensemble.RandomForestClassifier(6, random_state=0),
            "extra": ensemble.ExtraTreesClassifier(6, random_state=0),
            "boosting": ensemble.GradientBoostingClassifier(n_estimators=6, random_state=0),
            "histograms": ensemble.HistGradientBoostingClassifier(max_iter=6),
            "tree": tree.DecisionTreeClassifier(random_state=0),
        }[kind].fit(X, y)
    if kind in ("xgboost", "lightgbm", "catboost"):
        model = trees_model(made, domain=(-9, 9))
        return made, model.function
    if kind in ("boosting", "histograms"):
        return made, lambda x: _two(made.decision_function(x))
    return made, made.predict_proba


def _two(margin: Any) -> Any:
    return margin if np.ndim(margin) > 1 else np.stack([np.zeros_like(margin), margin], 1)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "kind",
    ["xgboost", "lightgbm", "catboost", "forest", "extra", "boosting", "histograms", "tree"],
)
def test_a_reader_answers_as_its_library_at_and_beside_every_cut(kind: str, classes: int) -> None:
    made, scores = fitted(kind, classes)
    forest = read_forest(made)
    rows = []
    for feature, cuts in enumerate(forest.cuts):
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


@pytest.mark.parametrize(
    "last",
    ["xgboost", *(pytest.param(one, marks=pytest.mark.slow) for one in ("lightgbm", "histograms"))],
)
def test_a_pipeline_answers_as_itself_at_and_beside_every_cut(last: str) -> None:
    from sklearn.base import clone
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    x = (X * [1e3, 1, 1e-3, 1, 40] + [5e4, 0, 0, -3, 7]).astype(np.float32)
    each = ColumnTransformer(
        [
            ("robust", RobustScaler(), [4, 0]),
            ("gone", "drop", [1]),
            ("clipped", MinMaxScaler((-1, 3), clip=True), slice(2, 3)),
        ],
        remainder="passthrough",
    )
    estimator = clone(fitted(last, 2)[0])
    made = make_pipeline(each, "passthrough", StandardScaler(), estimator).fit(x, LABELS[2])
    forest = read_forest(made)
    assert forest.features == 5
    assert [len(cuts) > 0 for cuts in forest.cuts] == [True, False, True, True, True]
    rows = []
    for feature, cuts in enumerate(forest.cuts):
        for cut in cuts[np.isfinite(cuts)]:
            for value in (
                cut,
                np.nextafter(cut, np.float32(9e9)),
                np.nextafter(cut, np.float32(-9e9)),
            ):
                moved = x[:3].copy()
                moved[:, feature] = value
                rows.append(moved)
    every = np.concatenate(rows).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = made.predict_proba(every)[:, 1]
    margin = forest.scores(every)[:, 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-margin)), wanted, atol=1e-5)


def test_what_is_not_read_exactly_is_named() -> None:
    from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier
    from sklearn.ensemble import HistGradientBoostingClassifier as Histograms
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    y = LABELS[2]
    # Each has trees, and does not answer with their mean.
    for made in (AdaBoostClassifier(n_estimators=2), BaggingClassifier(n_estimators=2)):
        with pytest.raises(ModelError, match=f"{type(made).__name__} is not read"):
            read_forest(made.fit(X, y))
    with pytest.raises(ModelError, match="DecisionTreeClassifier is not read"):
        read_forest(DecisionTreeClassifier(max_depth=2).fit(X, np.stack((y, y), 1)))
    with pytest.raises(ModelError, match="LogisticRegression is not read"):
        read_forest(LogisticRegression().fit(X, y))
    whole = np.round(np.abs(X))
    categories = Histograms(max_iter=2, categorical_features=[0]).fit(whole, whole[:, 0] == 1)
    with pytest.raises(ModelError, match="tree 0 splits by categories"):
        read_forest(categories)
    with pytest.raises(ModelError, match="object is no ensemble"):
        read_forest(object())


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
    {"relations": ["a + b == c", "a + c >= 3"], "most_changed": 2},
    {"relations": ["a + b == c"], "most_cost": 2.0},
]


TABLE = np.array(list(product(range(9), repeat=3)), np.float32)


def capability_of(case: dict[str, Any]) -> Capability:
    """Three whole numbers up to 4, of which the second one only grows, under a case's rules."""
    told, names = dict(case), ["a", "b", "c"]
    choice = told.pop("choice", None)
    derived = told.pop("derived", None)
    features = tuple(
        Feature(name=name, integer=True, lower=0, upper=1 if choice and name in choice else 4,
                change="increase" if name == "b" and not choice else "both", most=3,
                cost=1.0 if name == "a" else 0.5)
        for name in names
    )  # fmt: skip
    return Capability(
        features=features,
        relations=tuple(Relation.read(text, names) for text in told.pop("relations", ())),
        choices=(OneHot(columns=choice),) if choice else (),
        derived=(Derived.read(*derived, names),) if derived else (),
        **told,
    )


def possible(asked: Capability) -> Any:
    """The rows that break no rule by themselves."""
    wrong = {row for row, _ in asked.wrong(TABLE)}
    return TABLE[[row for row in range(len(TABLE)) if row not in wrong]]


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize(
    ("trees", "count"), [(2, 6), *(pytest.param(n, 40, marks=pytest.mark.slow) for n in (1, 5))]
)
def test_a_decision_is_that_of_trying_every_row(case: int, trees: int, count: int) -> None:
    asked, draw = capability_of(CASES[case]), np.random.default_rng(case)
    counted = {"witness": 0, "proven": 0, "undecided": 0}
    for _ in range(count):
        forest = Forest(
            trees=tuple(grown(draw, 3, 3, 5) for _ in range(trees)),
            constant=np.zeros(3),
            features=3,
        )
        x = possible(asked)[draw.integers(len(possible(asked)))]
        label = int(forest.scores(x[None])[0].argmax())
        within = asked.contains(np.repeat(x[None], len(TABLE), 0), TABLE)
        exists = bool((forest.scores(TABLE[within]).argmax(1) != label).any())
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
            assert found.margin is not None
            assert found.margin < 0
    assert counted["undecided"] == 0 or case in UNSURE
    assert counted["witness"] > 0
    assert counted["proven"] > 0 or count < 10


@pytest.mark.parametrize("case", [n for n in range(len(CASES)) if n not in UNSURE])
def test_the_programme_knows_the_highest_margin_there_is(case: int) -> None:
    asked, draw = capability_of(CASES[case]), np.random.default_rng(case)
    starts = possible(asked)
    for _ in range(3):
        forest = Forest(
            trees=tuple(grown(draw, 3, 3, 5) for _ in range(2)), constant=np.zeros(3), features=3
        )
        x = starts[draw.integers(len(starts))].astype(float)
        rows = TABLE[asked.contains(np.repeat(x[None], len(TABLE), 0), TABLE)]
        lower, upper = (end[0] for end in asked.box(x[None]))
        axes = axes_of(forest.cuts, x, np.maximum(lower, 0), np.minimum(upper, 8), asked)
        cells = reach_of(forest, axes).towards(1, 0)
        if not len(cells.gain):
            continue
        parts = np.stack([axis.part(rows[:, n]) for n, axis in enumerate(axes)], 1)
        margins, model = cells.margins(parts), Model(cells, axes, x, asked)
        relaxed = cells.constant + model.programme.relaxed(20).bound
        assert margins.max() <= relaxed + 1e-9
        assert relaxed <= cells.highest + 1e-6
        leaves = np.stack([cells.there(one) for one in parts])
        for forbidden in ("cell", "leaves", ""):
            found = model.programme.solved(20)
            if not len(margins):
                assert found.status == 2
                break
            assert cells.constant - found.fun == pytest.approx(margins.max(), abs=1e-5)
            best, row = model.read(found.x)
            assert asked.contains(x[None], row[None])[0]
            if forbidden == "cell":
                model.forbid(best)
                left = (parts != best).any(1)
            else:
                model.forbid_leaves(best)
                left = (leaves != cells.there(best)).any(1)
            margins, parts, leaves = margins[left], parts[left], leaves[left]


@pytest.mark.parametrize("limit", ["most_changed", "most_cost"])
@pytest.mark.parametrize("up", [True, False])
def test_what_follows_a_change_counts_against_the_limits(limit: str, up: bool) -> None:
    # Only the first feature has a cut; the rules make the other two follow it.
    sign = 1 if up else -1
    forest = Forest(
        trees=(
            Tree(
                feature=np.array([0, -1, -1]), cut=np.array([2 if up else 1, 0, 0], np.float32),
                left=np.array([1, -1, -1]), right=np.array([2, -1, -1]),
                value=np.array([[0, 0], [0, -sign], [0, sign]]),
            ),
        ),
        constant=np.zeros(2), features=3,
    )  # fmt: skip
    names = ["a", "b", "c"]
    texts = ("a <= b", "a <= c") if up else ("a >= b", "a >= c")
    x = np.full(3, 2.0)
    statuses = []
    for most in (2, 3):
        asked = Capability(
            features=tuple(
                Feature(name=name, integer=True, lower=0, upper=4, cost=1.0) for name in names
            ),
            relations=tuple(Relation.read(text, names) for text in texts),
            **{limit: most},
        )
        found = decide(forest, x, 0, np.zeros(3), np.full(3, 4.0), capability=asked, seconds=20)
        statuses.append(found.status)
    assert statuses == ["proven", "witness"]


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


@pytest.mark.parametrize(
    "case", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, len(CASES)))]
)
def test_the_least_change_of_a_tree_is_that_of_trying_every_row(case: int) -> None:
    asked = capability_of(CASES[case])
    draw = np.random.default_rng(9)
    starts, exact, found_any = possible(asked), 0, 0
    for number in range(200):
        tree = grown(draw, 4, 3, 5)
        forest = Forest(trees=(tree,), constant=np.zeros(3), features=3)
        x = starts[draw.integers(len(starts))]
        label = int(forest.scores(x[None])[0].argmax())
        rows = TABLE[asked.contains(np.repeat(x[None], len(TABLE), 0), TABLE)]
        rows = rows[forest.scores(rows).argmax(1) != label]
        apart, same = np.abs(rows.astype(float) - x), np.repeat(x[None], len(rows), 0)
        wanted = {
            "linf": apart.max(1), "l1": apart.sum(1), "l0": asked.changed(same, rows),
            "cost": asked.cost(same.astype(float), rows.astype(float)),
        }  # fmt: skip
        lower, upper = (end[0] for end in asked.box(x[None]))
        lower, upper = np.maximum(lower, 0), np.minimum(upper, 8)
        measure = list(wanted)[number % 4]
        found = nearest(
            forest, x, label, lower, upper, measure=measure, capability=asked, seconds=20
        )
        least = min(wanted[measure].tolist(), default=np.inf)
        exact += found.exact
        assert found.distance >= least - 1e-9
        assert found.distance == pytest.approx(least) or not found.exact
        if found.row is not None:
            found_any += 1
            assert asked.contains(x[None], found.row[None])[0]
            assert forest.scores(found.row[None])[0].argmax() != label
    assert found_any > 50
    assert exact == 200 or case in UNSURE


def test_the_least_change_is_asked_of_a_single_tree() -> None:
    forest = Forest(
        trees=tuple(grown(DRAW, 2, 3, 5) for _ in range(2)), constant=np.zeros(3), features=3
    )
    with pytest.raises(ModelError, match="2 trees; give one of a single tree"):
        nearest(forest, np.zeros(3), 0, np.zeros(3), np.ones(3))


def test_cells_answer_as_the_forest_in_every_part() -> None:
    draw = np.random.default_rng(2)
    features = (
        Feature(name="a", integer=True), Feature(name="b", step=0.25), Feature(name="c"),
    )  # fmt: skip
    asked = Capability(features=features)
    for _ in range(20):
        forest = Forest(
            trees=tuple(grown(draw, 4, 3, 5) for _ in range(3)),
            constant=draw.normal(0, 1, 3), features=3,
        )  # fmt: skip
        x = np.array([2.0, 1.25, 1.7], np.float32)
        lower, upper = np.array([-0.3, 0.5, 0.1]), np.array([4.0, 2.9, 3.4])
        axes = axes_of(forest.cuts, x.astype(float), lower, upper, asked)
        cells = reach_of(forest, axes).towards(2, 0)
        rows = np.stack(
            [draw.integers(0, 5, 50), draw.integers(2, 12, 50) / 4, draw.uniform(0.1, 3.4, 50)], 1
        ).astype(np.float32)
        parts = np.stack([axis.part(rows[:, n]) for n, axis in enumerate(axes)], 1)
        scores = forest.scores(rows)
        margins = cells.margins(parts)
        assert np.allclose(margins, scores[:, 2] - scores[:, 0])
        assert cells.highest >= margins.max() - 1e-9
        feature, part, margin = cells.moves(parts[0])
        assert len(feature) == cells.ends.sum()
        moved = np.repeat(parts[:1], len(feature), 0)
        moved[np.arange(len(feature)), feature] = part
        assert np.allclose(margin, cells.margins(moved))
        # Both ends of every part are possible, and answer alike.
        for each in (moved, parts):
            for side in ("first", "last"):
                there = np.stack([getattr(a, side)[each[:, n]] for n, a in enumerate(axes)], 1)
                assert (there == there.astype(np.float32)).all()
                assert asked.contains(there, there).all()
                assert ((there >= lower) & (there <= upper)).all()
                other = forest.scores(there)
                assert np.allclose(other[:, 2] - other[:, 0], cells.margins(each))


def test_a_bound_of_the_relaxed_programme_holds_whatever_the_solver_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import scipy.optimize

    draw = np.random.default_rng(4)
    real = scipy.optimize.linprog

    def lying(*arguments: Any, **more: Any) -> Any:
        found = real(*arguments, **more)
        found.ineqlin.marginals += draw.normal(0, 0.3, len(found.ineqlin.marginals))
        found.eqlin.marginals += draw.normal(0, 0.3, len(found.eqlin.marginals))
        return found

    for _ in range(20):
        programme = Programme()
        columns = programme.variables(6, -1, 2, gain=draw.normal(0, 1, 6))
        for _ in range(4):
            factors = dict(zip(columns.tolist(), draw.normal(0, 1, 6).tolist(), strict=True))
            programme.rule(factors, -1.0, float(draw.uniform(0, 1)))
        programme.rule(dict.fromkeys(columns.tolist(), 1.0), 1.0, 1.0)
        # Far from binding: a price below 0 here would lower the bound beyond the truth.
        programme.rule({int(columns[0]): 1.0}, -np.inf, 50.0)
        monkeypatch.setattr(scipy.optimize, "linprog", real)
        best = programme.relaxed(10)
        assert best.solution is not None
        monkeypatch.setattr(scipy.optimize, "linprog", lying)
        told = programme.relaxed(10)
        assert told.bound >= best.bound - 1e-9
        assert -programme.solved(10).fun == pytest.approx(best.bound)


def test_a_row_that_is_outside_is_named() -> None:
    forest = Forest(trees=(grown(DRAW, 2, 3, 5),), constant=np.zeros(3), features=3)
    with pytest.raises(ThreatError, match=r"feature 1 is 2 before the attack, .* between 0 and 1"):
        decide(forest, np.array([0, 2, 0]), 0, np.zeros(3), np.ones(3))


def test_no_time_leaves_a_row_undecided() -> None:
    forest = Forest(
        trees=tuple(grown(DRAW, 4, 3, 5) for _ in range(9)), constant=np.zeros(3), features=3
    )
    x = np.array([2.0, 2.0, 2.0])
    label = int(forest.scores(x[None])[0].argmax())
    found = decide(forest, x, label, x - 2, x + 2, seconds=1e-9)
    assert (found.status, found.row, found.by) == ("undecided", None, None)
    assert decide(forest, x, label, x - 2, x + 2, seconds=20).status == "witness"


def test_what_rounding_leaves_open_is_asked_of_the_model() -> None:
    # Class 0 leads by 1 or 2 in the first tree, and loses 1 where two others agree on class 1.
    def split(feature: int, cut: float, left: float, right: float) -> Tree:
        return Tree(
            feature=np.array([feature, -1, -1]), cut=np.array([cut, 0, 0], np.float32),
            left=np.array([1, -1, -1]), right=np.array([2, -1, -1]),
            value=np.array([[0, 0], [left, 0], [right, 0]]),
        )  # fmt: skip

    forest = Forest(
        trees=(split(0, 0.5, 2, 1), split(1, 0.5, 0, -0.5), split(2, 0.5, 0, -0.5)),
        constant=np.zeros(2), features=3,
    )  # fmt: skip
    x, low, high = np.zeros(3), np.zeros(3), np.ones(3)
    tied = np.array([1, 1, 1])
    assert forest.scores(tied[None]).tolist() == [[0, 0]]
    ahead = replace(forest, constant=np.array([0, 0.3]))
    assert decide(ahead, x, 0, low, high).status == "witness"
    # The forest, and most models, take the first class where two have the same score.
    assert decide(forest, x, 0, low, high).status == "proven"
    found = decide(forest, x, 0, low, high, fools=lambda row: bool((row > 0.5).all()))
    assert found.status == "witness"
    assert found.row is not None
    assert (found.row > 0.5).all()


def test_a_dear_feature_does_not_eat_the_budget_of_another() -> None:
    """What one feature's farthest part costs is nothing that another must pay."""
    tree = Tree(
        feature=np.array([1, 0, -1, -1, -1]), cut=np.array([5, 500, 0, 0, 0], np.float32),
        left=np.array([1, 2, -1, -1, -1]), right=np.array([4, 3, -1, -1, -1]),
        value=np.array([[0, 0], [0, 0], [1, 0], [1, 0], [0, 1.0]]),
    )  # fmt: skip
    forest = Forest(trees=(tree, tree), constant=np.zeros(2), features=3)
    can = Capability(
        features=(
            Feature(name="amount", lower=0, upper=1000, cost=1),
            Feature(name="paid", lower=0, upper=10, cost=1),
            Feature(name="billed", lower=0, upper=10),
        ),
        relations=(Relation.read("paid <= billed", ["amount", "paid", "billed"]),),
        most_cost=100,
    )
    x = np.array([10, 1, 9], np.float32)
    low, high = (end[0] for end in can.box(x[None]))
    found = decide(forest, x, 0, low, high, capability=can)
    assert found.status == "witness"
    alone = _Asked(forest, x, 0, low, high, can, None, time.monotonic() + 5)
    (cells,) = [reach_of(forest, alone.axes).towards(1, 0)]
    assert alone._solved(cells).status == "witness"
    assert alone._relaxed(cells).status != "proven"


def test_the_last_multiple_of_a_step_is_there() -> None:
    for upper, step in ((0.7, 0.1), (13.36, 0.01)):
        feature = Feature(name="a", lower=0, upper=float(np.float32(upper)), step=step)
        can = Capability(features=(feature,))
        end = np.float32(upper)
        before = np.nextafter(end, np.float32(0))
        tree = Tree(
            feature=np.array([0, -1, -1]), cut=np.array([before, 0, 0], np.float32),
            left=np.array([1, -1, -1]), right=np.array([2, -1, -1]),
            value=np.array([[0, 0], [1, 0], [0, 1.0]]),
        )  # fmt: skip
        forest = Forest(trees=(tree,), constant=np.zeros(2), features=1)
        x = np.array([0], np.float32)
        low, high = (side[0] for side in can.box(x[None]))
        found = decide(forest, x, 0, low, high, capability=can)
        assert found.status == "witness"
        assert found.row is not None
        assert found.row[0] == end


def test_what_stands_for_missing_is_no_number_that_is_read() -> None:
    xgboost: Any = pytest.importorskip("xgboost")
    lightgbm: Any = pytest.importorskip("lightgbm")
    x, y = np.round(np.abs(X)), LABELS[2]
    made = xgboost.XGBClassifier(n_estimators=4, max_depth=3, missing=0.0, nthread=1).fit(x, y)
    margin = trees_model(made, domain=(0, 9)).function(x)[:, 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-margin)), made.predict_proba(x)[:, 1], atol=1e-6)
    with pytest.raises(ModelError, match=r"the trees take 0 for missing, .* use NaN"):
        read_forest(made)
    settings: dict[str, Any] = {"n_estimators": 4, "verbose": -1, "num_threads": 1}
    zeros = lightgbm.LGBMClassifier(**settings, zero_as_missing=True).fit(x, y)
    with pytest.raises(ModelError, match=r"tree 0 takes 0 for missing, .* fit it without"):
        read_forest(zeros)


@pytest.mark.parametrize("parallel", [1, 3])
def test_trees_that_came_after_the_best_are_none(parallel: int) -> None:
    xgboost: Any = pytest.importorskip("xgboost")
    y = np.where(np.arange(len(X)) % 3 == 0, 1 - LABELS[2], LABELS[2])
    made = xgboost.XGBClassifier(
        n_estimators=30, max_depth=3, subsample=0.5, num_parallel_tree=parallel, nthread=1,
        early_stopping_rounds=2,
    ).fit(X[:120], y[:120], eval_set=[(X[120:], y[120:])], verbose=False)  # fmt: skip
    assert made.best_iteration + 1 < made.get_booster().num_boosted_rounds()
    forest = read_forest(made)
    assert len(forest.trees) == (made.best_iteration + 1) * parallel
    margin = made.predict(X, output_margin=True)
    assert np.abs(forest.scores(X)[:, 1] - margin).max() <= forest.rounding


def test_what_a_model_adds_besides_its_trees_is_not_taken_for_a_constant() -> None:
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    made = GradientBoostingClassifier(n_estimators=4, init=LogisticRegression())
    with pytest.raises(ModelError, match=r"the sum of its trees and a constant, .* init estimator"):
        read_forest(made.fit(X, LABELS[2]))
    xgboost: Any = pytest.importorskip("xgboost")
    settings: dict[str, Any] = {"n_estimators": 4, "max_depth": 3, "nthread": 1}
    vectors = xgboost.XGBClassifier(**settings, multi_strategy="multi_output_tree")
    with pytest.raises(ModelError, match="tree 0 has several values in a leaf"):
        read_forest(vectors.fit(X, LABELS[3]))
    both = np.stack((LABELS[2], 1 - LABELS[2]), 1)
    with pytest.raises(ModelError, match="the trees give 2 labels at once"):
        read_forest(xgboost.XGBClassifier(**settings).fit(X, both))


def test_a_large_constant_leaves_as_much_to_rounding() -> None:
    leaf = Tree(
        feature=np.array([0, -1, -1]), cut=np.zeros(3, np.float32), left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]), value=np.array([[0, 0], [0, 0.1], [0, -1e-6]]),
    )  # fmt: skip
    x, low, high = -np.ones(1), -np.ones(1), np.ones(1)
    for constant, kept in ((0.0, False), (1e3, True)):
        # In single precision 1000 - 1e-6 is 1000, as is the score of the other class.
        forest = Forest(trees=(leaf,), constant=np.array([constant, constant]), features=1)
        assert forest.rounding > np.spacing(np.float32(constant))
        found = decide(
            forest, x, 1, low, high, fools=lambda row, kept=kept: not kept and row[0] > 0
        )
        assert found.status == ("proven" if kept else "witness")


def test_what_is_derived_becomes_what_allow_would_forbid() -> None:
    """What follows from others follows, whatever `allow` says of changes by themselves."""
    names = ["a", "kind"]
    can = Capability(
        features=(
            Feature(name="a", integer=True, lower=0, upper=2),
            Feature(name="kind", values=(0, 1, 2), allow={0.0: (1.0,)}),
        ),
        derived=(Derived.read("kind", "a", names),),
    )
    tree = Tree(
        feature=np.array([1, -1, -1]), cut=np.array([1.5, 0, 0], np.float32),
        left=np.array([1, -1, -1]), right=np.array([2, -1, -1]),
        value=np.array([[0, 0], [1, 0], [0, 1.0]]),
    )  # fmt: skip
    forest = Forest(trees=(tree,), constant=np.zeros(2), features=2)
    x = np.zeros(2, np.float32)
    low, high = (end[0] for end in can.box(x[None]))
    found = decide(forest, x, 0, low, high, capability=can, seconds=20)
    assert found.row is not None
    assert found.row.tolist() == [2, 2]
    assert can.contains(x[None], found.row[None])[0]


@pytest.mark.parametrize(("begin", "cuts", "own"), [(0.0, (2e9, 2.5e9), 0), (3e9, (2e9, 4.5e9), 1)])
def test_beyond_what_a_programme_takes_no_leaf_is_farther_than_it_is(
    begin: float, cuts: tuple[float, float], own: int
) -> None:
    can = Capability(
        features=(
            Feature(name="amount", lower=0, upper=5e9),
            Feature(name="fee", lower=0, upper=10),
        ),
        # The nearest leaf asks for a fee, which no linear rule tells.
        relations=(
            Relation.read(f"fee * fee >= 4 or amount == {begin:g} or amount >= {cuts[1]:g}",
                          ["amount", "fee"]),
        ),
    )  # fmt: skip
    told = [[0, 1.0]] * 3
    told[own] = [1.0, 0]
    tree = Tree(
        feature=np.array([0, -1, 0, -1, -1]), cut=np.array([cuts[0], 0, cuts[1], 0, 0], np.float32),
        left=np.array([1, -1, 3, -1, -1]), right=np.array([2, -1, 4, -1, -1]),
        value=np.array([[0, 0], told[0], [0, 0], *told[1:]]),
    )  # fmt: skip
    forest = Forest(trees=(tree,), constant=np.zeros(2), features=2)
    x = np.array([begin, 1], np.float32)
    low, high = (end[0] for end in can.box(x[None]))
    found = nearest(forest, x, 0, low, high, capability=can)
    there = np.array([np.nextafter(np.float32(cuts[0]), np.float32(9e9 * (own == 0))), 2])
    assert can.contains(x[None], there[None])[0]
    assert int(forest.scores(there[None])[0].argmax()) == 1
    assert found.row is not None
    assert found.distance > np.abs(there - x).max()
    assert not found.exact


def test_numbers_alone_have_a_least_change_too() -> None:
    can = Capability(
        features=(Feature(name="a", lower=0, upper=9), Feature(name="b", lower=0, upper=9)),
        relations=(Relation.read("a + b <= 9", ["a", "b"]),),
    )
    tree = Tree(
        feature=np.array([0, -1, -1]), cut=np.array([5, 0, 0], np.float32),
        left=np.array([1, -1, -1]), right=np.array([2, -1, -1]),
        value=np.array([[0, 0], [1, 0], [0, 1.0]]),
    )  # fmt: skip
    forest = Forest(trees=(tree,), constant=np.zeros(2), features=2)
    x = np.array([1, 7], np.float32)
    low, high = (end[0] for end in can.box(x[None]))
    # To a above 5 it is 4, and b must give way by 3.
    for measure, wanted in (("linf", 4.0), ("l1", 7.0), ("l0", 2.0)):
        found = nearest(forest, x, 0, low, high, measure=measure, capability=can)
        assert found.exact
        assert found.distance == pytest.approx(wanted, abs=1e-5)
