"""Boosted trees as targets: their own scores, from objects and from files that hold no pickle."""

import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import lightgbm
import numpy as np
import pandas
import pytest
import torch
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import minmax_scale

from withstand import attacks
from withstand._errors import ModelError
from withstand.config import ModelConfig, TableConfig, parse_config
from withstand.data._tabular import table_of
from withstand.evaluate import from_config
from withstand.models import FunctionModel, load_model
from withstand.models._trees import is_trees, load_trees, trees_model
from withstand.threat import Linf, Threat

FEW: dict[str, Any] = {"n_estimators": 10, "n_jobs": 1, "random_state": 0}


class Case(NamedTuple):
    x: Any
    y: Any
    estimator: Any
    file: Path


def data(task: str) -> tuple[Any, Any]:
    load = {"two": load_breast_cancer, "many": load_iris, "regression": load_diabetes}[task]
    x, y = load(return_X_y=True)
    return minmax_scale(x).astype(np.float32), y


def fitted(library: str, task: str, folder: Path, suffix: str) -> Case:
    x, y = data(task)
    if library == "xgboost":
        kind = xgboost.XGBRegressor if task == "regression" else xgboost.XGBClassifier
        estimator = kind(**FEW, max_depth=3).fit(x, y)
        estimator.save_model(folder / f"trees{suffix}")
    elif library == "lightgbm":
        kind = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
        estimator = kind(**FEW, verbose=-1).fit(x, y)
        estimator.booster_.save_model(folder / f"trees{suffix}")
    else:
        catboost = pytest.importorskip("catboost")
        kind = catboost.CatBoostRegressor if task == "regression" else catboost.CatBoostClassifier
        estimator = kind(iterations=10, verbose=False, thread_count=1, allow_writing_files=False)
        estimator.fit(x, y).save_model(str(folder / f"trees{suffix}"))
    return Case(x, y, estimator, folder / f"trees{suffix}")


FORMATS = [("xgboost", ".json"), ("xgboost", ".ubj"), ("lightgbm", ".txt"), ("catboost", ".cbm")]


@pytest.mark.parametrize("task", ["two", "many", "regression"])
@pytest.mark.parametrize(("library", "suffix"), FORMATS, ids=str)
def test_scores_are_the_librarys_own(library: str, suffix: str, task: str, tmp_path: Path) -> None:
    x, y, estimator, file = fitted(library, task, tmp_path, suffix)
    rows = torch.from_numpy(x)
    before = rows.clone()
    models = [trees_model(estimator, domain=(0, 1)), load_trees(file, file.name, domain=(0, 1))]
    for model in models:
        assert isinstance(model, FunctionModel)
        assert model.access == "scores"
        scores = model.scores(rows)
        assert torch.equal(rows, before)
        if task == "regression":
            assert scores.shape == (len(x), 1)
            expected = estimator.predict(x)
            assert np.allclose(scores[:, 0].numpy(), expected, rtol=1e-5, atol=1e-4)
            continue
        # As probabilities they are the library's own, and as margins they do not saturate.
        expected = estimator.predict_proba(x)
        assert np.allclose(scores.softmax(1).numpy(), expected, atol=1e-5)
        assert (model.labels(rows).numpy() == estimator.predict(x).reshape(-1)).all()
        assert torch.equal(model.scores(rows[3:5]), scores[3:5])
    assert torch.equal(models[0].scores(rows), models[1].scores(rows))
    if task == "regression":
        assert np.corrcoef(models[0].scores(rows)[:, 0].numpy(), y)[0, 1] > 0.6
    else:
        assert (models[0].labels(rows).numpy() == y).mean() > 0.9


@pytest.mark.parametrize(("library", "suffix"), FORMATS[1:3], ids=str)
def test_a_label_attack_end_to_end(library: str, suffix: str, tmp_path: Path) -> None:
    x, y, _, _ = fitted(library, "two", tmp_path, suffix)
    config = {"kind": "sklearn", "weights": f"trees{suffix}", "access": "labels"}
    model = load_model(ModelConfig.model_validate(config), tmp_path)
    rows, truth = torch.from_numpy(x[:12]), torch.from_numpy(y[:12])
    threat = Threat(region=Linf(0.3), access="labels")
    result = attacks.run(attacks.HopSkipJump(queries=500), model, rows, truth, threat)
    right = model.labels(rows) == truth
    assert int(right.sum()) >= 10
    assert int((result.success & right).sum()) >= 8
    fooled = result.x_adv[result.success]
    assert (model.labels(fooled) != truth[result.success]).all()
    assert float((result.x_adv - rows).abs().max()) <= 0.3
    assert int(result.ledger.backwards.sum()) == 0


def test_early_stopping_is_honoured_as_the_estimator_does(tmp_path: Path) -> None:
    x, y = data("two")
    y = np.where(np.arange(len(y)) % 3 == 0, 1 - y, y)
    estimator = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=3, n_jobs=1)
    estimator.fit(x[:300], y[:300], eval_set=[(x[300:], y[300:])], verbose=False)
    assert estimator.best_iteration < estimator.get_booster().num_boosted_rounds() - 1
    estimator.save_model(tmp_path / "m.ubj")
    model = load_trees(tmp_path / "m.ubj", "m.ubj", domain=(0, 1))
    for made in (model, trees_model(estimator, domain=(0, 1))):
        probabilities = made.scores(torch.from_numpy(x)).softmax(1).numpy()
        assert np.allclose(probabilities, estimator.predict_proba(x), atol=1e-6)


def test_other_boosters_of_xgboost() -> None:
    x, y = data("two")
    line = xgboost.train(
        {"booster": "gblinear", "objective": "binary:logistic", "nthread": 1},
        xgboost.DMatrix(x, y, nthread=1),
        5,
    )
    model = trees_model(line, domain=(0, 1))
    expected = line.predict(xgboost.DMatrix(x, nthread=1))
    assert np.allclose(model.scores(torch.from_numpy(x)).softmax(1)[:, 1].numpy(), expected)
    both = np.stack((y, 1 - y), 1)
    several = xgboost.XGBClassifier(**FEW).fit(x, both)
    margins = trees_model(several, domain=(0, 1)).scores(torch.from_numpy(x))
    assert np.allclose(margins.sigmoid().numpy(), several.predict_proba(x), atol=1e-5)


def test_lightgbms_slope_of_the_sigmoid() -> None:
    x, y = data("two")
    estimator = lightgbm.LGBMClassifier(**FEW, verbose=-1, sigmoid=2.5).fit(x, y)
    scores = trees_model(estimator, domain=(0, 1)).scores(torch.from_numpy(x))
    assert np.allclose(scores.softmax(1).numpy(), estimator.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize(("library", "suffix"), FORMATS, ids=str)
def test_damaged_and_missing_files(library: str, suffix: str, tmp_path: Path) -> None:
    name = f"trees{suffix}"
    with pytest.raises(ModelError, match=f"{name} are not there; correct model.weights"):
        load_trees(tmp_path / name, name, domain=(0, 1))
    whole = fitted(library, "two", tmp_path, suffix).file.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"{name} cannot be read as a model of") as caught:
            load_trees(tmp_path / name, name, domain=(0, 1))
        assert "\n" not in str(caught.value)


def test_a_library_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suffix, library, extra in (
        (".ubj", "xgboost", "trees"),
        (".txt", "lightgbm", "trees"),
        (".cbm", "catboost", "catboost"),
    ):
        monkeypatch.setitem(sys.modules, library, None)
        (tmp_path / f"m{suffix}").write_text("")
        with pytest.raises(ModelError, match=rf"pip install 'withstand\[{extra}\]'"):
            load_trees(tmp_path / f"m{suffix}", f"m{suffix}", domain=(0, 1))


def test_what_is_not_fitted_or_does_not_fit() -> None:
    for fresh in (xgboost.XGBClassifier(), lightgbm.LGBMClassifier(), lightgbm.LGBMRegressor()):
        assert is_trees(fresh)
        with pytest.raises(ModelError, match=r"cannot be asked .* give a fitted model"):
            trees_model(fresh, domain=(0, 1))
    x, y = data("many")
    model = trees_model(xgboost.XGBClassifier(**FEW).fit(x, y), domain=(0, 1))
    with pytest.raises(ModelError, match="failed on an input of shape"):
        model.scores(torch.rand(2, 3))


FACTORY = """
import {library}
from sklearn.datasets import load_iris

def build():
    return {kind}(n_estimators=5, n_jobs=1, {more}).fit(*load_iris(return_X_y=True))
"""


@pytest.mark.parametrize(
    ("library", "kind", "more"),
    [("xgboost", "XGBClassifier", ""), ("lightgbm", "LGBMClassifier", "verbose=-1")],
)
def test_estimators_of_a_factory(library: str, kind: str, more: str, tmp_path: Path) -> None:
    text = FACTORY.format(library=library, kind=f"{library}.{kind}", more=more)
    (tmp_path / "model.py").write_text(text)
    config = {"kind": "sklearn", "factory": "model.py:build", "domain": [0, 8]}
    model = load_model(ModelConfig.model_validate(config), tmp_path)
    x, y = load_iris(return_X_y=True)
    scores = model.scores(torch.tensor(x, dtype=torch.float32))
    assert (scores.argmax(1).numpy() == y).mean() > 0.9
    # Log-probabilities would sum to 1.
    assert not torch.allclose(scores.exp().sum(1), torch.ones(len(x)), atol=1e-3)


def test_files_need_no_word_for_a_pickle(tmp_path: Path) -> None:
    fitted("xgboost", "many", tmp_path, ".json")
    config = ModelConfig.model_validate({"kind": "sklearn", "weights": "trees.json"})
    assert isinstance(load_model(config, tmp_path), FunctionModel)


ESTIMATORS: dict[str, Any] = {
    "xgboost": partial(xgboost.XGBClassifier, **{**FEW, "n_estimators": 2}),
    "lightgbm": partial(lightgbm.LGBMClassifier, **{**FEW, "n_estimators": 2}, verbose=-1),
    "sklearn": LogisticRegression,
}
TABLE = {"features": {name: {"lower": 0, "upper": 9} for name in ("amount", "account age")}}


# scikit-learn has no format of its own, and takes a table's columns by their names.
@pytest.mark.parametrize(
    ("library", "stored", "described"),
    [*product(["xgboost", "lightgbm"], [True, False], [True, False]), ("sklearn", False, False)],
)
@pytest.mark.parametrize(
    ("names", "fits"),
    [
        (["amount", "account age"], True),
        (["account age", "amount"], False),
        (["amount", "account age", "more"], False),
        (["amount"], False),
        (["other", "account age"], True),
        (["renamed", "too"], True),
    ],
)
def test_columns_in_other_places_than_it_was_fitted_to_are_refused(
    library: str, stored: bool, described: bool, names: list[str], fits: bool, tmp_path: Path
) -> None:
    x = pandas.DataFrame(np.random.default_rng(0).random((40, len(names))), columns=names)
    estimator = ESTIMATORS[library]().fit(x, np.arange(40) % 2)
    file = "m.ubj" if library == "xgboost" else "m.txt"
    if stored:
        (estimator if library == "xgboost" else estimator.booster_).save_model(tmp_path / file)
    else:
        file = "m.joblib"
        joblib.dump(estimator, tmp_path / file)
    config = ModelConfig(kind="sklearn", weights=file, allow_pickle=not stored)

    def load() -> Any:
        if described:
            return load_model(config, tmp_path, table_of(TableConfig.model_validate(TABLE)))
        return load_model(config, tmp_path, columns=list(TABLE["features"]))

    if fits:
        load()
        return
    asked = "in the table's file" if described else "as data.features"
    with pytest.raises(ModelError, match=r"on the columns .* rows have amount, acc") as told:
        load()
    assert asked in str(told.value)


def test_a_csv_whose_columns_lie_elsewhere_is_refused_with_the_order(tmp_path: Path) -> None:
    x = pandas.DataFrame(np.random.default_rng(0).random((40, 2)), columns=["amount", "age"])
    estimator = xgboost.XGBClassifier(n_estimators=2).fit(x, np.arange(40) % 2)
    estimator.save_model(tmp_path / "m.json")
    x[["age", "amount"]].assign(fraud=np.arange(40) % 2).to_csv(tmp_path / "t.csv", index=False)
    section: dict[str, Any] = {
        "model": {"kind": "sklearn", "weights": "m.json"},
        "data": {"kind": "csv", "path": "t.csv", "y": "fraud"},
        "threat": {"region": {"norm": "linf", "eps": 0.1}},
    }
    with pytest.raises(ModelError, match="on the columns amount, age, but rows have age, amount"):
        from_config(parse_config(section), tmp_path)
    section["data"]["features"] = ["amount", "age"]
    setup = from_config(parse_config(section), tmp_path)
    assert setup.data.features == ("amount", "age")
