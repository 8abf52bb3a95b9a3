"""Ensembles of trees through `certify`: certificates, files, replay, and beside attacks."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from withstand._errors import BudgetError, CertificateError, DataError, ModelError, ThreatError
from withstand.attacks import Checkpoint, TableSearch, run
from withstand.certify import (
    Certificates,
    Trees,
    certificates_schema,
    certify,
    load_certificates,
    show,
    verify,
)
from withstand.config import CertifyConfig
from withstand.data import from_arrays
from withstand.evaluate import evaluate, sandwich
from withstand.models import FunctionModel, Thresholded, TorchModel, sklearn_model, trees_model
from withstand.threat import L0, L2, Box, Linf, Targeted, Threat
from withstand.threat.tabular import Capability, Feature, Relation

DATA = Path(os.environ.get("WITHSTAND_DATA", Path(__file__).parents[2] / "shared" / "data"))
PHISHING = DATA / "tabular" / "phishing_url.parquet"
NAMES = ("amount", "age", "visits", "share")
DRAW = np.random.default_rng(0)
TABLE = np.array(list(product(range(5), repeat=4)), np.float32)
X = TABLE[DRAW.permutation(len(TABLE))[:200]]
Y = (X[:, 0] * 2 + X[:, 1] - X[:, 2] * X[:, 3] / 2 + DRAW.normal(0, 0.6, len(X)) > 4).astype(int)
FITTED = GradientBoostingClassifier(n_estimators=12, max_depth=3, random_state=0).fit(X, Y)
MODEL = sklearn_model(FITTED, domain=(0, 4))
CAN = Capability(
    features=(
        Feature(name="amount", integer=True, lower=0, upper=4, most=1),
        Feature(name="age", integer=True, change="none"),
        Feature(name="visits", integer=True, lower=0, upper=4, change="increase"),
        Feature(name="share", integer=True, lower=0, upper=4, most=1),
    ),
    relations=(Relation.read("amount + visits <= 7", NAMES),),
)
THREAT = Threat(region=CAN, access="scores")
ROWS = from_arrays(X[CAN.contains(X, X)][:20], Y[CAN.contains(X, X)][:20], features=NAMES)


@pytest.fixture(scope="module")
def told() -> Certificates:
    return certify(MODEL, ROWS, THREAT, Trees())


def fooled(model: Any, threat: Threat) -> list[bool]:
    """For each row, whether any row of the whole table fools the model; wrong ones at once."""
    answer = model.labels(torch.from_numpy(TABLE))
    found = []
    for x, y in zip(ROWS.x, ROWS.y, strict=True):
        there = threat.region.contains(np.repeat(x[None], len(TABLE), 0), TABLE)
        hit = threat.goal.hit(answer, torch.full((len(TABLE),), int(y))).numpy()
        mine = int(model.labels(torch.from_numpy(x[None]))[0])
        found.append(bool((there & hit).any()) or mine != y)
    return found


OUTCOMES = {"certified": False, "not certified": True, "wrong": True}


def test_each_outcome_is_that_of_trying_every_row(told: Certificates) -> None:
    assert [OUTCOMES[c.outcome] for c in told.certificates] == fooled(MODEL, THREAT)
    assert {c.outcome for c in told.certificates} == set(OUTCOMES)
    assert told.certified_accuracy.value == pytest.approx(1 - np.mean(fooled(MODEL, THREAT)))
    for row, found in zip(ROWS.x, told.certificates, strict=True):
        assert (found.witness is not None) == (found.outcome == "not certified")
        assert found.radius == (4 if found.outcome == "certified" else 0)
        if found.witness is not None:
            there = np.array(found.witness, np.float32)[None]
            assert CAN.contains(row[None], there)[0]
            assert int(MODEL.labels(torch.from_numpy(there))[0]) != found.label
        if found.outcome == "certified":
            assert found.margin is not None
            assert found.margin > 0


@pytest.mark.parametrize("most", [1, 2])
def test_a_number_of_features_limits_with_a_table_and_without(most: int) -> None:
    whole = replace(CAN, features=tuple(replace(one, most=None) for one in CAN.features))
    for region in (L0(most) & CAN, L0(most) & whole):
        threat = Threat(region=region, access="scores")
        found = certify(MODEL, ROWS, threat, Trees())
        assert [OUTCOMES[c.outcome] for c in found.certificates] == fooled(MODEL, threat)
    # The trees' cuts lie between whole numbers: any number there answers as a whole one.
    threat = Threat(region=L0(most), access="scores")
    found = certify(MODEL, ROWS, threat, Trees())
    assert [OUTCOMES[c.outcome] for c in found.certificates] == fooled(MODEL, threat)


def test_a_ball_is_decided_and_one_of_other_norms_is_refused() -> None:
    threat = Threat(region=Linf(1.0), access="scores")
    found = certify(MODEL, ROWS, threat, Trees())
    assert [OUTCOMES[c.outcome] for c in found.certificates] == fooled(MODEL, threat)
    assert {c.radius for c in found.certificates if c.outcome == "certified"} <= {1.0}
    for region in (L2(0.5), Linf(1.0) & L2(0.5)):
        with pytest.raises(ThreatError, match="method trees is for a box, an Linf or L0 ball"):
            certify(MODEL, ROWS, Threat(region=region, access="scores"), Trees())
    with pytest.raises(BudgetError, match="seconds is 0; give more than 0"):
        Trees(seconds=0)


def test_a_target_is_decided_for_rows_of_other_classes() -> None:
    threat = replace(THREAT, goal=Targeted(1))
    found = certify(MODEL, ROWS, threat, Trees())
    assert [OUTCOMES[c.outcome] for c in found.certificates] == fooled(MODEL, threat)


@pytest.mark.parametrize("threshold", [0.2, 0.7])
@pytest.mark.parametrize("kind", ["boosting", "forest"])
def test_a_threshold_moves_what_is_decided(kind: str, threshold: float) -> None:
    made = FITTED
    if kind == "forest":
        made = RandomForestClassifier(5, max_depth=3, random_state=0).fit(X, Y)
    model = Thresholded(sklearn_model(made, domain=(0, 4)), threshold)
    answer = made.predict_proba(TABLE)[:, 1] >= threshold
    assert (model.labels(torch.from_numpy(TABLE)).numpy() == answer).mean() > 0.999
    found = certify(model, ROWS, THREAT, Trees())
    assert [OUTCOMES[c.outcome] for c in found.certificates] == fooled(model, THREAT)
    plain = certify(sklearn_model(made, domain=(0, 4)), ROWS, THREAT, Trees())
    assert [c.outcome for c in plain.certificates] != [c.outcome for c in found.certificates]


@pytest.mark.slow
def test_a_scaler_before_the_trees_changes_no_decision() -> None:
    made = make_pipeline(StandardScaler(), clone(FITTED)).fit(X, Y)
    model = sklearn_model(made, domain=(0, 4))
    found = certify(model, ROWS, THREAT, Trees())
    assert [OUTCOMES[c.outcome] for c in found.certificates] == fooled(model, THREAT)


def test_a_relation_that_is_not_linear_is_told_and_kept(tmp_path: Path) -> None:
    asked = replace(CAN, relations=(*CAN.relations, Relation.read("amount * share <= 9", NAMES)))
    data = ROWS.take(asked.contains(ROWS.x, ROWS.x))
    found = certify(MODEL, data, Threat(region=asked, access="scores"), Trees())
    assert found.left_out == ("amount * share <= 9",)
    for row, one in zip(data.x, found.certificates, strict=True):
        if one.witness is not None:
            assert asked.contains(row[None], np.array(one.witness, np.float32)[None])[0]
    assert "amount * share <= 9: not linear" in shown(found)
    assert load_certificates(found.save(tmp_path / "c.json")) == found


def shown(told: Certificates) -> str:
    from rich.console import Console

    console = Console(width=300)
    with console.capture() as capture:
        show(told, console)
    return capture.get()


def test_what_was_not_decided_in_time_is_said(told: Certificates) -> None:
    found = certify(MODEL, ROWS, THREAT, Trees(seconds=1e-9))
    undecided = [c for c in found.certificates if c.outcome == "abstained"]
    assert undecided
    assert f"{len(undecided)} not within 1e-09 s" in shown(found)
    assert all(c.radius == 0 for c in undecided)
    proofs = sum(c.outcome == "certified" for c in told.certificates)
    assert f"{proofs} by a proof" in shown(told)
    assert "0 not within 2 s" in shown(told)
    # Without time a proof may be missing; none is there that is none.
    for late, sure in zip(found.certificates, told.certificates, strict=True):
        assert late.outcome in (sure.outcome, "abstained")


def test_a_file_holds_witnesses_in_the_published_form(told: Certificates, tmp_path: Path) -> None:
    path = told.save(tmp_path / "certificates.json")
    assert load_certificates(path) == told
    content = json.loads(path.read_text())
    jsonschema.validate(content, certificates_schema())
    assert content["method"] == "trees"
    assert "left_out" not in content
    assert any("witness" in row for row in content["certificates"])


def test_a_replay_finds_what_was_changed(told: Certificates) -> None:
    assert verify(told, MODEL, ROWS, THREAT) == ()
    place = next(i for i, c in enumerate(told.certificates) if c.witness is not None)
    safe = next(i for i, c in enumerate(told.certificates) if c.outcome == "certified")

    def changed(at: int, **changes: Any) -> Certificates:
        rows = list(told.certificates)
        rows[at] = replace(rows[at], **changes)
        return replace(told, certificates=tuple(rows))

    harmless = changed(place, witness=tuple(ROWS.x[place].tolist()))
    (line,) = verify(harmless, MODEL, ROWS, THREAT)
    assert line == f"sample {place}: the witness does not fool the model, or cannot be made"
    # A row that fools the model, and that the attacker cannot make of this one.
    elsewhere = MODEL.labels(torch.from_numpy(TABLE)).numpy() != ROWS.y[place]
    elsewhere &= ~CAN.contains(np.repeat(ROWS.x[place][None], len(TABLE), 0), TABLE)
    impossible = changed(place, witness=tuple(TABLE[elsewhere][0].tolist()))
    assert verify(impossible, MODEL, ROWS, THREAT) == (line,)
    claimed = changed(place, outcome="certified", witness=None, radius=4.0)
    assert any("outcome is certified" in line for line in verify(claimed, MODEL, ROWS, THREAT))
    # What was undecided says nothing that could be wrong.
    unsure = changed(safe, outcome="abstained", radius=0.0, margin=None, method="trees")
    assert verify(unsure, MODEL, ROWS, THREAT) == ()
    # Its label and the model's answer are known all the same.
    wrong = replace(unsure.certificates[safe], label=1 - ROWS.y[safe], answer=1 - ROWS.y[safe])
    lines = verify(changed(safe, **dataclasses.asdict(wrong)), MODEL, ROWS, THREAT)
    assert [line.split()[2] for line in lines] == ["label", "answer"]
    # Nor does a replay that has no time contradict what was decided.
    assert verify(replace(told, settings={"seconds": 1e-9}), MODEL, ROWS, THREAT) == ()
    other = GradientBoostingClassifier(n_estimators=12, max_depth=3, random_state=1, subsample=0.5)
    model = sklearn_model(other.fit(X, Y), domain=(0, 4))
    assert any("another model: the certificates are of trees" in line
               for line in verify(told, model, ROWS, THREAT))  # fmt: skip


class KilledError(Exception):
    pass


def test_what_was_decided_is_not_decided_again(
    told: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "due", True)
    path, seen = tmp_path / "checkpoint", []

    def until(last: int) -> Any:
        def progress(done: int, total: int) -> None:
            seen.append(done)
            if done == last:
                raise KilledError

        return progress

    with pytest.raises(KilledError):
        certify(MODEL, ROWS, THREAT, Trees(), checkpoint=path, progress=until(12))
    again = certify(MODEL, ROWS, THREAT, Trees(), checkpoint=path, progress=until(0))
    assert seen == [*range(1, 13), *range(13, len(ROWS) + 1)]
    assert again.certificates == told.certificates
    assert not path.exists()


def test_certified_and_robust_accuracy_hold_the_truth_between_them(told: Certificates) -> None:
    report = evaluate(MODEL, ROWS, THREAT, preset="smoke")
    with pytest.raises(DataError, match="no digest to tell it from another"):
        sandwich(report, told)
    others = sklearn_model(clone(FITTED).set_params(max_depth=2).fit(X, Y), domain=(0, 4))
    with pytest.raises(DataError, match="of other trees"):
        sandwich(report, told, others)
    joined = sandwich(report, told, MODEL)
    truth = 1 - np.mean(fooled(MODEL, THREAT))
    assert joined.certified_accuracy is not None
    assert joined.certified_accuracy.value == pytest.approx(truth)
    assert report.robust_accuracy.value >= truth - 1e-9
    place = int(np.flatnonzero(np.asarray(report.samples.status) == "fooled")[0])
    rows = list(told.certificates)
    rows[place] = replace(rows[place], outcome="certified", radius=4.0, witness=None)
    with pytest.raises(CertificateError, match=f"sample {place} was certified within 4"):
        sandwich(report, replace(told, certificates=tuple(rows)), MODEL)


def test_what_is_no_ensemble_of_trees_is_refused() -> None:
    net = TorchModel(torch.nn.Linear(4, 2), domain=(0, 4))
    with pytest.raises(ModelError, match="the model is a TorchModel, whose trees cannot be read"):
        certify(net, ROWS, THREAT, Trees())
    bare = FunctionModel(lambda x: FITTED.predict_proba(x), domain=(0, 4))
    with pytest.raises(ModelError, match="whose trees cannot be read"):
        certify(bare, ROWS, THREAT, Trees())
    crossed = make_pipeline(PolynomialFeatures(), clone(FITTED)).fit(X, Y)
    with pytest.raises(ModelError, match="step PolynomialFeatures before the trees is not read"):
        certify(sklearn_model(crossed, domain=(0, 4)), ROWS, THREAT, Trees())
    scaled = FunctionModel(lambda x: FITTED.predict_proba(4 - x), domain=(0, 4), estimator=FITTED)
    with pytest.raises(ModelError, match="it changes rows before its trees see them"):
        certify(scaled, ROWS, THREAT, Trees())


def test_what_knows_names_and_computes_with_more_than_rows_hold_is_refused() -> None:
    pandas: Any = pytest.importorskip("pandas")
    frame, one = pandas.DataFrame(X, columns=list(NAMES)), ROWS.take([0])
    histograms = HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=5, random_state=0)
    for made in (histograms, make_pipeline(StandardScaler(), clone(FITTED))):
        named = sklearn_model(clone(made).fit(frame, Y), domain=(0, 4))
        with pytest.raises(ModelError, match=r"by name; fit it to rows of numbers without names"):
            certify(named, one, THREAT, Trees())
        bare = sklearn_model(clone(made).fit(X, Y), domain=(0, 4))
        assert len(certify(bare, one, THREAT, Trees()).certificates) == 1


def test_a_row_that_breaks_a_rule_before_the_attack_is_named() -> None:
    data = from_arrays(np.array([[1, 1, 1, 1], [4, 1, 4, 1]], np.float32), np.array([0, 1]))
    with pytest.raises(DataError, match=r"row 1 breaks the rule 'amount \+ visits <= 7'"):
        certify(MODEL, data, THREAT, Trees())


def test_seconds_are_only_for_trees() -> None:
    assert CertifyConfig(method="trees").seconds == 2
    with pytest.raises(ValueError, match="is only for method trees, not bounds"):
        CertifyConfig(method="bounds", seconds=3)


@pytest.mark.slow
def test_no_search_succeeds_where_phishing_rows_are_proven() -> None:
    if not PHISHING.exists():
        pytest.skip(f"no {PHISHING}; set WITHSTAND_DATA to the folder that has it")
    xgboost: Any = pytest.importorskip("xgboost")
    pandas: Any = pytest.importorskip("pandas")
    table = pandas.read_parquet(PHISHING)
    table.columns = [name.lower() for name in table.columns]
    y = table.pop("label").to_numpy().astype(int)
    x = table.drop(columns=["url"]).to_numpy(np.float32)
    names = [name for name in table.columns if name != "url"]
    fitted = xgboost.XGBClassifier(n_estimators=200, max_depth=6, nthread=1, random_state=0)
    model = trees_model(fitted.fit(x[:8000], y[:8000]), domain=Box(x.min(0), x.max(0)))
    width = 0.02 * np.ptp(x.astype(float), axis=0)
    features = tuple(
        Feature(
            name=name, lower=float(x[:, n].min()), upper=float(x[:, n].max()),
            integer=bool((x[:, n] == np.rint(x[:, n])).all()), most=float(width[n]) or None,
        )
        for n, name in enumerate(names)
    )  # fmt: skip
    relations = ("length_hostname <= length_url", "shortest_words_raw <= avg_words_raw")
    asked = Capability(
        features=features, relations=tuple(Relation.read(text, names) for text in relations)
    )
    rows = np.flatnonzero(asked.contains(x, x) & (np.arange(len(x)) >= 8000))[:60]
    data, threat = from_arrays(x[rows], y[rows]), Threat(region=asked, access="scores")
    found = certify(model, data, threat, Trees(seconds=20))
    outcomes = np.array([c.outcome for c in found.certificates])
    assert (outcomes != "abstained").mean() >= 0.95
    assert {"certified", "not certified"} <= set(outcomes)
    right = outcomes != "wrong"
    searched = run(
        TableSearch(), model, torch.from_numpy(data.x[right]), torch.from_numpy(data.y[right]),
        threat,
    )  # fmt: skip
    assert not (searched.success.numpy() & (outcomes[right] == "certified")).any()
    for row, one in zip(data.x, found.certificates, strict=True):
        if one.witness is not None:
            there = np.array(one.witness, np.float32)[None]
            assert asked.contains(row[None], there)[0]
            assert fitted.predict(there)[0] != one.label
